"""Cedar files read into rules: each named, explained, in its place, and able to do only what it may.

A center's own rules can only narrow: they forbid, add duties, ask for the steward, or say yes where the federation's
rules leave it to the steward. Anything else is refused when it is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from connexon.errors import Misconfigured
from connexon.service import policy_text

ACCESS_ACTIONS = ("discover", "describe", "count", "statistics", "identify", "train", "request_material")
USE = "use"
REFER = "refer"
PROCEED = "proceed"
OBLIGE = "oblige"
_BOTH = ("permit", "forbid")
BASELINE_MAY = {**dict.fromkeys((*ACCESS_ACTIONS, USE), _BOTH), REFER: ("permit",), OBLIGE: ("permit",)}
"""What effect a rule of the federation may have on an action."""
OWN_MAY = {
    **dict.fromkeys((*ACCESS_ACTIONS, USE), ("forbid",)),
    **dict.fromkeys((REFER, PROCEED, OBLIGE), ("permit",)),
}
"""What effect a center's own rule may have on an action."""
_ID = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*\Z")
_ANNOTATIONS = {"id", "says", "needs", "term"}


@dataclass(frozen=True)
class Rule:
    """One policy. `needs` says, for each of its conditions, what a request must bring; `body` is Cedar's JSON form."""

    id: str
    says: str
    effect: str
    actions: tuple[str, ...]
    needs: tuple[str, ...]
    term: str
    own: bool
    file: str
    line: int
    text: str
    body: Mapping[str, Any]

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file} line {self.line}"

    @property
    def reads_resource(self) -> bool:
        """Whether what it says may depend on the resource: for rules about consents, on a donor's consent."""
        head = self.body["resource"]
        typed = head["op"] == "is" and "in" not in head
        return not (head["op"] == "All" or typed) or '{"Var": "resource"}' in json.dumps(conditions(self))


def read_rules(file: str, text: str, schema: cedarpy.Schema, *, own: bool) -> list[Rule]:
    """The rules of one Cedar file. Raises Misconfigured that names file and line."""
    found = list(policy_text.statements(text))
    rules = [_rule(file, one.line, one.text, own=own) for one in found]
    _require_all_read(file, text, len(rules))
    result = cedarpy.validate_policies(text, schema)
    if not result.validation_passed:
        error = result.errors[0]
        place = re.fullmatch(r"policy(\d+)", error.policy_id)
        line = found[int(place[1])].line if place else 1
        message = re.sub(r"^for policy `policy\d+`, ", "", error.error)
        raise _wrong(file, line, f"does not fit the schema: {message}", code="policy.invalid")
    return rules


def _require_all_read(file: str, text: str, number: int) -> None:
    """Raise Misconfigured where Cedar finds another number of rules in a file than was read: one was passed over."""
    try:
        written = len(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"])
    except ValueError as error:
        raise _wrong(file, 1, str(error), code="policy.syntax") from error
    if written != number:
        raise _wrong(file, 1, f"{written} rules stand in the file and {number} can be told apart", code="policy.syntax")


def refuse_clashes(rules: Sequence[Rule]) -> None:
    """Raise Misconfigured where two rules share an id, or one can never decide because of another."""
    seen: dict[str, Rule] = {}
    for rule in rules:
        if rule.id in seen:
            raise _wrong(
                rule.file, rule.line, f"{rule.id} is the id of {seen[rule.id].place} already", code="policy.id"
            )
        seen[rule.id] = rule
    for rule in rules:
        for other in rules:
            if other is not rule and _shadows(other, rule):
                raise _wrong(
                    rule.file,
                    rule.line,
                    f"{rule.id} never decides anything: whenever it applies, {other.id} ({other.place}) does",
                    code="policy.shadowed",
                )


def conditions(rule: Rule) -> list[dict[str, Any]]:
    """The when and unless clauses, in Cedar's JSON form."""
    return list(rule.body["conditions"])


def _rule(file: str, line: int, text: str, *, own: bool) -> Rule:
    try:
        read = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise _wrong(file, line, str(error), code="policy.syntax") from error
    if len(read["staticPolicies"]) != 1 or read["templates"]:
        raise _wrong(
            file, line, "a rule with slots (?principal, ?resource) decides nothing here", code="policy.template"
        )
    body = next(iter(read["staticPolicies"].values()))
    notes = body.get("annotations", {})
    rule_id, says = notes.get("id") or "", notes.get("says") or ""
    if not _ID.match(rule_id):
        raise _wrong(file, line, 'the rule needs an @id such as @id("consent.health_research")', code="policy.id")
    if not says.strip():
        raise _wrong(file, line, f"{rule_id} needs @says: a sentence for the steward", code="policy.says")
    for name in notes.keys() - _ANNOTATIONS:
        raise _wrong(file, line, f"{rule_id} has @{name}, which means nothing here", code="policy.annotation")
    rule = Rule(
        id=rule_id,
        says=says.strip(),
        effect=body["effect"],
        actions=_actions(body["action"]),
        needs=tuple(filter(None, (part.strip() for part in (notes.get("needs") or "").split("|")))),
        term=notes.get("term") or "",
        own=own,
        file=file,
        line=line,
        text=text,
        body=body,
    )
    _refuse_overreach(rule)
    return rule


def _refuse_overreach(rule: Rule) -> None:
    may = OWN_MAY if rule.own else BASELINE_MAY
    if not rule.actions:
        raise _wrong(rule.file, rule.line, f"{rule.id} must name its actions", code="policy.too_wide")
    for action in rule.actions:
        if rule.effect not in may.get(action, ()):
            reason = "a center's own rules can only narrow" if rule.own else "no rule may"
            raise _wrong(
                rule.file, rule.line, f"{rule.id} would {rule.effect} {action}: {reason}", code="policy.overreach"
            )
    clauses = conditions(rule)
    if '{"Var": "action"}' in json.dumps(clauses):
        raise _wrong(
            rule.file,
            rule.line,
            f"{rule.id} speaks of the action in a condition: name it in the head",
            code="policy.action",
        )
    if rule.effect == "permit":
        if all(_always(clause) for clause in clauses):
            raise _wrong(rule.file, rule.line, f"{rule.id} permits everything", code="policy.too_wide")
        if len(rule.needs) != len(clauses):
            raise _wrong(
                rule.file,
                rule.line,
                f"{rule.id} has {len(clauses)} conditions and {len(rule.needs)} @needs; separate them with |",
                code="policy.needs",
            )
    if OBLIGE in rule.actions and not rule.term:
        raise _wrong(rule.file, rule.line, f"{rule.id} needs @term: the term of the duty", code="policy.term")


def _actions(constraint: Mapping[str, Any]) -> tuple[str, ...]:
    named = constraint.get("entities") or ([constraint["entity"]] if "entity" in constraint else [])
    return tuple(entity["id"] for entity in named)


def _always(clause: Mapping[str, Any]) -> bool:
    return bool(clause["body"] == {"Value": clause["kind"] == "when"})


def _shadows(one: Rule, other: Rule) -> bool:
    """Whether `one` always applies where `other` does. A center may well be stricter than the federation."""
    if one.own and not other.own:
        return False
    if one.effect != other.effect or not set(other.actions) <= set(one.actions) or {REFER, OBLIGE} & set(one.actions):
        return False
    if any(one.body[part] not in ({"op": "All"}, other.body[part]) for part in ("principal", "resource")):
        return False
    if one.body["conditions"] == other.body["conditions"] and one.body["action"] == other.body["action"]:
        return one.line < other.line or one.id < other.id
    return _conjuncts(one) < _conjuncts(other)


def _conjuncts(rule: Rule) -> frozenset[str]:
    found: set[str] = set()

    def add(body: Mapping[str, Any]) -> None:
        if "&&" in body:
            add(body["&&"]["left"])
            add(body["&&"]["right"])
        else:
            found.add(json.dumps(body, sort_keys=True))

    for clause in conditions(rule):
        add(clause["body"] if clause["kind"] == "when" else {"!": {"arg": clause["body"]}})
    return frozenset(found)


def _wrong(file: str, line: int, what: str, *, code: str) -> Misconfigured:
    return Misconfigured(f"{file} line {line}: {what}.", code=code)
