"""An edition's first-ask tables: coding rows into the frame, and the form in which tables are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray

from connexon.query.question import Question
from connexon_node.data.dictionary import DICTIONARY, DONORS, Dictionary, FieldType
from connexon_node.privacy.first_ask import (
    Answerable,
    Estimates,
    Frame,
    Plan,
    Precision,
    Table,
    decide,
    half_width,
    reconstruct,
)
from connexon_node.privacy.first_ask.dimensions import Codes, Dimension, Value

_BETWEEN = "|"
"""Stands between the dimensions of a table in the names of arrays; no dimension has it in its name."""

_Asked = tuple[str, str, tuple[str, ...]]
"""Dataset, condition and groups."""
DECISIONS_KEPT = 500
"""Questions whose decision is in memory."""


@dataclass(frozen=True)
class Tables:
    """The tables of one edition as they answer: estimates with their exact variances. `rho` is what they have cost."""

    estimates: Estimates
    rho: float
    _decided: dict[tuple[str, str, tuple[str, ...]], tuple[Answerable | None]] = field(
        default_factory=dict, compare=False
    )

    def decide(self, dictionary: Dictionary, question: Question, by: tuple[str, ...]) -> Answerable | None:
        """How the tables count the donors of a question; kept, since engine and release both ask."""
        # By text, since 1, 1.0 and True are equal but not the same.
        key = (question.dataset, repr(question.filter), by)
        known = self._decided.get(key)
        if known is not None:
            return known[0]
        found = decide(self.precision, dictionary, question.dataset, question.filter, by)
        if len(self._decided) >= DECISIONS_KEPT:
            self._decided.clear()
        self._decided[key] = (found,)
        return found

    @property
    def precision(self) -> Precision:
        """How accurate they are, by plan and domains alone."""
        return self.estimates.precision

    @cached_property
    def half_width(self) -> int:
        """The half-width of the least accurate single cell."""
        precision = self.precision
        told = [precision.variance(table) for table in precision.frame.tables]
        return max(half_width(variance) for variance in told if variance is not None)


def fields_of(frame: Frame) -> dict[str, tuple[str, ...]]:
    """The fields of each dataset that the frame's dimensions are made of."""
    wanted: dict[str, list[str]] = {}
    for one in frame.dimensions:
        wanted.setdefault(one.dataset, []).extend([one.field] if one.field else [])
    return {dataset: tuple(dict.fromkeys(fields)) for dataset, fields in wanted.items()}


def coded(
    frame: Frame, rows: Mapping[str, pyarrow.Table], donor: str, resolve: Callable[[str], str]
) -> dict[str, Codes]:
    """The place of every donor in each dimension, from the rows of donors who may be counted.

    `donor` names the column of donor numbers; rows come with each donor's first before the others. `resolve` gives the
    id that a term has today. A dataset without a generation has no rows. Raises ValueError where a value has no place.
    """
    # A row of somebody who is no donor of the edition is of nobody who may be counted as one: imports see to that.
    donors = numpy.unique(rows[DONORS][donor].to_numpy())
    codes = {}
    for one in frame.dimensions:
        table = rows.get(one.dataset)
        if table is None:
            codes[one.name] = one.coded([], [], donors=donors.size)
            continue
        owners = table[donor].to_numpy()
        known = numpy.isin(owners, donors)
        places = numpy.searchsorted(donors, owners[known])
        values = table.filter(pyarrow.array(known))[one.field].to_pylist() if one.field else [None] * int(known.sum())
        codes[one.name] = one.coded(places, _today(one, values, resolve), donors=donors.size)
    return codes


def kept(plan: Plan, frame: Frame, drawn: Mapping[Table, NDArray[numpy.int64]]) -> tuple[str, bytes]:
    """The text and the bytes in which an edition's tables are kept; `read` is the way back."""
    made = reconstruct(Precision(frame, plan), drawn)
    arrays: dict[str, Any] = {f"drawn:{_BETWEEN.join(table)}": numbers for table, numbers in drawn.items()}
    # Linear algebra may differ between machines, and what has left once must not be told otherwise.
    arrays |= {f"made:{_BETWEEN.join(table)}": numbers for table, numbers in made.residuals.items()}
    written = io.BytesIO()
    numpy.savez_compressed(written, **arrays)
    document = {
        "domains": {one.name: list(one.domain) for one in frame.dimensions},
        "tables": [list(table) for table in frame.tables],
        "sigmas": [[list(table), sigma] for table, sigma in plan.sigmas.items()],
        "diseases": _listed(frame.dimension("disease")),
        "ancestries": _listed(frame.dimension("ancestry")),
        "countries": _listed(frame.dimension("country")),
    }
    return json.dumps(document), written.getvalue()


def read(text: str, content: bytes, rho: float) -> Tables | None:
    """The tables as they were kept; None where this software's frame is another than theirs."""
    document = json.loads(text)
    try:
        frame = Frame.standard(
            diseases=document["diseases"], ancestries=document["ancestries"], countries=document["countries"]
        )
    except ValueError:
        return None
    same = {one.name: list(one.domain) for one in frame.dimensions} == document["domains"]
    if not same or [list(table) for table in frame.tables] != document["tables"]:
        return None
    plan = Plan({tuple(table): sigma for table, sigma in document["sigmas"]})
    with numpy.load(io.BytesIO(content), allow_pickle=False) as arrays:
        residuals = {
            tuple(filter(None, name.removeprefix("made:").split(_BETWEEN))): arrays[name]
            for name in arrays.files
            if name.startswith("made:")
        }
    return Tables(Estimates(Precision(frame, plan), residuals), rho)


def largest_variance(precision: Precision, asked: Answerable) -> float:
    """Of the numbers that answer a question: known before anything is measured."""
    found = [precision.variance(asked.table, group.chosen) for group in asked.groups]
    return max(variance for variance in found if variance is not None)


def _listed(dimension: Dimension) -> list[str]:
    return [value for value in dimension.ordered_values if isinstance(value, str)]


def _today(dimension: Dimension, values: list[Value], resolve: Callable[[str], str]) -> list[Value]:
    if not dimension.field or DICTIONARY.dataset(dimension.dataset).field(dimension.field).type is not FieldType.TERM:
        return values
    known = {value: resolve(value) for value in set(values) if isinstance(value, str)}
    return [known[value] if isinstance(value, str) else value for value in values]
