"""What the rules are told about who asks and why: plain values, and their form as Cedar entities."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from connexon.analyses.registry import spec_of
from connexon.analyses.spec import Kind
from connexon.clock import DAY, to_datetime
from connexon.errors import InvalidQuery
from connexon.identity.credential import Grant, Researcher
from connexon.identity.roster import OrganisationKind
from connexon.query.purpose import CLINICAL_CARE, GENERAL, HEALTH, KINDS_OF_HEALTH, TERMS
from connexon.query.question import Purpose, Question
from connexon_node.ontology.regions import places_of

BONA_FIDE = ("bona-fide", "https://doi.org/10.1038/s41431-018-0219-y")
"""How a credential says that a researcher is bona fide; the address is the GA4GH Passports one."""
DIFFERENTIAL_PRIVACY = "differential-privacy"
STATUS, ACCESS, TERMS_ACCEPTED = "ResearcherStatus", "ControlledAccessGrants", "AcceptedTermsAndPolicies"


@dataclass(frozen=True)
class Dropped:
    """A statement in a credential that does not count, and why."""

    grant: Grant
    because: str


@dataclass(frozen=True)
class Requester:
    """Who asks. `approvals` tells when each grant was given, in milliseconds since 1970-01-01 UTC."""

    id: str
    center: str
    country: str
    organisation: OrganisationKind
    role: str = ""
    statuses: frozenset[str] = frozenset()
    grants: frozenset[str] = frozenset()
    terms: frozenset[str] = frozenset()
    approvals: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()

    @classmethod
    def of(cls, researcher: Researcher, *, at_ms: int) -> Requester:
        """Flatten a credential: only statements in force, which the home center may make, count."""
        kept: dict[str, dict[str, int]] = {STATUS: {}, ACCESS: {}, TERMS_ACCEPTED: {}}
        dropped = []
        for grant in researcher.grants:
            because = _doubt(grant, researcher, at_ms)
            if because:
                dropped.append(Dropped(grant, because))
            elif grant.type in kept:
                earliest = kept[grant.type].get(grant.value, grant.asserted_ms)
                kept[grant.type][grant.value] = min(earliest, grant.asserted_ms)
        return cls(
            id=researcher.id,
            center=str(researcher.center),
            country=researcher.country,
            organisation=researcher.organisation_kind,
            role=researcher.role,
            statuses=frozenset(BONA_FIDE[0] if value in BONA_FIDE else value for value in kept[STATUS]),
            grants=frozenset(kept[ACCESS]),
            terms=frozenset(kept[TERMS_ACCEPTED]),
            approvals=kept[ACCESS],
            dropped=tuple(dropped),
        )


@dataclass(frozen=True)
class Asking:
    """One request as the rules see it, but for what it is about. `day` counts from 1970-01-01 UTC."""

    requester: Requester
    purpose: Purpose
    disease: frozenset[str]
    day: int
    months_since_approval: int | None
    switches: frozenset[str] = frozenset()
    protection: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for requests that the rules cannot tell apart."""
        who = self.requester
        return (
            (who.id, who.center, who.country, who.organisation, who.role, who.statuses, who.grants, who.terms),
            self.purpose,
            self.disease,
            self.day,
            self.months_since_approval,
            self.switches,
            self.protection,
        )

    def protected(self, protection: frozenset[str]) -> Asking:
        """The same request with a protection asked for."""
        return replace(self, protection=protection)

    def entities(self) -> list[dict[str, Any]]:
        """The researcher and the purpose in Cedar's JSON form."""
        who = self.requester
        researcher = {
            "id": who.id,
            "center": who.center,
            "country": who.country,
            "places": sorted(places_of(who.country)),
            "organisation": who.organisation.value,
            "non_profit": who.organisation is not OrganisationKind.COMMERCIAL,
            "role": who.role,
            "statuses": sorted(who.statuses),
            "grants": sorted(who.grants),
            "terms": sorted(who.terms),
        }
        purpose = {
            "research": [TERMS[term] for term in self.purpose.research],
            "kinds": sorted(TERMS[term] for term in _kinds(self.purpose.research)),
            "disease": sorted(self.disease),
            "commercial": self.purpose.commercial_use,
            "project": self.purpose.project,
            "ethics_approval": self.purpose.ethics_approval.strip(),  # blanks are no reference
        }
        return [
            {"uid": _PRINCIPAL, "attrs": researcher, "parents": []},
            {"uid": _PURPOSE, "attrs": purpose, "parents": []},
        ]

    def request(self, resource: Mapping[str, str]) -> dict[str, Any]:
        """Principal, resource and context of a Cedar request; the caller adds the action."""
        return {"principal": _PRINCIPAL, "resource": resource, "context": self._context}

    @cached_property
    def _context(self) -> str:
        """Written down once: it is the same for every profile."""
        context: dict[str, Any] = {
            "purpose": {"__entity": _PURPOSE},
            "day": self.day,
            "protection": sorted(self.protection),
            "switches": sorted(self.switches),
        }
        if self.months_since_approval is not None:
            context["months_since_approval"] = self.months_since_approval
        return json.dumps(context)


def ask(
    requester: Requester,
    purpose: Purpose,
    *,
    disease: frozenset[str],
    at_ms: int,
    switches: frozenset[str] = frozenset(),
    protection: frozenset[str] = frozenset(),
) -> Asking:
    """Put together what the rules are told. Raises InvalidQuery where the purpose is not one the rules can judge."""
    if not purpose.research or any(term not in TERMS for term in purpose.research):
        raise InvalidQuery("The purpose is not one that the rules here can judge.", code="purpose.unknown")
    approved = requester.approvals.get(purpose.project) if purpose.project else None
    return Asking(
        requester=requester,
        purpose=purpose,
        disease=disease,
        day=at_ms // DAY,
        months_since_approval=None if approved is None else months_between(approved, at_ms),
        switches=switches,
        protection=protection,
    )


def protection_of(question: Question) -> frozenset[str]:
    """The protection that a question itself asks for."""
    noisy = spec_of(question.analysis).kind(question.analysis) is Kind.PRIVATE
    return frozenset({DIFFERENTIAL_PRIVACY}) if noisy else frozenset()


def months_between(start_ms: int, end_ms: int) -> int:
    """Whole calendar months, UTC, from one moment to a later one."""
    start, end = to_datetime(start_ms).date(), to_datetime(end_ms).date()
    months = (end.year - start.year) * 12 + end.month - start.month
    return months - (end.day < min(start.day, _days_in_month(end)))


def _days_in_month(day: datetime.date) -> int:
    following = (day.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)
    return (following - datetime.timedelta(days=1)).day


def _kinds(research: Iterable[str]) -> frozenset[str]:
    """The kinds of research, and what each is a kind of."""
    found = set(research)
    if found & KINDS_OF_HEALTH:
        found.add(HEALTH)
    if found - {CLINICAL_CARE}:
        found.add(GENERAL)
    return frozenset(found)


def _doubt(grant: Grant, researcher: Researcher, at_ms: int) -> str:
    if grant.expires_ms <= at_ms:
        return "it has expired"
    if grant.asserted_ms > at_ms:
        return "it is from the future"
    if grant.source not in ("", researcher.center):
        return f"{researcher.center} may vouch for its own word only, not for that of {grant.source}"
    return ""


_PRINCIPAL = {"type": "Researcher", "id": "asking"}
_PURPOSE = {"type": "Purpose", "id": "asked"}
