"""The analyses that this center works out: one line each. What is not listed here is refused by every step."""

from __future__ import annotations

from typing import Any

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.mean import Mean
from connexon.analyses.registry import UnknownAnalysis
from connexon.analyses.spec import Analysis
from connexon.analyses.train import Train
from connexon_node.analyses.count import CountRows
from connexon_node.analyses.describe import DescribeReach
from connexon_node.analyses.mean import MeanRows
from connexon_node.analyses.spec import NodeAnalysis
from connexon_node.analyses.train import EnrolRows

ANALYSES: dict[type[Analysis], NodeAnalysis[Any]] = {
    Count: CountRows(),
    Describe: DescribeReach(),
    Mean: MeanRows(),
    Train: EnrolRows(),
}


def at_node(analysis: Analysis) -> NodeAnalysis[Any]:
    """How this center works out an analysis. Raises UnknownAnalysis."""
    found = ANALYSES.get(type(analysis))
    if found is None:
        raise UnknownAnalysis
    return found
