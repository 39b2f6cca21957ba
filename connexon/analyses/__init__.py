"""What the network can be asked: for each analysis, how its results are read and put together on this side.

An analysis is one file here, with a class that follows `Combiner`, and one line in COMBINERS.
"""

from __future__ import annotations

from connexon.analyses.combiner import Combined, Combiner, Sheet
from connexon.analyses.count import Counting
from connexon.analyses.describe import Describing
from connexon.analyses.train import Enrolling
from connexon.query.question import Analysis, Count, Describe, Train

COMBINERS: dict[type[Analysis], Combiner] = {
    Count: Counting(),
    Describe: Describing(),
    Train: Enrolling(),
}

__all__ = ["COMBINERS", "Combined", "Combiner", "Sheet", "combiner_of"]


def combiner_of(analysis: Analysis) -> Combiner:
    """The one for this analysis."""
    return COMBINERS[type(analysis)]
