"""The duties that come with an answer, in words: each rule's sentence, with the values the donors' consents gave it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from connexon_node.consent.judging import Judgement, Verdict
from connexon_node.consent.profile import MODIFIERS, ConsentProfile, ValueKind
from connexon_node.pipeline import Obligation
from connexon_node.policy.ruleset import RuleSet


def obligations(
    rules: RuleSet, profiles: Mapping[int, ConsentProfile], judged: Mapping[int, Judgement]
) -> tuple[Obligation, ...]:
    """What whoever counts the permitted profiles owes, by rule; of several dates the last one binds."""
    values: dict[str, set[str]] = {}
    for number, judgement in judged.items():
        for duty in judgement.duties if judgement.verdict is Verdict.PERMIT else ():
            term = rules.rules[duty].term
            said = (one.value for one in profiles[number].modifiers if one.term == term)
            values.setdefault(duty, set()).update(filter(None, said))
    return tuple(_obligation(rules, duty, sorted(found)) for duty, found in sorted(values.items()))


def _obligation(rules: RuleSet, duty: str, values: Iterable[str]) -> Obligation:
    rule, found = rules.rules[duty], list(values)
    message = rule.says
    if found and rule.term in MODIFIERS:
        dated = MODIFIERS[rule.term][1] is ValueKind.DATE
        message += f" It ends on {max(found)}." if dated else f" Named by the consents: {', '.join(found)}."
    return Obligation(rule.term, message)
