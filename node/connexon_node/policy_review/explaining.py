"""Why: what the rules in force say to one request, and which donors are in and out for which reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from connexon.query import purpose as purposes
from connexon.query.question import Purpose
from connexon_node.consent.donor_state import Status
from connexon_node.consent.evaluation import Judgement, ProfileEntities, Verdict, judge, nearest
from connexon_node.consent.obligations import CarriedDuty, carried
from connexon_node.consent.profile import ConsentProfile
from connexon_node.ontology import Ontologies
from connexon_node.policy.access import Target
from connexon_node.policy.request import Asking, Requester, ask
from connexon_node.policy.ruleset import RuleSet
from connexon_node.policy_review.cases import Outcome, access_outcome

_NOT_IN_FORCE = {
    Status.NONE: "No consent is recorded.",
    Status.WITHDRAWN: "The donor withdrew.",
    Status.EXPIRED: "The consent has expired.",
    Status.CONTRADICTED: "Two forms of one day contradict each other.",
}


@dataclass(frozen=True)
class Reason:
    """One reason for a verdict, and which profiles and how many donors share it.

    `rule` is empty for a default deny, and where no consent is in force: then `status` says why, whatever the purpose.
    """

    verdict: Verdict
    rule: str
    says: str
    profiles: tuple[int, ...]
    donors: int
    status: Status = Status.IN_FORCE


@dataclass(frozen=True)
class Explanation:
    """What becomes of a request. Every donor whose consent was ever recorded is in exactly one of the reasons.

    `obligations` are exact, and for the steward: what the consents of the donors who are in ask for.
    """

    access: Outcome
    discover: Outcome
    reasons: tuple[Reason, ...]
    obligations: tuple[CarriedDuty, ...]

    def donors(self, verdict: Verdict | None = None) -> int:
        """Donors for whom this is the verdict; without one, all."""
        return sum(reason.donors for reason in self.reasons if verdict in (None, reason.verdict))


def explain(
    rules: RuleSet,
    ontologies: Ontologies,
    asking: Asking,
    *,
    action: str,
    target: Target,
    profiles: Mapping[int, ConsentProfile],
    donors: Mapping[int, int],
    standing: Mapping[Status, int],
) -> Explanation:
    """Explain a request. `donors` tells how many have each profile in force, `standing` how many stand where."""
    entities = ProfileEntities(rules, ontologies, profiles)
    judged = judge(rules, asking, entities) if profiles else {}
    grouped: dict[tuple[Verdict, str, str], list[int]] = {}
    for number, judgement in judged.items():
        rule, says = _reason(rules, asking, entities, number, judgement)
        grouped.setdefault((judgement.verdict, rule, says), []).append(number)
    reasons = [
        Reason(verdict, rule, says, tuple(numbers), sum(donors.get(number, 0) for number in numbers))
        for (verdict, rule, says), numbers in grouped.items()
    ]
    reasons += [
        Reason(Verdict.DENY, "", _NOT_IN_FORCE[status], (), count, status)
        for status, count in standing.items()
        if status is not Status.IN_FORCE
    ]
    order = (Verdict.PERMIT, Verdict.REFER, Verdict.DENY)
    reasons.sort(key=lambda reason: (order.index(reason.verdict), -reason.donors, reason.rule))
    return Explanation(
        access=access_outcome(rules, asking, action, target),
        discover=access_outcome(rules, asking, "discover", target),
        reasons=tuple(reasons),
        obligations=carried(rules, profiles, {number: one.duties for number, one in judged.items()}, donors),
    )


@dataclass(frozen=True)
class WhoMay:
    """One line of what a consent permits today: a purpose, and the verdict for each kind of requester."""

    purpose: str
    verdicts: Mapping[str, Verdict]
    because: tuple[str, ...]


def who_may(
    rules: RuleSet,
    ontologies: Ontologies,
    profile: ConsentProfile,
    requesters: Mapping[str, tuple[Requester, bool]],
    *,
    at_ms: int,
    project: str = "",
    ethics_approval: str = "",
) -> tuple[WhoMay, ...]:
    """For every purpose, the verdict for each requester; the flag beside one says that the use is commercial."""
    entities = ProfileEntities(rules, ontologies, {1: profile})
    lines = []
    for research, disease in _purposes(profile, ontologies):
        verdicts: dict[str, Verdict] = {}
        because: dict[str, None] = {}
        for name, (requester, commercial) in requesters.items():
            purpose = Purpose((research,), disease, commercial, project, ethics_approval)
            above = ontologies.ancestors(disease) if disease else frozenset()
            asking = ask(requester, purpose, disease=above, at_ms=at_ms, switches=rules.switches)
            judgement = judge(rules, asking, entities)[1]
            verdicts[name] = judgement.verdict
            if judgement.verdict is not Verdict.PERMIT:
                because[_reason(rules, asking, entities, 1, judgement)[1]] = None
        word = purposes.TERMS[research] + (f"={disease}" if research == purposes.DISEASE else "")
        lines.append(WhoMay(word, verdicts, tuple(because)))
    return tuple(lines)


def _purposes(profile: ConsentProfile, ontologies: Ontologies) -> Iterable[tuple[str, str]]:
    known = sorted(disease for disease in profile.diseases if ontologies.knows(disease))
    for research in purposes.TERMS:
        if research != purposes.DISEASE:
            yield research, ""
            continue
        for disease in known or filter(ontologies.knows, ["MONDO:0000001"]):
            yield research, disease


def _reason(
    rules: RuleSet, asking: Asking, entities: ProfileEntities, number: int, judgement: Judgement
) -> tuple[str, str]:
    if judgement.errors:
        return "", "A rule could not be evaluated: " + judgement.errors[0]
    if judgement.rules:
        return judgement.rules[0], rules.sentences[judgement.rules[0]]
    lacking = nearest(rules, asking, entities, number)
    needs = dict.fromkeys(need for one in lacking for need in one.needs)
    return "", "No rule permits it. Nearest would be: " + "; or ".join(needs) if needs else "No rule permits it."
