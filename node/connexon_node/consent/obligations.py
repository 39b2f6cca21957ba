"""Duties: what donors' consents ask of whoever counts them, exactly for the steward, and what of it answers tell.

Which duties an answer tells does not depend on whom it counts (why.md): those that the rules attach to the request
itself, those that the center states of all its donors, and one sentence that there may be more.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from connexon_node.consent.profile import MODIFIERS, ConsentProfile, ValueKind
from connexon_node.pipeline.values import Obligation
from connexon_node.policy.rules import OBLIGE
from connexon_node.policy.ruleset import RuleSet

FURTHER = Obligation(
    "CONNEXON:further_conditions",
    "Further conditions of donors' consents may apply; the center's steward tells you before you publish.",
)
"""Comes with every answer about persons, whether or not anybody's consent has a condition."""


@dataclass(frozen=True, order=True)
class Duty:
    """A duty as consents write it: a DUO modifier, with its value where it has one."""

    term: str
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Duty:
        """Read DUO:0000019, or DUO:0000024=2027-01-01."""
        term, _, value = text.strip().partition("=")
        return cls(term.strip(), value.strip())

    def __str__(self) -> str:
        return f"{self.term}={self.value}" if self.value else self.term

    def is_over(self, day: datetime.date) -> bool:
        """Whether it ended by itself: a moratorium, on its day."""
        return bool(self.value) and _is_dated(self.term) and self.value <= day.isoformat()


@dataclass(frozen=True)
class CarriedDuty:
    """A duty that consents in force carry, by the rule that makes it one; `donors` is exact, for the steward."""

    rule: str
    duty: Duty
    message: str
    donors: int


def carried(
    rules: RuleSet,
    profiles: Mapping[int, ConsentProfile],
    duties: Mapping[int, tuple[str, ...]],
    donors: Mapping[int, int],
) -> tuple[CarriedDuty, ...]:
    """What the profiles ask for, each sentence for itself; nothing that no donor has in force.

    `duties` are each profile's rules that oblige, `donors` tells how many have each profile in force.
    """
    counts: dict[tuple[str, str], int] = {}
    for number, obliging in duties.items():
        for rule in obliging if donors.get(number, 0) else ():
            for value in _values(profiles[number], rules.rules[rule].term):
                counts[rule, value] = counts.get((rule, value), 0) + donors[number]
    return tuple(
        CarriedDuty(rule, Duty(rules.rules[rule].term, value), _message(rules, rule, value), count)
        for (rule, value), count in sorted(counts.items())
    )


def told(
    rules: RuleSet, of_request: Iterable[str], stated: Iterable[Duty], day: datetime.date
) -> tuple[Obligation, ...]:
    """The duties that an answer about persons tells. `of_request` are rules that oblige whatever the consents are.

    INVARIANT: no argument depends on the cohort, or on any consent but through the steward's recorded statement.
    """
    found = [Obligation(rules.rules[rule].term, rules.rules[rule].says) for rule in of_request]
    for one in sorted(stated):
        if not one.is_over(day):
            found += [
                Obligation(one.term, _message(rules, rule.id, one.value))
                for rule in rules.for_action(OBLIGE)
                if rule.term == one.term and rule.reads_resource
            ]
    return (*dict.fromkeys(found), FURTHER)


def _values(profile: ConsentProfile, term: str) -> list[str]:
    values = sorted({one.value for one in profile.modifiers if one.term == term and one.value})
    # Of several moratoria the last one binds.
    return values[-1:] if _is_dated(term) and values else values or [""]


def _is_dated(term: str) -> bool:
    return term in MODIFIERS and MODIFIERS[term][1] is ValueKind.DATE


def _message(rules: RuleSet, rule: str, value: str) -> str:
    said, term = rules.rules[rule].says, rules.rules[rule].term
    if not value:
        return said
    return f"{said} It ends on {value}." if _is_dated(term) else f"{said} Named by the consents: {value}."
