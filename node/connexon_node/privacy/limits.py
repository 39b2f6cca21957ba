"""What one question may cost at most, be it a count or the training of a model."""

from __future__ import annotations

from connexon.errors import Refused
from connexon_node.settings import PrivacySection


def require_within(section: PrivacySection, epsilon: float, delta: float) -> None:
    """Raise Refused where a question asks for more than the center gives one question."""
    if epsilon > section.maximum_epsilon or delta > section.delta:
        raise Refused(
            f"This center gives one question at most epsilon {section.maximum_epsilon:g} and delta "
            f"{section.delta:g}; ask with less.",
            code="privacy.too_much",
        )
