"""The federation as a researcher uses it: datasets to ask about, answers to come back to."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from connexon import telemetry
from connexon.analyses.describe import Describe
from connexon.analyses.spec import Analysis
from connexon.client import catalog_cache, center_answer, finding
from connexon.client.answer import Answer
from connexon.client.finding import Findings
from connexon.client.following import Patience, following
from connexon.client.home import Home
from connexon.client.hub_calls import HubCalls
from connexon.client.story import Story
from connexon.client.study import Study
from connexon.client.terms import (
    EXPIRES_IN,
    WAIT_SECONDS,
    Progress,
    Terms,
    addressed,
    duration_ms,
    kept,
    purpose_of,
    require_wait,
)
from connexon.client.understanding import Understanding, has_names, names_disease
from connexon.clock import END, now_ms
from connexon.conditions.expression import check
from connexon.conditions.filters import Filter
from connexon.errors import ConnexonError, InvalidQuery, Misconfigured, NotFound, Refused, Unavailable
from connexon.identity import credential
from connexon.identity.credential import Researcher
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.query import signed, wire_question
from connexon.query.question import Purpose, Question
from connexon.safe_text import plain
from connexon.v1 import research_pb2

if TYPE_CHECKING:
    from connexon.client.training.model import Model
    from connexon.client.training.requests import AnyRecipe, ModelSummary, RunProgress
    from connexon.client.training.run import Run
    from connexon.v1 import query_pb2

ROSTER_SECONDS = 120.0
"""How old the roster may be before it is fetched again."""
_LONGEST_ID = 64
_WHOLE_ID = 36
"""Characters of a query id."""
CONNECT_SECONDS = 5.0
"""How long a hub that is just starting is waited for."""


@dataclass(frozen=True)
class Summary:
    """One of the researcher's questions as the hub lists it."""

    question: Question
    accepted_at_ms: int
    centers: int
    answered: int
    cancelled: bool


def _summary(one: research_pb2.QuerySummary) -> Summary:
    question = wire_question.from_bytes(one.query_payload)
    if not 0 <= one.accepted_at_ms < END:
        raise InvalidQuery("The hub says an impossible time.", code="query.unreadable")
    return Summary(
        question=question,
        accepted_at_ms=one.accepted_at_ms,
        centers=one.centers,
        answered=one.answered,
        cancelled=one.cancelled,
    )


class Network:
    """A connection to one federation; get it from connexon.connect(). Thread-safe."""

    def __init__(self, home: Home, calls: HubCalls) -> None:
        self.home = home
        self._login = home.login()
        self._key = home.key()
        self._calls = calls
        self._lock = threading.Lock()
        self._roster_at = 0.0
        self._roster = self._first_roster()
        self.researcher: Researcher = credential.verify(
            self._login.credential, self._roster, credential.NOTHING_REVOKED
        )
        if self.researcher.key != self._key.public:
            raise Misconfigured(
                "The login is for another key than the one in this folder. Send the steward the request that "
                "'connexon keygen' prints here, and log in with what comes back.",
                code="home.other_key",
            )

    def study(
        self,
        *,
        purpose: str | Purpose | None = None,
        project: str | None = None,
        commercial: bool = False,
        ethics_approval: str = "",
        centers: Iterable[str] | None = None,
        wait: float | None = WAIT_SECONDS,
        wait_for_all: bool = False,
        expires_in: str | datetime.timedelta = EXPIRES_IN,
        on_progress: Progress | None = None,
    ) -> Study:
        """Say once why and of whom you ask; `study.dataset(...)` asks on these terms. See Terms for each of them.

        What is left out is taken from the researcher's defaults (connexon defaults). Raises InvalidQuery.
        """
        return Study(
            self,
            Terms(
                purpose=purpose,
                project=project,
                commercial=commercial,
                ethics_approval=ethics_approval,
                centers=centers if centers is None or isinstance(centers, str) else kept(centers),
                wait=wait,
                wait_for_all=wait_for_all,
                expires_in=expires_in,
                on_progress=on_progress,
            ),
        )

    def find(self, words: str, *, limit: int = 10) -> Findings:
        """Terms, fields, values and datasets by the words people use, and how to ask for each.

        Looks at the catalog as last read here; where none was, the centers are asked for it.
        """
        return finding.find(words, self.known(), catalog_cache.terms(self.home), limit=limit)

    def ask(self, dataset: str, condition: Filter | None, analysis: Analysis, terms: Terms) -> Answer:
        """Sign a question, send it, and wait for answers as `terms` say. Raises Refused or Unavailable.

        Once the hub has written the question down, an answer always comes back, complete or not.
        """
        words = self._words(condition, terms)
        if condition is not None:
            check(condition)
            condition = words.condition(dataset, condition)
        if dataset:
            words.require_fields(dataset, analysis)
        if isinstance(terms.purpose, str):
            terms = replace(terms, purpose=words.purpose(terms.purpose))
        question = self._question(dataset, condition, analysis, terms)
        query = signed.sign_query(question, self._key, self._login.credential)
        # What centers would refuse is refused here, before anything is sent.
        wire_question.from_bytes(query.payload)
        self.home.remember(question.query_id, question.issued_at_ms, query.payload)
        answer = self._answer(question, query.payload)
        answer.remarks += words.echoes
        if terms.on_progress is not None:
            # Before anything is sent, so that whoever is interrupted knows the id.
            terms.on_progress(answer)
        try:
            with telemetry.TRACER.start_as_current_span("client.ask", attributes={"query_id": question.query_id}):
                self._follow(answer, query.payload, wait=terms.wait, query=query, terms=terms)
        except Refused as error:
            # Somebody joined or left since the roster was fetched: ask those who take part now, under a new id.
            if terms.centers is None and error.code.startswith("membership.") and self._newer_roster():
                return self.ask(dataset, condition, analysis, terms)
            raise
        return answer

    def whole_id(self, query_id: str) -> str:
        """The id of the researcher's one question that begins so. What fits none stays; NotFound for several."""
        if not 0 < len(query_id) < _WHOLE_ID:
            return query_id
        fitting = {one.question.query_id for one in self.queries(500) if one.question.query_id.startswith(query_id)}
        if len(fitting) > 1:
            raise NotFound(
                f"Several of your questions begin with {query_id!r}; write more of it.", code="query.ambiguous"
            )
        return fitting.pop() if fitting else query_id

    def why(self, query_id: str) -> Story:
        """The story of a question: who asked, what for, which rule decided at each center, and how it was protected."""
        return Story.of(self.result(query_id), self.researcher)

    def result(self, query_id: str, *, wait: float | None = 0, on_progress: Progress | None = None) -> Answer:
        """The answer to an earlier question, by its id or the start of it, with what has come since.

        Raises NotFound, or InvalidQuery for `wait`.
        """
        require_wait(wait)
        query_id = self.whole_id(query_id)
        payload = self.home.asked(query_id)
        remark = ""
        if payload is None:
            payload = self._payload_at_hub(query_id)
            remark = "This question was asked elsewhere: what was asked is shown as the hub tells it."
        answer = self._answer(_question_of(payload, query_id), payload)
        answer.remarks += [remark] if remark else []
        self._follow(answer, payload, wait=wait, query=None, terms=Terms(on_progress=on_progress))
        return answer

    def train(
        self,
        recipe: AnyRecipe,
        *,
        purpose: str | Purpose | None = None,
        project: str | None = None,
        commercial: bool = False,
        ethics_approval: str = "",
        centers: Iterable[str] | None = None,
        wait: float | None = None,
        expires_in: str | datetime.timedelta = EXPIRES_IN,
        on_progress: RunProgress | None = None,
    ) -> Run:
        """Train one model over the centers; rows stay where they are.

        `recipe` is a file's name, a mapping with the same parts, or a RecipeFile; what is given here goes before what
        it says. `expires_in` is how long the run may take, thirty days at most. `on_progress` is called with the run
        before anything is sent and at every news. Raises RecipeUnreadable, Refused or Unavailable.
        """
        from connexon.client.training import requests

        terms = Terms(
            purpose=purpose,
            project=project,
            commercial=commercial,
            ethics_approval=ethics_approval,
            centers=centers,
            wait=wait,
            expires_in=expires_in,
        )
        return requests.train(self, self._calls, recipe, terms, on_progress)

    def training_price(
        self,
        recipe: AnyRecipe,
        *,
        purpose: str | Purpose | None = None,
        project: str | None = None,
        commercial: bool = False,
        ethics_approval: str = "",
        centers: Iterable[str] | None = None,
        wait: float | None = 60,
    ) -> Answer:
        """What a training would cost at each center, and what is left there; nothing is trained. Raises as `train`."""
        from connexon.client.training import requests

        terms = Terms(
            purpose=purpose,
            project=project,
            commercial=commercial,
            ethics_approval=ethics_approval,
            centers=centers,
            wait=wait,
            price_only=True,
        )
        return requests.price(self, recipe, terms)

    def run(self, query_id: str, *, wait: float | None = 0, on_progress: RunProgress | None = None) -> Run:
        """A training run begun earlier, with what has come since. Raises NotFound, InvalidQuery or Unavailable."""
        from connexon.client.training import requests

        require_wait(wait)
        run = requests.run_of(self, self._calls, self.result(query_id))
        requests.follow(self, self._calls, run, wait, on_progress)
        return run

    def models(self, limit: int = 50) -> list[ModelSummary]:
        """This researcher's models, newest first."""
        from connexon.client.training import requests

        return requests.models(self._calls, limit)

    def model(self, model_id: str) -> Model:
        """A model by name and version, such as niche-score/3, verified. Raises model_proof.ModelRefused, NotFound."""
        from connexon.client.training import requests

        return requests.model(self, self._calls, model_id)

    def refresh(self, answer: Answer) -> None:
        """Put in what has come of a question, without waiting."""
        payload = self.home.asked(answer.query_id) or self._payload_at_hub(answer.query_id)
        self._follow(answer, payload, wait=0, query=None)

    def queries(self, limit: int = 50) -> list[Summary]:
        """This researcher's questions, newest first, without those that this version cannot read."""
        return self.listed_queries(limit)[0]

    def listed_queries(self, limit: int = 50) -> tuple[list[Summary], list[str]]:
        """The same, and the ids of questions that the hub lists and that cannot be read."""
        summaries, unread = [], []
        for one in self._calls.list_queries(limit):
            try:
                summaries.append(_summary(one))
            except ConnexonError:
                unread.append(plain(one.query_id[:_LONGEST_ID]))
        return summaries, unread

    def cancel(self, query_id: str) -> int:
        """End a question; returns how many centers had not answered and now will not."""
        return self._calls.cancel(query_id)

    @property
    def roster(self) -> Roster:
        """The roster believed, fetched again when it has become old."""
        with self._lock:
            if time.monotonic() - self._roster_at > ROSTER_SECONDS:
                # A hub that is down for a while is met by the question's own patience; the roster says its own expiry.
                with contextlib.suppress(Unavailable):
                    self._fetch_roster()
            return self._roster

    @property
    def centers(self) -> dict[CenterId, str]:
        """The centers that take part now, with their names."""
        return {
            member.center: center_answer.name_of(member.center, self.roster) for member in self.roster.active_members
        }

    def close(self) -> None:
        """Hang up; questions run on."""
        self._calls.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Network {self._login.federation} as {self.researcher.id} at {self._login.hub_address}>"

    def _fetch_roster(self) -> Roster:
        self._roster = self.home.keep_roster(self._calls.roster(), self._login)
        self._roster_at = time.monotonic()
        return self._roster

    def _first_roster(self) -> Roster:
        patiently = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            stop=stop_before_delay(CONNECT_SECONDS),
            reraise=True,
        )
        return patiently(self._fetch_roster)

    def _question(self, dataset: str, condition: Filter | None, analysis: Analysis, terms: Terms) -> Question:
        roster, issued = self.roster, now_ms()
        roster.require_fresh(issued)
        return Question(
            query_id=str(uuid.uuid4()),
            federation=roster.federation,
            centers=addressed(roster, terms.centers),
            issued_at_ms=issued,
            expires_at_ms=issued + duration_ms(terms.expires_in),
            purpose=purpose_of(terms, self.home),
            dataset=dataset,
            filter=condition,
            analysis=analysis,
            within=terms.within,
            price_only=terms.price_only,
        )

    def _words(self, condition: Filter | None, terms: Terms) -> Understanding:
        """What reads the words of a question; the catalog is read first where names need it and none was."""
        known = catalog_cache.known(self.home)
        if not known.datasets and (has_names(condition) or names_disease(terms.purpose)):
            known = self.known()
        return Understanding(known, catalog_cache.terms(self.home))

    def known(self, *, anew: bool = False) -> catalog_cache.Known:
        """What catalogs have told here; where none was read yet, or `anew`, the centers are asked for one."""
        found = catalog_cache.known(self.home)
        if anew or not found.datasets:
            self.study().catalog()
            found = catalog_cache.known(self.home)
        return found

    def _answer(self, question: Question, payload: bytes) -> Answer:
        names = {center: center_answer.name_of(center, self._roster) for center in question.centers}

        def follow(answer: Answer, timeout: float | None) -> None:
            self._follow(answer, payload, wait=timeout, query=None)

        return Answer(question, names, follow=follow, name_terms=catalog_cache.terms(self.home).labels)

    def _follow(
        self,
        answer: Answer,
        payload: bytes,
        *,
        wait: float | None,
        query: query_pb2.SignedQuery | None,
        terms: Terms | None = None,
    ) -> None:
        begun = time.monotonic()
        patience = Patience(terms is not None and terms.wait_for_all)

        def take(update: research_pb2.Update) -> float | None:
            self._take(answer, payload, update, begun=None if query is None else begun)
            if terms is not None and terms.on_progress is not None:
                terms.on_progress(answer)
            # Who asks waits for centers that are there; who comes back or says `wait` waits for people, too.
            return patience.left(answer) if query is not None else 0 if answer.complete else None

        following(self._calls, answer.query_id, query=query, wait=wait, take=take)
        if isinstance(answer.question.analysis, Describe):
            catalog_cache.learn(self.home, answer)

    def _take(self, answer: Answer, payload: bytes, update: research_pb2.Update, *, begun: float | None) -> None:
        if update.HasField("accepted"):
            if update.accepted.query_payload != payload:
                raise signed.QueryRefused(
                    "The hub holds another question under this id than the one that was asked; nothing it says of it "
                    "is believed.",
                    code="query.swapped",
                )
            news = list(update.accepted.deliveries)
        else:
            news = list(update.news.deliveries)
        for one in news:
            if answer.asked(CenterId(one.center_id)):
                answer.take(self._read(one, answer, payload, begun))

    def _read(
        self, one: research_pb2.Delivery, answer: Answer, payload: bytes, begun: float | None
    ) -> center_answer.CenterAnswer:
        latency = None if begun is None else round((time.monotonic() - begun) * 1000)
        # The bytes that were sent, or would have been: signing is no secret and gives the same again.
        parcel = signed.sign_payload(payload, self._key, self._login.credential).SerializeToString()

        def read() -> center_answer.CenterAnswer:
            return center_answer.read(
                one,
                question=answer.question,
                payload=payload,
                roster=self._roster,
                parcel=parcel,
                latency_ms=latency,
            )

        part = read()
        if part.code == "answer.bad_signature" and self._newer_roster():
            # The center may have joined, or changed its key, since the roster was fetched.
            part = read()
        return part

    def _newer_roster(self) -> bool:
        with self._lock:
            if time.monotonic() - self._roster_at < 1.0:
                return False
            serial = self._roster.serial
            try:
                return self._fetch_roster().serial > serial
            except Unavailable:
                return False

    def _payload_at_hub(self, query_id: str) -> bytes:
        with self._calls.follow(query_id, wait=False, seconds=10.0) as updates:
            for update in updates:
                if update.HasField("accepted"):
                    return update.accepted.query_payload
        raise NotFound("The hub knows no such question of yours.", code="query.not_found")


def _question_of(payload: bytes, query_id: str) -> Question:
    question = wire_question.from_bytes(payload)
    if question.query_id != query_id:
        raise signed.QueryRefused("The hub holds another question under this id.", code="query.swapped")
    return question
