"""Policy as code: the federation's Cedar rules, narrowed by the center's own, and what they decide."""

from __future__ import annotations

from connexon_node.policy.access import AccessDenied, CedarAccess
from connexon_node.policy.ruleset import Decision, RuleSet
from connexon_node.policy.store import PolicyStore

__all__ = ["AccessDenied", "CedarAccess", "Decision", "PolicyStore", "RuleSet"]
