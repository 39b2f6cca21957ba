"""The access step: may this researcher do this to this dataset at all."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import cedarpy

from connexon.analyses.registry import spec_of
from connexon.clock import now_ms
from connexon.errors import Misconfigured, Refused
from connexon.query.signed import Asked
from connexon_node.analyses.registry import at_node
from connexon_node.data.dictionary import Dataset, Dictionary, not_offered, relations
from connexon_node.pipeline.values import Permit
from connexon_node.policy.request import Asking, Requester, ask, protection_of
from connexon_node.policy.ruleset import Decision, RuleSet
from connexon_node.policy.store import PolicyStore

LOG = logging.getLogger(__name__)


class AccessDenied(Refused):
    """The access policy does not allow it."""

    code = "policy.denied"


@dataclass(frozen=True)
class Target:
    """The dataset that a request is about, as the rules see it. `sensitivity` is the dictionary's word."""

    name: str
    sensitivity: str

    @property
    def uid(self) -> dict[str, str]:
        """The entity id."""
        return {"type": "Dataset", "id": self.name}


class CedarAccess:
    """The access rules in force, applied to one question at a time."""

    def __init__(self, policies: PolicyStore, dictionary: Dictionary) -> None:
        """Datasets and their sensitivity come from `dictionary`."""
        self._policies = policies
        self._dictionary = dictionary

    def authorise(self, asked: Asked) -> Permit:
        """Return the permit; raise AccessDenied naming the rule, or NotFound where the dataset is not to be seen."""
        self._refresh()
        rules = self._policies.rules
        action = at_node(asked.question.analysis).traits.action
        moment = now_ms()
        asking = ask(
            Requester.of(asked.researcher, at_ms=moment),
            asked.question.purpose,
            disease=frozenset(filter(None, [asked.question.purpose.disease])),
            at_ms=moment,
            switches=rules.switches,
            protection=protection_of(asked.question),
        )
        if asked.question.dataset or not spec_of(asked.question.analysis).traits.covers_all:
            dataset, *others = relations.touched(self._dictionary, asked.question)
            rule = self._judge(rules, action, asking, _target(dataset))
            # INVARIANT: a filter or group that looks into another dataset needs the same right to that one.
            for other in others:
                self._judge(rules, action, asking, _target(other))
            return Permit(asked, rule, rules.version, personal=dataset.personal)
        return self._describe_all(rules, asking, asked)

    def _refresh(self) -> None:
        try:
            self._policies.refresh()
        except Misconfigured as error:
            # All or nothing: what was in force stays so until the steward has mended the files.
            LOG.error("the center's changed policies are not in force: %s (%s)", error.public, error.code)

    def _judge(self, rules: RuleSet, action: str, asking: Asking, dataset: Target) -> str:
        decision, seen = decide(rules, [action, "discover"], asking, dataset)
        if not seen.allowed:
            # Absent and forbidden look alike.
            raise not_offered(dataset.name)
        if not decision.allowed:
            raise _denied(rules, action, asking, dataset, decision)
        return decision.rules[0]

    def _describe_all(self, rules: RuleSet, asking: Asking, asked: Asked) -> Permit:
        allowed: dict[str, str] = {}
        denial: AccessDenied | None = None
        for dataset in map(_target, self._dictionary.datasets):
            decision, seen = decide(rules, ["describe", "discover"], asking, dataset)
            if decision.allowed and seen.allowed:
                allowed[dataset.name] = decision.rules[0]
            else:
                denial = denial or _denied(rules, "describe", asking, dataset, decision)
        if not allowed:
            raise denial or AccessDenied("Nothing is offered here.", code="policy.denied")
        withheld = frozenset(one.name for one in self._dictionary.datasets if one.name not in allowed)
        return Permit(asked, next(iter(allowed.values())), rules.version, withheld=withheld)


def decide(rules: RuleSet, actions: list[str], asking: Asking, dataset: Target) -> list[Decision]:
    """One decision for each action on a dataset."""
    entities = dataset_entities(rules, asking, dataset)
    request = asking.request(dataset.uid)
    return [rules.decide(action, [request], entities)[0] for action in actions]


def dataset_entities(rules: RuleSet, asking: Asking, dataset: Target) -> cedarpy.Entities:
    """The researcher, the purpose and the dataset, checked against the schema."""
    attributes = {"name": dataset.name, "sensitivity": dataset.sensitivity}
    offered = {"uid": dataset.uid, "attrs": attributes, "parents": []}
    return cedarpy.Entities.from_json_str(json.dumps([*asking.entities(), offered]), rules.schema)


def _target(dataset: Dataset) -> Target:
    return Target(dataset.name, dataset.sensitivity.value)


def _denied(rules: RuleSet, action: str, asking: Asking, dataset: Target, decision: Decision) -> AccessDenied:
    if decision.errors:
        return AccessDenied("A rule could not be evaluated, so the question is refused.", code="policy.error")
    if decision.rules:
        rule = decision.rules[0]
        return AccessDenied(rules.sentences[rule], code="policy.denied", rule=rule)
    lacking = rules.nearest(action, asking.request(dataset.uid), dataset_entities(rules, asking, dataset))
    if not lacking:
        return AccessDenied("No rule here allows this.", code="policy.denied")
    missing = "; or ".join(" and ".join(one.needs) for one in lacking)
    return AccessDenied(f"No rule here allows this. What is lacking: {missing}.", code="policy.denied")
