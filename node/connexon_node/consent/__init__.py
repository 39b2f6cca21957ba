"""Consent: what each donor agreed to, and which donors a purpose may count."""

from __future__ import annotations

from connexon_node.consent.cohort import CedarConsent, NotCovered

__all__ = ["CedarConsent", "NotCovered"]
