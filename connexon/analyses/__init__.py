"""What the network can be asked: for each analysis, how its results are read and put together on this side.

An analysis is one file here, with a class that follows `Combiner`, and one line in COMBINERS.
"""

from __future__ import annotations

from connexon.analyses.combiner import Combiner
from connexon.analyses.count import Count, CountSpec
from connexon.analyses.describe import Describe, DescribeSpec
from connexon.analyses.spec import Analysis, Combined, Sheet
from connexon.analyses.train import Train, TrainSpec

COMBINERS: dict[type[Analysis], Combiner] = {
    Count: CountSpec(),
    Describe: DescribeSpec(),
    Train: TrainSpec(),
}

__all__ = ["COMBINERS", "Combined", "Combiner", "Sheet", "combiner_of"]


def combiner_of(analysis: Analysis) -> Combiner:
    """The one for this analysis."""
    return COMBINERS[type(analysis)]
