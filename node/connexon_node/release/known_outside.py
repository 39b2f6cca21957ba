"""All that is known outside, and the ways in which a new cohort may follow from it."""

from __future__ import annotations

from connexon_node.release.known_pairs import KnownPairs
from connexon_node.release.known_sums import KnownSums
from connexon_node.release.released_cohorts import KnownCohorts


class KnownOutside:
    """Known cohorts of all datasets, with sums and differences of two and combinations of more. Not thread-safe."""

    def __init__(self, minimum: int, width: int) -> None:
        """`width`: of the sketches."""
        self.cohorts = KnownCohorts(minimum, width)
        self.pairs = KnownPairs(self.cohorts)
        self.sums = KnownSums(self.cohorts)
