"""What the consent rules say to a purpose, one consent profile at a time. Pure but for Cedar itself."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import cedarpy

from connexon.errors import InvalidQuery
from connexon.query.purpose import TERMS
from connexon_node.consent import profile as duo
from connexon_node.consent.profile import ConsentProfile, Modifier
from connexon_node.ontology import Ontologies
from connexon_node.policy.request import Asking
from connexon_node.policy.rules import OBLIGE, PROCEED, REFER, USE
from connexon_node.policy.ruleset import Lacking, RuleSet, Weighed

_WORDS = {
    duo.NO_RESTRICTION: "no-restriction",
    duo.GENERAL: "general",
    duo.HEALTH: "health",
    duo.DISEASE_SPECIFIC: "disease",
    duo.ANCESTRY_ONLY: "ancestry",
}
_FLAGS = {
    duo.NO_METHODS: "no_methods",
    duo.GENETIC_ONLY: "genetic_only",
    duo.NON_PROFIT_NON_COMMERCIAL: "non_profit_non_commercial",
    duo.PUBLICATION: "publication",
    duo.COLLABORATION: "collaboration",
    duo.ETHICS_APPROVAL: "ethics_approval",
    duo.RETURN_DATA: "return_data",
    duo.CLINICAL_CARE: "clinical_care",
    duo.NO_ANCESTRY: "no_ancestry",
    duo.NON_PROFIT_ORGANISATION: "non_profit_organisation",
    duo.NON_COMMERCIAL: "non_commercial",
    duo.NO_GENETIC_TESTING: "no_genetic_testing",
}
_NAMED = {duo.USERS: "users", duo.PROJECTS: "projects", duo.INSTITUTIONS: "institutions", duo.GEOGRAPHY: "places"}
_EPOCH = datetime.date(1970, 1, 1)
_WRITTEN = json.JSONEncoder(separators=(",", ":"))


class Verdict(Enum):
    """What the rules say: yes, no, or only the steward can say."""

    PERMIT = "permit"
    DENY = "deny"
    REFER = "refer"


@dataclass(frozen=True)
class Judgement:
    """One profile's verdict. `rules` decided; `duties` are the rules that oblige, where the verdict is permit."""

    verdict: Verdict
    rules: tuple[str, ...]
    duties: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestJudgement:
    """What the rules say to a request by itself, whatever any donor's consent is like.

    Only this may show in an answer's status, reason and duties: it depends on who asks for what, and on no donor.
    """

    forbids: tuple[str, ...] = ()
    referring: tuple[str, ...] = ()
    duties: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class ProfileEntities:
    """Consent profiles in Cedar's form, checked against the schema once and used by every question.

    Profiles that differ only in what no rule can see, such as the form's version, are judged together: `alike` gives,
    for each profile judged, all that share its verdict.
    """

    def __init__(self, rules: RuleSet, ontologies: Ontologies, profiles: Mapping[int, ConsentProfile]) -> None:
        seen: dict[str, int] = {}
        listed: list[str] = []
        shapes: dict[frozenset[str], str] = {}
        self.alike: dict[int, list[int]] = {}
        for number, profile in profiles.items():
            found = attributes(profile, ontologies)
            # Attributes come in one order: the same text is the same profile.
            written = _WRITTEN.encode(found)
            first = seen.setdefault(written, number)
            self.alike.setdefault(first, []).append(number)
            if first == number:
                listed.append(f'{{"uid":{_WRITTEN.encode(uid(number))},"attrs":{written},"parents":[]}}')
                shapes.setdefault(frozenset(found), listed[-1])
        self._rules = rules
        # Every shape is held against the schema; checking all of them would cost as much as judging them.
        cedarpy.Entities.from_json_str(f"[{','.join(shapes.values())}]", rules.schema)
        self._base = cedarpy.Entities.from_json_str(f"[{','.join(listed)}]")

    def representative(self, number: int) -> int:
        """The profile that was judged for this one."""
        return next(first for first, alike in self.alike.items() if number in alike)

    def asked_by(self, asking: Asking) -> cedarpy.Entities:
        """The profiles together with who asks and why."""
        who = json.dumps(asking.entities())
        cedarpy.Entities.from_json_str(who, self._rules.schema)  # raises where they do not fit; the base did already
        return self._base.with_added_json_str(who)


def judge(
    rules: RuleSet, asking: Asking, profiles: ProfileEntities, *, approved: frozenset[str] = frozenset()
) -> dict[int, Judgement]:
    """The verdict on every profile: denied unless a rule permits; referred unless the steward said yes.

    The steward says yes beforehand, in a rule, or to a request: `approved` are the rules whose referral that settles.
    A profile that several rules refer needs all of them settled. No approval turns a denial.
    """
    requests = [asking.request(uid(number)) for number in profiles.alike]
    weighed = rules.weigh((USE, REFER, PROCEED, OBLIGE), requests, profiles.asked_by(asking))
    judged: dict[int, Judgement] = {}
    for alike, said in zip(profiles.alike.values(), weighed, strict=True):
        judgement = _judgement(said, approved)
        for number in alike:
            judged[number] = judgement
    return judged


def _judgement(said: Weighed, approved: frozenset[str]) -> Judgement:
    use = said.permits.get(USE, ())
    if said.errors or not use:
        return Judgement(Verdict.DENY, said.forbids, errors=said.errors)
    referring, said_yes = said.permits[REFER], said.permits[PROCEED]
    if referring and not said_yes and not approved.issuperset(referring):
        return Judgement(Verdict.REFER, referring)
    return Judgement(Verdict.PERMIT, (said_yes or referring) if referring else use, said.permits[OBLIGE])


def judge_request(rules: RuleSet, asking: Asking) -> RequestJudgement:
    """The word of the rules that do not read the consent.

    A permit on proceed that reads consents spares nobody the wait: whether there are such consents would show.
    """
    who = cedarpy.Entities.from_json_str(json.dumps(asking.entities()), rules.schema)
    request = [asking.request(uid(0))]  # no profile has this number, and no rule here reads it
    (use,) = rules.weigh((USE,), request, who, request_only=True)
    (said,) = rules.weigh((REFER, PROCEED, OBLIGE), request, who, request_only=True)
    return RequestJudgement(
        forbids=use.forbids,
        referring=() if said.permits.get(PROCEED) else said.permits.get(REFER, ()),
        duties=said.permits.get(OBLIGE, ()),
        errors=(*use.errors, *said.errors),
    )


def duties_carried(rules: RuleSet, asking: Asking, profiles: ProfileEntities) -> dict[int, tuple[str, ...]]:
    """The rules that oblige because of each profile, whether or not it permits the purpose."""
    requests = [asking.request(uid(number)) for number in profiles.alike]
    weighed = rules.weigh((OBLIGE,), requests, profiles.asked_by(asking))
    return {
        number: tuple(duty for duty in said.permits.get(OBLIGE, ()) if rules.rules[duty].reads_resource)
        for alike, said in zip(profiles.alike.values(), weighed, strict=True)
        for number in alike
    }


def nearest(rules: RuleSet, asking: Asking, profiles: ProfileEntities, number: int) -> tuple[Lacking, ...]:
    """Why no rule permits this profile's use: the rules that were nearest, and what was lacking."""
    return rules.nearest(USE, asking.request(uid(profiles.representative(number))), profiles.asked_by(asking))


def uid(number: int) -> dict[str, str]:
    """The entity id of a profile."""
    return {"type": "ConsentProfile", "id": str(number)}


def attributes(profile: ConsentProfile, ontologies: Ontologies) -> dict[str, Any]:
    """A profile as the schema describes it. What it does not describe ends among unknown_modifiers, which deny."""
    by_term: dict[str, set[Modifier]] = {}
    for modifier in profile.modifiers:
        by_term.setdefault(modifier.term, set()).add(modifier)
    found: dict[str, Any] = {name: term in by_term for term, name in _FLAGS.items()}
    unknown = {term for term in by_term if term not in duo.MODIFIERS}
    found["research_types"] = sorted(TERMS[one.value] for one in by_term.get(duo.RESEARCH_TYPE, ()))
    for term, name in _NAMED.items():
        if term not in by_term:
            continue
        values = [frozenset(one.value.split("|")) for one in by_term[term]]
        if len(values) > 1 and term == duo.GEOGRAPHY:
            unknown.add(term)  # two restrictions on the place: which countries lie in both is not for us to guess
        else:
            found[name] = sorted(frozenset.intersection(*values))
    if duo.TIME_LIMIT in by_term:
        found["time_limit_months"] = min(int(one.value) for one in by_term[duo.TIME_LIMIT])
    if duo.MORATORIUM in by_term:
        days = [(datetime.date.fromisoformat(one.value) - _EPOCH).days for one in by_term[duo.MORATORIUM]]
        found["moratorium_day"] = max(days)
    found["permission"] = _WORDS.get(profile.permission, "unknown")
    found["diseases"] = sorted({_current(disease, ontologies) for disease in profile.diseases})
    found["scope"] = profile.scope.value
    found["unknown_modifiers"] = sorted(unknown)
    return found


def _current(disease: str, ontologies: Ontologies) -> str:
    """The id that counts today. One that the center's ontologies do not know stays, and matches nothing."""
    try:
        return ontologies.resolve(disease)
    except InvalidQuery:
        return disease
