"""The mean of a numeric field, by groups: over donors, each of whom counts once by the mean of its own rows.

Centers send sums, which add up over centers; the division is the reader's. Where numbers have noise, each donor's value
is first brought into a range that was fixed beforehand, so that one donor moves a sum by at most half of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from connexon import strict
from connexon.analyses import grouped, key_columns
from connexon.analyses import noise as noises
from connexon.analyses.key_columns import Key
from connexon.analyses.noise import Noise
from connexon.analyses.results import MAXIMUM_CELLS, MAXIMUM_NUMBER, ResultUnreadable
from connexon.analyses.spec import Analysis, AnalysisSpec, Combined, Kind, Lookup, Sheet, Traits
from connexon.analyses.wire_kinds import kind_from_wire, kind_to_wire, known_kind
from connexon.conditions import wire_filter
from connexon.errors import InvalidQuery
from connexon.identity.keys import CenterId
from connexon.safe_text import shown
from connexon.v1 import answer_pb2, query_pb2

STEPS = 2**20
"""Units of a sum with noise to half the range: fine enough that rounding to them is far below any noise."""


@dataclass(frozen=True)
class Mean(Analysis):
    """Mean of a field over donors, by up to four fields. `low` and `high`: None for the dictionary's bounds."""

    field: str
    by: tuple[str, ...] = ()
    kind: Kind = Kind.PRIVATE
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Sums:
    """One group of one center: donors (or records of nobody's), and the sum of their values."""

    number: int
    total: float


@dataclass(frozen=True)
class Means:
    """One center's sums by group. `half` and `middle` are of the range that values with noise were brought into."""

    cells: Mapping[Key, Sums]
    withheld: bool
    kind: Kind
    middle: float = 0.0
    half: float = 0.0
    noise: Noise | None = None


class MeanSpec(AnalysisSpec[Mean, Means]):
    """Means are asked for, read as sums and worked out."""

    traits = Traits("mean", takes_filter=True, takes_accuracy=True, has_price=True, covers_all=False)

    def from_wire(self, wire: query_pb2.Query) -> Mean:
        """See AnalysisSpec."""
        asked = wire.mean
        by = grouped.read_by(asked.by)
        low = asked.low if asked.HasField("low") else None
        high = asked.high if asked.HasField("high") else None
        if (low is None) != (high is None) or (low is not None and high is not None and not _is_range(low, high)):
            raise InvalidQuery(
                "A range has two ends, two different numbers, the lower one first.", code="query.invalid_range"
            )
        return Mean(wire_filter.path(asked.field), by, kind_from_wire(asked.kind), low, high)

    def to_wire(self, analysis: Mean, wire: query_pb2.Query) -> None:
        """See AnalysisSpec."""
        wire.mean.field = analysis.field
        wire.mean.by.extend(analysis.by)
        wire.mean.kind = kind_to_wire(analysis.kind)
        if analysis.low is not None and analysis.high is not None:
            wire.mean.low, wire.mean.high = analysis.low, analysis.high

    def fields(self, analysis: Mean) -> tuple[str, ...]:
        """The field, and those grouped by."""
        return (analysis.field, *analysis.by)

    def lookups(self, analysis: Mean) -> tuple[Lookup, ...]:
        """None."""
        return ()

    def kind(self, analysis: Mean) -> Kind:
        """What the numbers are to be."""
        return analysis.kind

    def identity(self, analysis: Mean) -> dict[str, Any]:
        """The field with its range, and the groups in one order."""
        return {"field": analysis.field, "by": sorted(analysis.by), "low": analysis.low, "high": analysis.high}

    def words(self, analysis: Mean, dataset: str) -> str:
        """For example: mean passage_no of cell_lines by type, from 0 to 80."""
        by = f" by {', '.join(analysis.by)}" if analysis.by else ""
        bounds = "" if analysis.low is None else f", from {analysis.low:g} to {analysis.high:g}"
        return f"mean {analysis.field} of {dataset}{by}{bounds}"

    def parameters(self, analysis: Mean) -> dict[str, Any]:
        """The field, its range, and the fields grouped by."""
        return {
            "field": analysis.field,
            "by": list(analysis.by),
            "kind": analysis.kind.value,
            "low": analysis.low,
            "high": analysis.high,
        }

    def read(self, analysis: Mean, answer: answer_pb2.Answer) -> Means:
        """One center's sums by group."""
        try:
            for part in (answer.mean, answer.protection):
                strict.refuse_unknown(part, what="result")
            return _means(analysis, answer)
        except InvalidQuery as error:
            raise ResultUnreadable(
                "The center's result holds something that cannot be read here; a newer connexon may."
            ) from error

    def combine(self, analysis: Mean, results: Mapping[CenterId, Means], *, silent: int) -> Combined:
        """Rows by group and center, totals by group, each with `mean` (None where too few stand behind it).

        `plus_minus` is the half-width of the 95 % interval for the noise alone; sampling error is not in it.
        """
        cells, misfits = key_columns.agreed(analysis.by, {name: one.cells for name, one in results.items()})
        means = {name: replace(results[name], cells=fitting) for name, fitting in cells.items()}
        return _combined(analysis, means, silent + len(misfits), misfits)


def _is_range(low: float, high: float) -> bool:
    return math.isfinite(low) and math.isfinite(high) and low < high and math.isfinite(high - low)


def _means(asked: Mean, answer: answer_pb2.Answer) -> Means:
    result, protection = answer.mean, answer.protection
    kind = known_kind(protection.kind)
    fits = answer.WhichOneof("result") == "mean" and (result.field, tuple(result.by)) == (asked.field, asked.by)
    if not fits or kind is None or (kind is not Kind.PUBLISHED and kind is not asked.kind):
        raise ResultUnreadable("The center's result does not fit the question.")
    if (kind is Kind.PRIVATE) != protection.HasField("noise"):
        raise ResultUnreadable("The center's numbers have noise and it does not say how much, or the other way round.")
    if len(result.cells) > MAXIMUM_CELLS:
        raise ResultUnreadable(f"The center's answer has more than {MAXIMUM_CELLS:,} groups.")
    private = kind is Kind.PRIVATE
    if private and not _is_range(result.low, result.high):
        raise ResultUnreadable("The center's range of values cannot be.")
    if private and asked.low is not None and (result.low, result.high) != (asked.low, asked.high):
        raise ResultUnreadable("The center took another range of values than was asked for.")
    middle, half = (result.low / 2 + result.high / 2, result.high / 2 - result.low / 2) if private else (0.0, 0.0)
    pairs = [
        (
            tuple(wire_filter.value_from_wire(value) for value in cell.key),
            Sums(cell.number, cell.number * middle + cell.steps / STEPS * half if private else cell.total),
        )
        for cell in result.cells
    ]
    cells = key_columns.read(pairs, len(asked.by))
    if not asked.by and len(cells) != 1:
        raise ResultUnreadable("The center's result does not fit the question.")
    for one in cells.values():
        if abs(one.number) > MAXIMUM_NUMBER or not math.isfinite(one.total) or (not private and one.number < 0):
            raise ResultUnreadable("The center's answer has numbers of no center's size.")
    noise = noises.read(protection.noise) if private else None
    return Means(cells, result.groups_withheld, kind, middle, half, noise)


def _combined(
    analysis: Mean, means: Mapping[CenterId, Means], silent: int, misfits: Mapping[CenterId, str]
) -> Combined:
    by = analysis.by
    keys = sorted({key for one in means.values() for key in one.cells}, key=grouped.in_order)
    ours = ("center", "number", "mean", "plus_minus", "centers", "at_least")
    fields, (center, number, mean, width, centers, bound) = by, grouped.beside(by, ours)
    at_least = silent > 0 or any(one.withheld for one in means.values())

    def row(key: Key, parts: Mapping[CenterId, Means]) -> dict[str, Any]:
        count, value, half_width = _value(key, parts, groups=len(keys))
        return {**dict(zip(fields, key, strict=True)), number: count, mean: value, width: half_width}

    rows = tuple(
        {**row(key, {name: one}), center: name}
        for key in keys
        for name, one in sorted(means.items())
        if key in one.cells
    )
    totals = tuple(
        {**row(key, means), centers: sum(key in one.cells for one in means.values()), bound: at_least} for key in keys
    )
    readable = [one for one in totals if one[mean] is not None]
    return Combined(
        columns=(*fields, center, number, mean, width),
        rows=rows,
        total_columns=(*fields, number, mean, width, centers, bound),
        totals=totals,
        notes=_notes(means, silent, len(totals) - len(readable)),
        sheets=(_sheet(analysis, readable, (number, mean, width)),) if means else (),
        whole_sheets=(_sheet(analysis, list(totals), (number, mean, width)),) if means else (),
        misfits=misfits,
    )


def _value(key: Key, means: Mapping[CenterId, Means], *, groups: int) -> tuple[int, float | None, float | None]:
    """Donors, mean and half-width of one group over these centers.

    With noise, the mean is the middle of its interval: of few donors that is not the ratio of the two numbers.
    """
    parts = [one for one in means.values() if key in one.cells]
    number = sum(one.cells[key].number for one in parts)
    scale = noises.scale_together(one.noise for one in parts)
    least = noises.readable_from(scale, groups) if scale else 1
    if number < least:
        return number, None, None
    total = math.fsum(one.cells[key].total for one in parts)
    if not scale:
        return number, total / number, None
    found = _interval(number, total, parts)
    if found is None:
        return number, None, None
    low, high = found
    return number, low / 2 + high / 2, high / 2 - low / 2


def _interval(number: int, total: float, parts: Sequence[Means]) -> tuple[float, float] | None:
    """The means that the noise in number and total leaves possible with 95 % probability; None where all are.

    By Fieller (1954, doi:10.1111/j.2517-6161.1954.tb00159.x): m is possible where |total - m number| is within what its
    noise may be, of variance sum of scale^2 (half^2 + (m - middle)^2). The first-order interval of a ratio would hold
    too few of groups of less than about four scales. No mean lies beyond the ranges that values were brought into.
    """
    noisy = [(one, one.noise.scale**2 * noises.NORMAL**2) for one in parts if one.noise is not None]
    ratio = total / number
    # In distances from the ratio, so that nothing large is subtracted from its like.
    square = number**2 - math.fsum(width for _, width in noisy)
    linear = math.fsum(width * (ratio - one.middle) for one, width in noisy)
    beside = math.fsum(width * (one.half**2 + (one.middle - ratio) ** 2) for one, width in noisy)
    ranges = (
        (min(one.middle - one.half for one, _ in noisy), max(one.middle + one.half for one, _ in noisy))
        if len(noisy) == len(parts)
        else None
    )
    if square <= 0:
        return ranges
    root = math.sqrt(linear**2 + square * beside)
    low, high = ratio + (linear - root) / square, ratio + (linear + root) / square
    if ranges is None or low > ranges[1] or high < ranges[0]:
        return low, high
    return max(low, ranges[0]), min(high, ranges[1])


def _notes(means: Mapping[CenterId, Means], silent: int, unreadable: int) -> tuple[str, ...]:
    notes = []
    if unreadable:
        groups = "1 group has" if unreadable == 1 else f"{unreadable:,} groups have"
        notes.append(f"{groups} no mean: too few donors to tell from none through the noise.")
    private = {name: one for name, one in sorted(means.items()) if one.noise is not None}
    if private:
        notes.append("Means are over donors, each once, by the mean of the donor's own rows.")
        ranges = sorted({(one.middle - one.half, one.middle + one.half) for one in private.values()})
        told = " or ".join(f"{low:g} to {high:g}" for low, high in ranges)
        notes.append(f"Values beyond {told} count as its ends. The interval is of the noise, not of the sample.")
        charged = sum(one.noise.charged for one in private.values() if one.noise is not None)
        if charged:
            notes.append(f"Charged to the centers' privacy accounts: {charged:.4f} in all.")
    if silent and means:
        others = "1 center" if silent == 1 else f"{silent} centers"
        notes.append(f"{others} released no number and may have more.")
    if not means:
        notes.append("No center has released a number; this is not a zero.")
    return tuple(notes)


def _sheet(analysis: Mean, totals: list[dict[str, Any]], names: tuple[str, str, str]) -> Sheet:
    number, mean, width = names
    rows = []
    for one in totals:
        error = "" if one[width] is None else f" ± {one[width]:.3g}"
        value = "·" if one[mean] is None else f"{one[mean]:.6g}{error}"
        rows.append((*(shown(one[field]) for field in analysis.by), f"{max(0, one[number]):,}", value))
    columns = (*analysis.by, "number", f"mean {analysis.field}")
    return Sheet("", columns, tuple(rows), frozenset({len(columns) - 2, len(columns) - 1}))
