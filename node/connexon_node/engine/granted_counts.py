"""Exact counts of persons: groups of rows for which all that counts of a condition is true."""

from __future__ import annotations

from typing import Any

import numpy
import pyarrow
from numpy.typing import NDArray

from connexon.analyses.count import Count
from connexon.analyses.spec import Kind, Unit
from connexon.conditions.filters import Filter
from connexon.query.question import Question
from connexon_node.analyses.spec import DONOR, Rows
from connexon_node.data.dictionary import Dataset
from connexon_node.engine.condition_parts import TRUE, CountedRows, Counting, Join, Truth

Groups = tuple[list[tuple[Any, ...]], NDArray[numpy.int64]]
"""The keys of all groups, and of each row its group."""


def is_granted(question: Question, dataset: Dataset) -> bool:
    """Whether exact numbers about persons are asked for."""
    return isinstance(question.analysis, Count) and question.analysis.kind is Kind.GRANTED and dataset.personal


def judged_name(number: int) -> str:
    """The column of a condition that is looked up."""
    return f"_judged_{number}"


def rows_that_count(
    question: Question, root: Join, looked_up: tuple[Filter, ...], minimum: int, table: pyarrow.Table
) -> Rows:
    """As counting gives them: the fields grouped by, records, donors, and the donor of each record.

    `table` has of every permitted row the donor, these fields, and whether each of the conditions looked up holds.
    """
    assert isinstance(question.analysis, Count)
    donors = table.column(DONOR).to_numpy().astype(numpy.int32, copy=False)
    keys, group = _groups(table, question.analysis.by)
    truth = {one: _truth(table.column(judged_name(number))) for number, one in enumerate(looked_up)}
    rows = CountedRows(donors, group, max(1, len(keys)), once=question.analysis.unit is Unit.DONORS)
    counted = Counting(root, rows, minimum, truth).counted()
    return _of_groups(keys, donors[counted], group[counted], everything=not question.analysis.by)


def _truth(column: pyarrow.ChunkedArray) -> Truth:
    true = column.fill_null(False).to_numpy().astype(numpy.int8) * numpy.int8(TRUE)
    found: Truth = numpy.where(column.is_null().to_numpy(), numpy.int8(1), true)
    return found


def _groups(table: pyarrow.Table, by: tuple[str, ...]) -> Groups:
    group = numpy.zeros(table.num_rows, dtype=numpy.int64)
    keys: list[tuple[Any, ...]] = [()]
    for name in by:
        column = table.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        values = column.dictionary.to_pylist()
        codes = column.indices.to_numpy().astype(numpy.int64)
        occurring, group = numpy.unique(group * max(1, len(values)) + codes, return_inverse=True)
        group = group.reshape(-1)
        keys = [(*keys[one // len(values)], values[one % len(values)]) for one in occurring.tolist()]
    return keys, group


def _of_groups(
    keys: list[tuple[Any, ...]], donors: NDArray[numpy.int32], group: NDArray[numpy.int64], *, everything: bool
) -> Rows:
    order = numpy.argsort(group, kind="stable")
    ends = numpy.cumsum(numpy.bincount(group, minlength=max(1, len(keys))))
    behind = numpy.split(donors[order], ends[:-1])
    return [
        (*key, one.size, int(numpy.unique(one).size), one)
        for key, one in zip(keys, behind, strict=True)
        if one.size or everything
    ]
