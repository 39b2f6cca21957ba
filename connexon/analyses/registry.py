"""Every analysis of the question language, one line each. Any other is refused wherever it is met."""

from __future__ import annotations

from typing import Any

from connexon.analyses.count import Count, CountSpec
from connexon.analyses.describe import Describe, DescribeSpec
from connexon.analyses.mean import Mean, MeanSpec
from connexon.analyses.spec import Analysis, AnalysisSpec
from connexon.analyses.train import Train, TrainSpec
from connexon.errors import InvalidQuery

SPECS: dict[type[Analysis], AnalysisSpec[Any, Any]] = {
    Count: CountSpec(),
    Describe: DescribeSpec(),
    Mean: MeanSpec(),
    Train: TrainSpec(),
}


class UnknownAnalysis(InvalidQuery):
    """An analysis that this side does not know."""

    code = "query.unknown_analysis"

    def __init__(self) -> None:
        super().__init__("The query asks for an analysis that is not known here; a newer connexon may know it.")


def spec_of(analysis: Analysis) -> AnalysisSpec[Any, Any]:
    """The spec of an analysis. Raises UnknownAnalysis."""
    spec = SPECS.get(type(analysis))
    if spec is None:
        raise UnknownAnalysis
    return spec


def spec_named(name: str | None) -> AnalysisSpec[Any, Any]:
    """The spec of the analysis with this name on the wire. Raises InvalidQuery, UnknownAnalysis."""
    if not name:
        raise InvalidQuery("The query names no analysis.", code="query.no_analysis")
    spec = next((one for one in SPECS.values() if one.traits.name == name), None)
    if spec is None:
        raise UnknownAnalysis
    return spec
