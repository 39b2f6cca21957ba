"""What the training of one model may cost at most."""

from __future__ import annotations

from connexon.errors import Refused
from connexon_node.settings import TrainingSection


def require_within(section: TrainingSection, epsilon: float, delta: float) -> None:
    """Raise Refused where a recipe asks for more than the center gives one model."""
    if epsilon > section.maximum_epsilon or delta > section.maximum_delta:
        raise Refused(
            f"This center gives one model at most epsilon {section.maximum_epsilon:g} and delta "
            f"{section.maximum_delta:g}; ask with less.",
            code="privacy.too_much",
        )
