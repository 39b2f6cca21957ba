"""The consent step: which donors a purpose may count."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from connexon.analyses.registry import spec_of
from connexon.clock import DAY, now_ms, to_datetime
from connexon.conditions.filters import All, Any, Filter, Has, Not, Under
from connexon.errors import Misconfigured, Refused
from connexon.query.question import Purpose, Question
from connexon_node.consent import obligations
from connexon_node.consent.evaluation import Judgement, ProfileEntities, RequestJudgement, Verdict, judge, judge_request
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.profile import ConsentProfile
from connexon_node.consent.stated import StatedDuties
from connexon_node.ontology import Ontologies
from connexon_node.pipeline.values import (
    Cohort,
    ConsentMoved,
    Obligation,
    Permit,
    Referral,
    Referred,
    SaidYes,
    StandingCohort,
    Steward,
)
from connexon_node.policy.request import DIFFERENTIAL_PRIVACY, Asking, Requester, ask, protection_of
from connexon_node.policy.ruleset import RuleSet
from connexon_node.policy.store import PolicyStore

LOG = logging.getLogger(__name__)
KEPT = 512
"""Judgements kept; the longest unused goes first."""


NOBODY = frozenset({0})
"""The profiles of a reason that is about nobody's consent here: no profile has this number."""


class NotCovered(Refused):
    """The rules forbid this purpose, whatever donors consented to."""

    code = "consent.not_covered"


@dataclass(frozen=True)
class Judged:
    """What the rules say to the request itself, the verdict on every profile, and which profiles are permitted.

    `referring` tells, for each rule that refers to the steward, which profiles it refers.
    """

    request: RequestJudgement
    by_profile: Mapping[int, Judgement]
    permitted: frozenset[int]
    referring: Mapping[str, frozenset[int]]

    @classmethod
    def of(cls, request: RequestJudgement, by_profile: Mapping[int, Judgement]) -> Judged:
        """Sum up."""
        permitted = frozenset(number for number, one in by_profile.items() if one.verdict is Verdict.PERMIT)
        referring: dict[str, set[int]] = {}
        for number, one in by_profile.items():
            for rule in one.rules if one.verdict is Verdict.REFER else ():
                referring.setdefault(rule, set()).add(number)
        referred = {rule: frozenset(numbers) for rule, numbers in sorted(referring.items())}
        return cls(request, by_profile, permitted, referred)


class CedarConsent:
    """The consent rules applied to every distinct profile of this node's donors. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        policies: PolicyStore,
        ontologies: Ontologies,
        steward: Steward | None = None,
        stated: StatedDuties | None = None,
        *,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """Use the node's ledger, the rules in force and the center's ontologies.

        Without a steward nothing is ever approved: what the rules refer stays uncounted. `stated` are the duties that
        the center states of its donors. `clock` gives the present in milliseconds; consents and moratoria act by its
        day, UTC.
        """
        self._ledger = ledger
        self._policies = policies
        self._ontologies = ontologies
        self._steward = steward
        self._stated = stated
        self._clock = clock
        self._lock = threading.Lock()
        self._profiles: dict[int, ConsentProfile] = {}
        self._entities: tuple[object, ProfileEntities] | None = None
        self._judged: OrderedDict[object, Judged] = OrderedDict()
        self._ended: tuple[int, int] = (-1, -1)
        """Epoch and day for which every consent whose end had come was ended."""

    def epoch(self) -> int:
        """The consent ledger's present state."""
        return self._ledger.epoch()

    def cohort(self, permit: Permit) -> Cohort:
        """The donors that may be counted, by the profiles of their consents; nobody where nobody's data is asked about.

        INVARIANT: whether this raises and what, and which duties come with it, depends on the request, the rules and
        the steward, and on no donor's consent (why.md). A donor whose consent refers to the steward is left out until
        the steward has settled that, and the question does not wait for it.

        Raises NotCovered where the rules forbid the purpose to everybody, Referred where they leave the request to the
        steward, Refused where the steward said no, InvalidQuery where the disease is not in the center's ontologies;
        ConsentMoved where the policies changed after the permit, so that the question must be judged again.
        """
        self._refresh()
        rules, moment = self._policies.rules, self._clock()
        if rules.version != permit.policy_version:
            raise ConsentMoved("The policies changed while the question was judged.", code="policy.moved")
        asking = self._asking(rules, permit, moment)
        epoch, judged = self._judged_now(rules, asking)
        if permit.personal:
            _require_allowed(rules, judged.request)
        said, first = SaidYes(), tuple[Referral, ...]()
        if self._steward is not None:
            first = self._steward.looks_first(permit)
            self._steward.require_not_refused(permit)
            if permit.personal or first:
                said = self._steward.said_yes(permit, at_ms=moment)
        if said.rules:
            epoch, judged = self._judged_now(rules, asking, approved=said.rules)
        if permit.personal:
            first = (*first, *(_referral(rules, judged, rule) for rule in judged.request.referring))
        waiting = tuple(one for one in first if one.rule not in said.rules)
        if waiting:
            raise Referred(waiting, _of_consents(rules, judged) if permit.personal else ())
        return Cohort(
            permit=permit,
            profiles=judged.permitted if permit.personal else frozenset(),
            epoch=epoch,
            obligations=self._told(rules, judged.request, asking.day) if permit.personal else (),
            ontologies=self._versions(permit.asked.question),
            approvals=said.approvals,
        )

    def standing(self, purpose: Purpose, requesters: Iterable[Requester]) -> StandingCohort:
        """The donors whom a purpose may count whoever of the requesters asks, and whom no condition on that holds back.

        A profile counts where the rules permit it to every requester to whom they do not refuse the purpose as such.
        What they leave to the steward as such counts too, since each question then waits for the steward; what a
        consent leaves to the steward does not. Raises NotCovered where the rules refuse the purpose to all of them.
        """
        self._refresh()
        rules, moment = self._policies.rules, self._clock()
        while True:
            epochs, permitted = set[int](), list[frozenset[int]]()
            for requester in requesters:
                asking = ask(
                    requester,
                    purpose,
                    disease=frozenset(),
                    at_ms=moment,
                    switches=rules.switches,
                    protection=frozenset({DIFFERENTIAL_PRIVACY}),
                )
                epoch, judged = self._judged_now(rules, asking)
                if judged.request.forbids or judged.request.errors:
                    continue
                if judged.request.referring:
                    epoch, judged = self._judged_now(rules, asking, approved=frozenset(judged.request.referring))
                epochs.add(epoch)
                permitted.append(judged.permitted)
            if not permitted:
                raise NotCovered("The rules of this center allow health research to nobody.")
            if len(epochs) == 1:
                return StandingCohort(frozenset.intersection(*permitted), epochs.pop(), rules.version)

    def _asking(self, rules: RuleSet, permit: Permit, moment: int) -> Asking:
        purpose = permit.asked.question.purpose
        return ask(
            Requester.of(permit.asked.researcher, at_ms=moment),
            purpose,
            disease=self._ontologies.ancestors(purpose.disease) if purpose.disease else frozenset(),
            at_ms=moment,
            switches=rules.switches,
            protection=protection_of(permit.asked.question),
        )

    def _told(self, rules: RuleSet, request: RequestJudgement, day: int) -> tuple[Obligation, ...]:
        stated = self._stated.in_force() if self._stated is not None else ()
        return obligations.told(rules, request.duties, stated, to_datetime(day * DAY).date())

    def _judged_now(
        self, rules: RuleSet, asking: Asking, *, approved: frozenset[str] = frozenset()
    ) -> tuple[int, Judged]:
        """See judgements; at an epoch at which no consent stands as in force whose own end has come."""
        epoch, judged = self.judgements(rules, asking, approved=approved)
        while self._let_end(epoch, asking.day):
            epoch, judged = self.judgements(rules, asking, approved=approved)
        return epoch, judged

    def _let_end(self, epoch: int, day: int) -> bool:
        """Whether consents ended by it: they do on their day, whether or not anybody has looked since midnight."""
        if self._ended == (epoch, day):
            return False
        ended = self._ledger.expire(to_datetime(day * DAY).date())
        if not ended:
            self._ended = (epoch, day)
        return bool(ended)

    def _versions(self, question: Question) -> dict[str, str]:
        """The version of every ontology that the answer rests on: for the disease, and for the terms filtered by."""
        lookups = spec_of(question.analysis).lookups(question.analysis)
        conditions = [question.filter, *(one.filter for one in lookups)]
        terms = {question.purpose.disease, *(term for one in conditions if one is not None for term in _terms(one))}
        prefixes = sorted({term.partition(":")[0] for term in terms if term})
        return {prefix: version for prefix in prefixes if (version := self._ontologies.version(prefix))}

    def _refresh(self) -> None:
        try:
            self._ontologies.refresh()
        except Misconfigured as error:
            # Who reads what is known at the moment still reads something whole.
            LOG.error("the center's changed ontologies are not in use: %s (%s)", error.public, error.code)

    def judgements(
        self, rules: RuleSet, asking: Asking, *, approved: frozenset[str] = frozenset()
    ) -> tuple[int, Judged]:
        """The consent epoch, and the verdict on every profile there was at that epoch; `approved` as for judge."""
        with self._lock:
            last = max(self._profiles, default=0)
            epoch, new = self._ledger.profiles_after(last)
            self._profiles.update(new)
            versions = (rules.version, tuple(self._ontologies.versions.items()), len(self._profiles))
            key = (asking.key, versions, approved)
            if key in self._judged:
                self._judged.move_to_end(key)
                return epoch, self._judged[key]
            if self._entities is None or self._entities[0] != versions:
                self._entities = (versions, ProfileEntities(rules, self._ontologies, self._profiles))
            by_profile = judge(rules, asking, self._entities[1], approved=approved)
            judged = Judged.of(judge_request(rules, asking), by_profile)
            self._judged[key] = judged
            while len(self._judged) > KEPT:
                self._judged.popitem(last=False)
            return epoch, judged


def _terms(condition: Filter) -> Iterator[str]:
    match condition:
        case Under(term=term):
            yield term
        case Not(filter=inner):
            yield from _terms(inner)
        case All(filters=several) | Any(filters=several):
            for inner in several:
                yield from _terms(inner)
        case Has(filter=inner) if inner is not None:
            yield from _terms(inner)
        case _:
            return


def _require_allowed(rules: RuleSet, request: RequestJudgement) -> None:
    if request.errors:
        raise NotCovered("A rule of this center could not be applied to this purpose; its steward must mend it.")
    if request.forbids:
        rule = request.forbids[0]
        raise NotCovered(rules.sentences[rule], rule=rule)


def _referral(rules: RuleSet, judged: Judged, rule: str) -> Referral:
    return Referral(rule, rules.sentences[rule], judged.referring.get(rule, NOBODY))


def _of_consents(rules: RuleSet, judged: Judged) -> tuple[Referral, ...]:
    return tuple(_referral(rules, judged, rule) for rule in judged.referring if rule not in judged.request.referring)
