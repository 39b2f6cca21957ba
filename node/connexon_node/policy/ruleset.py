"""The rules in force as one value: they decide, name the rule that decided, and explain a default deny."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cedarpy

from connexon_node.policy.rules import Rule, conditions, read_rules, refuse_clashes


@dataclass(frozen=True)
class Decision:
    """What the rules say to one request. `rules` are those that decided, `errors` what went wrong in deciding.

    INVARIANT: whoever acts on it reads `allowed`, which any error makes false.
    """

    allowed: bool
    rules: tuple[str, ...]
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weighed:
    """What the rules of several actions say at once: every permit that holds, by action, and every forbid.

    INVARIANT: with a forbid or an error nothing is permitted, and a permit of one action permits no other.
    """

    permits: Mapping[str, tuple[str, ...]]
    forbids: tuple[str, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True)
class Lacking:
    """A rule that would have permitted, and what the request lacked for it."""

    rule: Rule
    needs: tuple[str, ...]


class RuleSet:
    """Immutable; a change of any file makes a new one."""

    def __init__(
        self,
        rules: Sequence[Rule],
        schema: cedarpy.Schema,
        *,
        version: str,
        switches: frozenset[str],
    ) -> None:
        self.rules: dict[str, Rule] = {rule.id: rule for rule in sorted(rules, key=lambda rule: rule.id)}
        self.schema = schema
        self.version = version
        self.switches = switches
        self._sets = lru_cache(maxsize=None)(self._policy_set)
        self._together = lru_cache(maxsize=None)(self._joined_set)
        self._parts = lru_cache(maxsize=None)(self._condition_set)

    def narrowed(self, file: str, text: str) -> RuleSet:
        """These rules together with a center's own. Raises Misconfigured as loading does."""
        rules = [*self.rules.values(), *read_rules(file, text, self.schema, own=True)]
        refuse_clashes(rules)
        digest = hashlib.sha256(f"{self.version}\n{text}".encode()).hexdigest()
        return RuleSet(rules, self.schema, version=digest[:16], switches=self.switches)

    def for_action(self, action: str) -> tuple[Rule, ...]:
        """The rules that speak about an action."""
        return tuple(rule for rule in self.rules.values() if action in rule.actions)

    def decide(self, action: str, requests: Sequence[Mapping[str, Any]], entities: cedarpy.Entities) -> list[Decision]:
        """One decision for each request, which holds principal, resource and context."""
        policies = self._sets(action)
        uid = {"type": "Action", "id": action}
        results = cedarpy.is_authorized_batch([{**request, "action": uid} for request in requests], policies, entities)
        decisions = []
        for result in results:
            errors = tuple(result.diagnostics.errors)
            decisions.append(Decision(result.allowed and not errors, tuple(sorted(result.diagnostics.reasons)), errors))
        return decisions

    def weigh(
        self,
        actions: tuple[str, ...],
        requests: Sequence[Mapping[str, Any]],
        entities: cedarpy.Entities,
        *,
        request_only: bool = False,
    ) -> list[Weighed]:
        """What the rules of `actions` say to each request, all in one evaluation: three times as fast as one by one.

        With `request_only` the rules that do not read the resource: they say the same of every resource.
        """
        policies = self._together(actions, request_only)
        # No rule speaks of the action but in its head (see rules), which _together has taken away.
        uid = {"type": "Action", "id": actions[0]}
        results = cedarpy.is_authorized_batch([{**request, "action": uid} for request in requests], policies, entities)
        kept: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
        weighed = []
        for result in results:
            reasons = tuple(sorted(result.diagnostics.reasons))
            errors = tuple(result.diagnostics.errors)
            if not result.allowed:
                weighed.append(Weighed({}, reasons, errors))
                continue
            if reasons not in kept:
                kept[reasons] = {
                    action: tuple(one for one in reasons if action in self.rules[one].actions) for action in actions
                }
            weighed.append(Weighed(kept[reasons], (), errors))
        return weighed

    def nearest(self, action: str, request: Mapping[str, Any], entities: cedarpy.Entities) -> tuple[Lacking, ...]:
        """The permits that lacked least, and what they lacked: the explanation of a default deny."""
        held = set(
            cedarpy.is_authorized(
                {**request, "action": {"type": "Action", "id": action}}, self._parts(action), entities
            ).diagnostics.reasons
        )
        lacking = [
            Lacking(rule, tuple(need for place, need in enumerate(rule.needs) if f"{rule.id}#{place}" not in held))
            for rule in self.for_action(action)
            if rule.effect == "permit"
        ]
        lacking = [one for one in lacking if one.needs]
        fewest = min((len(one.needs) for one in lacking), default=0)
        return tuple(one for one in lacking if len(one.needs) == fewest)

    @cached_property
    def sentences(self) -> dict[str, str]:
        """Rule id to its sentence."""
        return {rule.id: rule.says for rule in self.rules.values()}

    def _policy_set(self, action: str) -> cedarpy.PolicySet:
        return _compile({rule.id: dict(rule.body) for rule in self.for_action(action)})

    def _joined_set(self, actions: tuple[str, ...], request_only: bool) -> cedarpy.PolicySet:
        return _compile(
            {
                rule.id: {**rule.body, "action": {"op": "All"}}
                for rule in self.rules.values()
                if not set(actions).isdisjoint(rule.actions) and not (request_only and rule.reads_resource)
            }
        )

    def _condition_set(self, action: str) -> cedarpy.PolicySet:
        return _compile(
            {
                f"{rule.id}#{place}": {**rule.body, "conditions": [clause]}
                for rule in self.for_action(action)
                if rule.effect == "permit"
                for place, clause in enumerate(conditions(rule))
            }
        )


def _compile(policies: Mapping[str, Any]) -> cedarpy.PolicySet:
    # Only the JSON form lets a policy carry its own id, which then comes back as the reason.
    return cedarpy.PolicySet.from_json_str(
        json.dumps({"staticPolicies": policies, "templates": {}, "templateLinks": []})
    )
