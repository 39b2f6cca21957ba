"""What changed rules would have said to past requests, before the change is made. Nothing is released or recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from connexon.errors import Refused
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.roster import Roster
from connexon.query import signed, wire_question
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon_node.analyses.registry import at_node
from connexon_node.approvals.model import in_words
from connexon_node.audit import AuditLog, AuditRecord
from connexon_node.consent.evaluation import ProfileEntities, Verdict, judge, judge_request
from connexon_node.consent.profile import ConsentProfile
from connexon_node.data.dictionary import Dictionary, relations
from connexon_node.delivery.inbox import Inbox
from connexon_node.ontology import Ontologies
from connexon_node.pipeline.verification import open_parcel
from connexon_node.policy.access import Target
from connexon_node.policy.request import Asking, Requester, ask, protection_of
from connexon_node.policy.ruleset import RuleSet
from connexon_node.policy_review.cases import access_outcome


@dataclass(frozen=True)
class Past:
    """A request that was received, with its latest record. `asked` is None where it cannot be judged any more."""

    record: AuditRecord
    asked: Asked | None

    @property
    def words(self) -> str:
        """What was asked."""
        return in_words(self.asked.question) if self.asked else f"{self.record.analysis} {self.record.dataset}"


@dataclass(frozen=True)
class Saying:
    """What rules say to a request. `rules` decided; `donors` could be counted; `withheld` is left out of a catalog."""

    verdict: Verdict
    rules: tuple[str, ...]
    donors: int = 0
    withheld: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Change:
    """A past request to which other rules say something else."""

    past: Past
    before: Saying
    after: Saying


@dataclass(frozen=True)
class Replay:
    """What came of it. `unjudged` requests are not kept any more, or could not be proved."""

    judged: int
    unjudged: int
    changes: tuple[Change, ...]


def past_requests(log: AuditLog, inbox: Inbox, roster: Roster, *, since_ms: int) -> Iterator[Past]:
    """Every query recorded since then, once, oldest first. The log holds no bodies: they are read from the inbox."""
    latest: dict[str, AuditRecord] = {}
    for entry in log.all(since_ms=since_ms):
        latest[entry.record.query_id] = entry.record
    for query_id, record in latest.items():
        delivery = inbox.delivery(query_id)
        yield Past(record, None if delivery is None else _proved(delivery.body, roster))


def replay(
    requests: Iterable[Past],
    before: RuleSet,
    after: RuleSet,
    *,
    ontologies: Ontologies,
    dictionary: Dictionary,
    profiles: Mapping[int, ConsentProfile],
    donors: Mapping[int, int],
) -> Replay:
    """Judge requests by both sets of rules, over the same consents: as of the day when each was asked.

    `donors` tells how many have each profile in force.
    """
    judges = [_Judge(rules, ontologies, dictionary, profiles, donors) for rules in (before, after)]
    judged, unjudged, changes = 0, 0, []
    for past in requests:
        if past.asked is None:
            unjudged += 1
            continue
        judged += 1
        one, other = (judge.say(past.asked) for judge in judges)
        if one != other:
            changes.append(Change(past, one, other))
    return Replay(judged, unjudged, tuple(changes))


class _Judge:
    """One set of rules over one state of consents; what was said once is remembered."""

    def __init__(
        self,
        rules: RuleSet,
        ontologies: Ontologies,
        dictionary: Dictionary,
        profiles: Mapping[int, ConsentProfile],
        donors: Mapping[int, int],
    ) -> None:
        self._rules = rules
        self._ontologies = ontologies
        self._dictionary = dictionary
        self._profiles = profiles
        self._entities = ProfileEntities(rules, ontologies, profiles)
        self._donors = donors
        self._said: dict[object, Saying] = {}

    def say(self, asked: Asked) -> Saying:
        """The rules' word on one request."""
        question, rules = asked.question, self._rules
        moment = question.issued_at_ms
        action = at_node(question.analysis).traits.action
        try:
            disease = self._ontologies.ancestors(question.purpose.disease) if question.purpose.disease else frozenset()
            requester = Requester.of(asked.researcher, at_ms=moment)
            asking = ask(
                requester,
                question.purpose,
                disease=disease,
                at_ms=moment,
                switches=rules.switches,
                protection=protection_of(question),
            )
        except Refused as refusal:
            return Saying(Verdict.DENY, (refusal.code,))
        key = (asking.key, action, question.dataset, question.filter, repr(question.analysis))
        if key not in self._said:
            self._said[key] = self._access(asking, action, question) or self._consent(asking)
            withheld = self._withheld(asking, action, question)
            if withheld:
                said = self._said[key]
                self._said[key] = Saying(said.verdict, said.rules, said.donors, withheld)
        return self._said[key]

    def _access(self, asking: Asking, action: str, question: Question) -> Saying | None:
        """A denial by the access rules, or None where they allow it."""
        if not question.dataset:
            targets = self._targets()
            denials = [denial for target in targets if (denial := self._denial(asking, action, target))]
            return denials[0] if len(denials) == len(targets) else None
        try:
            looked_into = relations.touched(self._dictionary, question)
        except Refused as refusal:
            return Saying(Verdict.DENY, (refusal.code,))
        targets = [Target(one.name, one.sensitivity.value) for one in looked_into]
        return next((denial for target in targets if (denial := self._denial(asking, action, target))), None)

    def _withheld(self, asking: Asking, action: str, question: Question) -> frozenset[str]:
        if question.dataset:
            return frozenset()
        return frozenset(target.name for target in self._targets() if self._denial(asking, action, target))

    def _denial(self, asking: Asking, action: str, target: Target) -> Saying | None:
        for one in ("discover", action):
            outcome = access_outcome(self._rules, asking, one, target) if one else None
            if outcome is None or outcome.verdict is not Verdict.PERMIT:
                return Saying(Verdict.DENY, outcome.rules if outcome else ())
        return None

    def _consent(self, asking: Asking) -> Saying:
        request = judge_request(self._rules, asking)
        if request.forbids or request.errors:
            return Saying(Verdict.DENY, request.forbids)
        if request.referring:
            return Saying(Verdict.REFER, request.referring)
        judged = judge(self._rules, asking, self._entities) if self._profiles else {}
        for verdict in (Verdict.PERMIT, Verdict.REFER, Verdict.DENY):
            numbers = [number for number, one in judged.items() if one.verdict is verdict]
            if numbers:
                rules = sorted({rule for number in numbers for rule in judged[number].rules})
                donors = sum(self._donors.get(number, 0) for number in numbers) if verdict is Verdict.PERMIT else 0
                return Saying(verdict, tuple(rules), donors)
        return Saying(Verdict.DENY, ())

    def _targets(self) -> list[Target]:
        return [Target(one.name, one.sensitivity.value) for one in self._dictionary.datasets]


def _proved(body: bytes, roster: Roster) -> Asked | None:
    try:
        parcel = open_parcel(body)
        # Proved as of the moment when it was asked; only the rules are others.
        at_ms = wire_question.from_bytes(parcel.payload).issued_at_ms
        return signed.verify_query(parcel, roster, NOTHING_REVOKED, at_ms=at_ms)
    except Refused:
        return None
