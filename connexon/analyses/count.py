"""Counts: one row for each group and center, and their sums over the centers that released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from connexon import noise as noises
from connexon import strict, wire_filter
from connexon.analyses.combiner import Combined, ResultUnreadable, Sheet
from connexon.errors import InvalidQuery
from connexon.identity import CenterId
from connexon.noise import Noise
from connexon.plain import shown
from connexon.question import Analysis, Count, Scalar
from connexon.v1 import answer_pb2

T = TypeVar("T")
Key = tuple[Scalar | None, ...]
_WIDEST = 4
"""With more centers than this the sheet has no column for each."""


@dataclass(frozen=True)
class Counts:
    """One center's counts; `withheld` when groups may have been left out because of too few donors."""

    cells: Mapping[Key, int]
    withheld: bool
    noise: Noise | None = None


class Counting:
    """Reads and adds up counts."""

    name = "count"

    def parameters(self, analysis: Analysis) -> dict[str, Any]:
        """The fields grouped by."""
        return {"by": list(_count(analysis).by)}

    def read(self, analysis: Analysis, answer: answer_pb2.Answer) -> Counts:
        """One center's counts by key."""
        by = _count(analysis).by
        result = answer.count
        if answer.WhichOneof("result") != "count" or tuple(result.by) != by:
            raise ResultUnreadable("The center's result does not fit the question.")
        try:
            # What a later version adds to a count may change what its numbers mean.
            strict.refuse_unknown(result, what="result")
            cells = {
                tuple(wire_filter.value_from_wire(value) for value in cell.key): cell.count for cell in result.cells
            }
        except InvalidQuery as error:
            raise ResultUnreadable(
                "The center's result holds something that cannot be read here; a newer connexon may."
            ) from error
        # INVARIANT: a total without its one cell is no total; taking it for none would make a failure a zero.
        if any(len(key) != len(by) for key in cells) or len(cells) != len(result.cells) or (not by and len(cells) != 1):
            raise ResultUnreadable("The center's result does not fit the question.")
        if result.noisy != answer.protection.HasField("noise"):
            raise ResultUnreadable("The center's answer has noise and does not say how much, or the other way round.")
        noise = noises.read(answer.protection.noise) if result.noisy else None
        return Counts(cells, result.groups_withheld, noise)

    def combine(self, analysis: Analysis, results: Mapping[CenterId, Any], *, silent: int) -> Combined:
        """Rows by group and center; totals by group, each marked where it is only a lower bound.

        Where any center has noise, both have a column `plus_minus`: the half-width of the 95 % interval.
        """
        by = _count(analysis).by
        counts: dict[CenterId, Counts] = dict(results)
        noisy = any(one.noise for one in counts.values())
        names = _column_names(by)
        at_least = silent > 0 or any(one.withheld for one in counts.values())
        keys = sorted({key for one in counts.values() for key in one.cells}, key=_order)
        fields, (center, count, centers, bound, width) = names[: len(by)], names[len(by) :]
        rows = tuple(
            {
                **dict(zip(fields, key, strict=True)),
                center: name,
                count: one.cells[key],
                **({width: noises.together([one.noise])} if noisy else {}),
            }
            for key in keys
            for name, one in sorted(counts.items())
            if key in one.cells
        )
        totals = tuple(
            {
                **dict(zip(fields, key, strict=True)),
                count: sum(one.cells.get(key, 0) for one in counts.values()),
                centers: sum(key in one.cells for one in counts.values()),
                bound: at_least,
                **({width: _width(counts, key)} if noisy else {}),
            }
            for key in keys
        )
        return Combined(
            columns=(*fields, center, count, *((width,) if noisy else ())),
            rows=rows,
            total_columns=(*fields, count, centers, bound, *((width,) if noisy else ())),
            totals=totals,
            notes=_notes(counts, silent),
            sheets=(_sheet(by, keys, counts, at_least=at_least),) if counts else (),
        )


def _count(analysis: Analysis) -> Count:
    if not isinstance(analysis, Count):
        raise TypeError(f"{type(analysis).__name__} is not a count")
    return analysis


def _column_names(by: tuple[str, ...]) -> tuple[str, ...]:
    # A field may itself be called count; then our column steps aside.
    ours = []
    for name in ("center", "count", "centers", "at_least", "plus_minus"):
        while name in by:
            name += "_"
        ours.append(name)
    return (*by, *ours)


def _order(key: Key) -> tuple[tuple[bool, bool, float, str], ...]:
    """Numbers by size, the rest by its text, what is missing last."""
    return tuple(
        (value is None, isinstance(value, str), value if isinstance(value, int | float) else 0.0, str(value))
        for value in key
    )


def _width(counts: Mapping[CenterId, Counts], key: Key) -> float | None:
    """Of the sum of one group over the centers that show it."""
    return noises.together(one.noise for one in counts.values() if key in one.cells)


def _notes(counts: Mapping[CenterId, Counts], silent: int) -> tuple[str, ...]:
    notes = []
    withheld = sorted(name for name, one in counts.items() if one.withheld)
    if withheld:
        notes.append(f"Groups with too few donors may have been left out at {', '.join(withheld)}.")
    notes += _noise_notes(counts)
    if silent and counts:
        others = "1 center" if silent == 1 else f"{silent} centers"
        notes.append(f"Totals are lower bounds: {others} released no number, which is not the same as none.")
    if not counts:
        notes.append("No center has released a number; this is not a zero.")
    return tuple(notes)


def _noise_notes(counts: Mapping[CenterId, Counts]) -> list[str]:
    """What was done to the numbers, each thing once with the centers that did it."""
    noisy = {name: one.noise for name, one in sorted(counts.items()) if one.noise is not None}
    notes = [
        f"Noise hides every single donor of {names} (epsilon {epsilon:g}, delta {delta:g}): with 95 % probability the "
        "count lies within ± of the number."
        for (epsilon, delta), names in _by(noisy, lambda noise: (noise.epsilon, noise.delta))
    ]
    notes += [
        f"At most {'one record' if many == 1 else f'{many} records'} of a donor are counted at {names}."
        for many, names in _by(noisy, lambda noise: noise.records_per_donor)
    ]
    hidden = [(least, names) for least, names in _by(noisy, lambda noise: noise.shown_from) if least]
    if hidden:
        each = ", ".join(f"{least:,} at {names}" for least, names in hidden)
        notes.append(f"Numbers too small to show through the noise are left out: those below {each}.")
    return notes


def _by(noisy: Mapping[CenterId, Noise], what: Callable[[Noise], T]) -> list[tuple[T, str]]:
    """The centers, as a text, by something of their noise."""
    found: dict[T, list[str]] = {}
    for name, noise in noisy.items():
        found.setdefault(what(noise), []).append(name)
    return [(one, " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))) for one, names in found.items()]


def _sheet(by: tuple[str, ...], keys: list[Key], counts: Mapping[CenterId, Counts], *, at_least: bool) -> Sheet:
    columns = sorted(counts) if 1 < len(counts) <= _WIDEST else []

    def line(key: Key) -> tuple[str, ...]:
        each = tuple(_number(counts[name], key) for name in columns)
        total = sum(one.cells.get(key, 0) for one in counts.values())
        width = noises.plus_minus(_width(counts, key))
        return (*(shown(value) for value in key), *each, f"{'≥ ' if at_least else ''}{total:,}{width}")

    return Sheet(
        title="",
        columns=(*by, *columns, "total" if by or columns else "count"),
        rows=tuple(line(key) for key in keys),
        numbers=frozenset(range(len(by), len(by) + len(columns) + 1)),
    )


def _number(one: Counts, key: Key) -> str:
    count = one.cells.get(key)
    if count is None:
        return "·" if one.withheld else "–"
    return f"{count:,}{noises.plus_minus(noises.together([one.noise]))}"
