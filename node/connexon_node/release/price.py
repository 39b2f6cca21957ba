"""What a question under differential privacy costs, and the noise and the threshold that this buys."""

from __future__ import annotations

from dataclasses import dataclass

from connexon.question import DifferentialPrivacy
from connexon.v1 import answer_pb2
from connexon_node.privacy.accounting import rho_of
from connexon_node.privacy.noise import Noise, half_width, rarely_above

THRESHOLD_SHARE = 0.005
"""What a threshold takes of a question's delta; the rest is for the noise."""


@dataclass(frozen=True)
class Price:
    """One number, or one table of numbers. `allowed` is the most records of one donor that are counted in it.

    `shown_from`: numbers below it are left out; 0 where none are. `delta` is what that adds to the account.
    """

    terms: DifferentialPrivacy
    noise: Noise
    allowed: int
    shown_from: int
    delta: float

    def state(self, wire: answer_pb2.Noise, round_to: int) -> None:
        """Write into an answer what was done to its numbers."""
        wire.epsilon, wire.delta, wire.rho = self.terms.epsilon, self.terms.delta, self.noise.rho
        wire.scale = self.noise.scale
        wire.half_width = half_width(self.noise.scale) + round_to // 2
        wire.records_per_donor, wire.shown_from = self.allowed, self.shown_from


def price_of(terms: DifferentialPrivacy, allowed: int, minimum: int, *, hidden: bool, parts: int = 1) -> Price:
    """The price of one of `parts` that share what the terms give.

    `hidden`: which groups there are may depend on a single donor, so that the groups themselves must be hidden.
    """
    if minimum == 1 and not hidden:
        noise = Noise(sensitivity=allowed, rho=rho_of(terms.epsilon, terms.delta) / parts, whole=True)
        return Price(terms, noise, allowed, 0, 0.0)
    delta = terms.delta * THRESHOLD_SHARE / parts
    rho = rho_of(terms.epsilon, terms.delta * (1 - THRESHOLD_SHARE)) / parts
    noise = Noise(sensitivity=allowed, rho=rho, whole=True)
    # INVARIANT: a group that one donor brings up to the minimum has at most minimum x allowed records, and one donor is
    # in at most `allowed` groups. Each passes with probability delta / allowed at most, so one donor shows in which
    # groups there are with probability delta at most.
    shown_from = minimum * allowed + rarely_above(noise.scale, delta / allowed)
    return Price(terms, noise, allowed, shown_from, delta)
