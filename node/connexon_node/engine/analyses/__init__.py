"""Analyses: each is one file with one class, registered here. The engine knows them only by `AnalysisPlan`.

An analysis turns the rows it is given (those that the filter and the donors' consent leave, as an ibis table with the
column `_donor`) into one aggregate expression per dataset, and the results of running those into a shape for release.
"""

from __future__ import annotations

from connexon.analyses.spec import Analysis

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.train import Train
from connexon_node.engine.analyses.count import CountRows
from connexon_node.engine.analyses.describe import DescribeReach
from connexon_node.engine.analyses.plan import AnalysisPlan
from connexon_node.engine.analyses.train import EnrolRows

_PLANS: dict[type[Analysis], AnalysisPlan] = {Count: CountRows(), Describe: DescribeReach(), Train: EnrolRows()}


def plan_for(analysis: Analysis) -> AnalysisPlan:
    """How to work out an analysis."""
    return _PLANS[type(analysis)]


__all__ = ["AnalysisPlan", "plan_for"]
