"""The frame: one row per donor, seventeen dimensions of known domain, and which tables of them are measured."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from connexon_node.data.dictionary import DICTIONARY, Field
from connexon_node.privacy.first_ask import dimensions
from connexon_node.privacy.first_ask.dimensions import Dimension

Table = tuple[str, ...]
"""Dimension names in the frame's order. The empty table is the number of donors."""

ONE_WAY: tuple[Table, ...] = tuple(
    (name,)
    for name in (
        *("sex", "age", "ancestry", "country", "disease", "eligibility", "line_type", "grade", "status"),
        *("availability", "method", "lines", "bank_level", "released_lot", "run_success", "xeno_free"),
    )
)
"""Every dimension alone but for the decade, which the age tells."""
TWO_WAY: tuple[Table, ...] = (
    *(("sex", "age"), ("sex", "ancestry"), ("sex", "disease"), ("sex", "grade")),
    *(("decade", "disease"), ("ancestry", "disease"), ("country", "disease")),
    *(("disease", name) for name in ("eligibility", "line_type", "grade", "availability", "bank_level")),
    *(("disease", name) for name in ("released_lot", "run_success")),
    *(("line_type", "grade"), ("line_type", "availability")),
    *(("grade", "availability"), ("grade", "released_lot"), ("grade", "xeno_free")),
)
"""The usual pairs."""


@dataclass(frozen=True)
class Frame:
    """The dimensions, and the tables that are wanted of them. All of it is public and none of it follows data."""

    dimensions: tuple[Dimension, ...]
    tables: tuple[Table, ...]

    def __post_init__(self) -> None:
        names = [dimension.name for dimension in self.dimensions]
        if len(set(names)) != len(names) or len(set(self.tables)) != len(self.tables):
            raise ValueError("a frame names each dimension and each table once")
        for table in self.tables:
            if not table or not set(table) <= set(names) or self.ordered(table) != table:
                raise ValueError(f"the table {table} does not name dimensions in the frame's order")

    @classmethod
    def standard(cls, *, diseases: Sequence[str], ancestries: Sequence[str], countries: Sequence[str]) -> Frame:
        """The shipped frame with the network's public lists; values outside them count as other."""
        donor, line, lot = (functools.partial(_field, name) for name in ("donors", "cell_lines", "lots"))
        age = dimensions.own("age", donor("age_range_y"))
        return cls(
            (
                dimensions.own("sex", donor("sex")),
                age,
                dimensions.coarser(age, "decade", "Age at donation, in ranges of ten years", _decades()),
                dimensions.own("ancestry", donor("ancestry_term"), listed=tuple(ancestries)),
                dimensions.own("country", donor("country_iso2"), listed=tuple(countries)),
                dimensions.own("disease", donor("primary_disease_term"), listed=tuple(diseases)),
                dimensions.own("eligibility", donor("eligibility")),
                dimensions.subsets("line_type", "Kinds of the donor's lines", "cell_lines", line("type")),
                _best_line("grade", "Best grade of the donor's lines", "clinical", "research"),
                _best_line("status", "Best state of the donor's lines", "active", "retired", "withdrawn", "recalled"),
                _best_line("availability", "Best availability of the donor's lines", *_AVAILABILITY),
                dimensions.first(
                    "method",
                    "Reprogramming method of the donor's first line",
                    "cell_lines",
                    line("reprogramming_method"),
                ),
                dimensions.number_of_rows("lines", "Number of the donor's lines", "cell_lines", 3),
                dimensions.ranked(
                    "bank_level", "Furthest bank level of the donor's lots", "lots", lot("bank_level"), *_BANK_LEVELS
                ),
                dimensions.ranked(
                    "released_lot",
                    "Whether a lot of the donor is released",
                    "lots",
                    lot("status"),
                    "released",
                    _NOT_RELEASED,
                ),
                dimensions.ranked(
                    "run_success",
                    "Best outcome of the donor's differentiation runs",
                    "differentiation_runs",
                    _field("differentiation_runs", "success"),
                    True,
                    False,
                ),
                _best_line("xeno_free", "Whether a line of the donor is xeno-free", True, False),
            ),
            (*ONE_WAY, *TWO_WAY),
        )

    def dimension(self, name: str) -> Dimension:
        """The dimension of that name. Raises KeyError."""
        return self._by_name[name]

    def sizes(self, table: Table) -> tuple[int, ...]:
        """The shape of a table."""
        return tuple(self.dimension(name).size for name in table)

    def cells(self, table: Table) -> int:
        """The number of cells of a table."""
        return math.prod(self.sizes(table))

    def place(self, name: str) -> int:
        """Where a dimension stands in the frame."""
        return self._places[name]

    def ordered(self, names: Sequence[str]) -> Table:
        """The table of these dimensions."""
        return tuple(sorted(names, key=self.place))

    @functools.cached_property
    def _by_name(self) -> dict[str, Dimension]:
        return {dimension.name: dimension for dimension in self.dimensions}

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {dimension.name: place for place, dimension in enumerate(self.dimensions)}


_AVAILABILITY = ("available", "expand_to_order", "restricted_distribution", "not_available")
_BANK_LEVELS = ("product", "WCB", "MCB", "seed", "EOP")
"""From the product back to the seed; end-of-production cells are only tested."""
_NOT_RELEASED = ("quarantine", "rejected", "recalled", "exhausted")


def _field(dataset: str, name: str) -> Field:
    return DICTIONARY.dataset(dataset).field(name)


def _best_line(name: str, title: str, *best_first: str | bool) -> Dimension:
    return dimensions.ranked(name, title, "cell_lines", _field("cell_lines", name), *best_first)


def _decades() -> list[tuple[str, tuple[str, ...]]]:
    return [(f"{low}-{low + 9}", (f"{low}-{low + 4}", f"{low + 5}-{low + 9}")) for low in range(0, 90, 10)]
