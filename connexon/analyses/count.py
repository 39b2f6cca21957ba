"""Counts: one row for each group and center, and their sums over the centers that released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from connexon import strict
from connexon.analyses import grouped, key_columns
from connexon.analyses import noise as noises
from connexon.analyses.key_columns import Key
from connexon.analyses.noise import Noise
from connexon.analyses.results import ResultUnreadable
from connexon.analyses.spec import Analysis, AnalysisSpec, Combined, Kind, Lookup, Sheet, Traits, Unit
from connexon.analyses.wire_kinds import kind_from_wire, kind_to_wire, known_kind, unit_from_wire, unit_to_wire
from connexon.conditions import wire_filter
from connexon.errors import InvalidQuery
from connexon.identity.keys import CenterId
from connexon.safe_text import shown
from connexon.v1 import answer_pb2, query_pb2

T = TypeVar("T")
_WIDEST = 4
"""With more centers than this the sheet has no column for each."""


@dataclass(frozen=True)
class Count(Analysis):
    """Number of distinct donors, or of records, by the values of up to four fields."""

    by: tuple[str, ...] = ()
    unit: Unit = Unit.DONORS
    kind: Kind = Kind.PRIVATE


@dataclass(frozen=True)
class Counts:
    """One center's counts; `withheld` when groups may have been left out. `kind` says what the numbers are.

    Private numbers are unrounded and may be below 0.
    """

    cells: Mapping[Key, int]
    withheld: bool
    kind: Kind
    noise: Noise | None = None


class CountSpec(AnalysisSpec[Count, Counts]):
    """Counts are asked for, read and added up."""

    traits = Traits("count", takes_filter=True, takes_accuracy=True, has_price=True, covers_all=False)

    def from_wire(self, wire: query_pb2.Query) -> Count:
        """See AnalysisSpec."""
        return Count(grouped.read_by(wire.count.by), unit_from_wire(wire.count.unit), kind_from_wire(wire.count.kind))

    def to_wire(self, analysis: Count, wire: query_pb2.Query) -> None:
        """See AnalysisSpec."""
        wire.count.by.extend(analysis.by)
        wire.count.unit, wire.count.kind = unit_to_wire(analysis.unit), kind_to_wire(analysis.kind)

    def fields(self, analysis: Count) -> tuple[str, ...]:
        """The fields grouped by."""
        return analysis.by

    def lookups(self, analysis: Count) -> tuple[Lookup, ...]:
        """None."""
        return ()

    def kind(self, analysis: Count) -> Kind:
        """What the numbers are to be."""
        return analysis.kind

    def identity(self, analysis: Count) -> dict[str, Any]:
        """The unit, and the fields in one order: groups in another order are the same groups."""
        return {"by": sorted(analysis.by), "unit": analysis.unit.value}

    def words(self, analysis: Count, dataset: str) -> str:
        """For example: count donors of cell_lines by type."""
        by = f" by {', '.join(analysis.by)}" if analysis.by else ""
        return f"count {analysis.unit.value} of {dataset}{by}"

    def parameters(self, analysis: Count) -> dict[str, Any]:
        """What is counted, and the fields grouped by."""
        return {"by": list(analysis.by), "unit": analysis.unit.value, "kind": analysis.kind.value}

    def read(self, analysis: Count, answer: answer_pb2.Answer) -> Counts:
        """One center's counts by key."""
        try:
            # What a later version adds to a count may change what its numbers mean.
            strict.refuse_unknown(answer.count, what="result")
            strict.refuse_unknown(answer.protection, what="result")
            return _counts(analysis, answer)
        except InvalidQuery as error:
            raise ResultUnreadable(
                "The center's result holds something that cannot be read here; a newer connexon may."
            ) from error

    def combine(self, analysis: Count, results: Mapping[CenterId, Counts], *, silent: int) -> Combined:
        """Rows by group and center; totals by group, each marked where it is only a lower bound.

        Numbers with noise are added up as they are, unrounded and signed, so that a total has no bias. Where any center
        has noise, both have a column `plus_minus`: the half-width of the 95 % interval.
        """
        by = analysis.by
        counts, misfits = _agreed(by, results)
        silent += len(misfits)
        noisy = any(one.noise for one in counts.values())
        at_least = silent > 0 or any(one.withheld for one in counts.values())
        keys = sorted({key for one in counts.values() for key in one.cells}, key=grouped.in_order)
        ours = ("center", "count", "centers", "at_least", "plus_minus")
        fields, (center, count, centers, bound, width) = by, grouped.beside(by, ours)
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
        readable = [key for key in keys if _is_readable(counts, key, len(keys))]
        return Combined(
            columns=(*fields, center, count, *((width,) if noisy else ())),
            rows=rows,
            total_columns=(*fields, count, centers, bound, *((width,) if noisy else ())),
            totals=totals,
            notes=_notes(counts, silent, unreadable=len(keys) - len(readable)),
            sheets=(_sheet(by, readable, counts, at_least=at_least),) if counts else (),
            whole_sheets=(_sheet(by, keys, counts, at_least=at_least),) if counts else (),
            misfits=misfits,
        )


def _agreed(
    by: tuple[str, ...], results: Mapping[CenterId, Counts]
) -> tuple[dict[CenterId, Counts], dict[CenterId, str]]:
    cells, misfits = key_columns.agreed(by, {name: one.cells for name, one in results.items()})
    return {name: replace(results[name], cells=fitting) for name, fitting in cells.items()}, misfits


def _counts(asked: Count, answer: answer_pb2.Answer) -> Counts:
    result, protection = answer.count, answer.protection
    kind = known_kind(protection.kind)
    if answer.WhichOneof("result") != "count" or tuple(result.by) != asked.by or kind is None:
        raise ResultUnreadable("The center's result does not fit the question.")
    if kind is not Kind.PUBLISHED and (kind is not asked.kind or protection.unit != unit_to_wire(asked.unit)):
        raise ResultUnreadable("The center counted something else than was asked for.")
    pairs = [(tuple(wire_filter.value_from_wire(value) for value in cell.key), cell.number) for cell in result.cells]
    cells = key_columns.read(pairs, len(asked.by))
    # INVARIANT: a total without its one cell is no total; taking it for none would make a failure a zero.
    if not asked.by and len(cells) != 1:
        raise ResultUnreadable("The center's result does not fit the question.")
    if (kind is Kind.PRIVATE) != protection.HasField("noise"):
        raise ResultUnreadable("The center's numbers have noise and it does not say how much, or the other way round.")
    noise = noises.read(protection.noise) if kind is Kind.PRIVATE else None
    if noise is None and any(number < 0 for number in cells.values()):
        raise ResultUnreadable("The center's exact numbers are below 0.")
    return Counts(cells, result.groups_withheld, kind, noise)


def _width(counts: Mapping[CenterId, Counts], key: Key) -> int | None:
    """Of the sum of one group over the centers that show it."""
    return noises.together(one.noise for one in counts.values() if key in one.cells)


def _is_readable(counts: Mapping[CenterId, Counts], key: Key, groups: int) -> bool:
    """Whether a total stands for somebody rather than for noise. Exact numbers always do."""
    showing = [one for one in counts.values() if key in one.cells]
    if not key or any(one.noise is None for one in showing):
        return True
    scale = noises.scale_together(one.noise for one in showing)
    return sum(one.cells[key] for one in showing) >= noises.readable_from(scale, groups)


def _notes(counts: Mapping[CenterId, Counts], silent: int, *, unreadable: int) -> tuple[str, ...]:
    notes = []
    if unreadable:
        groups = "1 group is" if unreadable == 1 else f"{unreadable:,} groups are"
        notes.append(f"{groups} not shown, too small to tell from none through the noise; --all shows them.")
    withheld = sorted(name for name, one in counts.items() if one.withheld and one.noise is None)
    if withheld:
        notes.append(f"Groups with too few donors may have been left out at {', '.join(withheld)}.")
    notes += _noise_notes(counts)
    exact = sorted(name for name, one in counts.items() if one.kind is Kind.GRANTED)
    if exact:
        notes.append(f"Without noise, by the steward's grant to your project: {', '.join(exact)}.")
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
        f"Noise hides every single donor of {names}: with 95 % probability the number lies within ± {within:,}."
        for within, names in _by(noisy, lambda noise: noise.half_width)
    ]
    notes += [
        f"At most {many} groups or records of one donor are counted at {names}."
        for many, names in _by(noisy, lambda noise: noise.contributions)
        if many > 1
    ]
    hidden = [(least, names) for least, names in _by(noisy, lambda noise: noise.shown_from) if least]
    if hidden:
        each = ", ".join(f"{least:,} at {names}" for least, names in hidden)
        notes.append(f"Groups whose names are not known beforehand show from {each} on.")
    charged = sum(noise.charged for noise in noisy.values())
    if charged:
        notes.append(f"Charged to the centers' privacy accounts: {charged:.4f} in all.")
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
        # A number below 0 would be nonsense to readers; what is added up and kept stays signed.
        total = max(0, sum(one.cells.get(key, 0) for one in counts.values()))
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
    return f"{max(0, count):,}{noises.plus_minus(noises.together([one.noise]))}"
