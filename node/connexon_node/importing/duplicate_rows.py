"""Rows that say the same twice. Where rows have no id, a file that holds itself twice would count everything double.

Equal rows may be right: two measurements of a day can have the same value. So they are loaded, and told.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from connexon_node.data.dictionary import Dataset
from connexon_node.importing.mapping import Mapping
from connexon_node.importing.report import Problem
from connexon_node.importing.staging import Staging, quoted

SHOWN = 3
"""Pairs of equal rows that are named."""
_ROWS = 500_000
"""Rows of which neighbours are compared in one go."""


def compared(dataset: Dataset, mapping: Mapping, filled: Sequence[str]) -> list[str]:
    """The fields in which rows must not be the same as others; none where each row has an id of its own.

    An id that is but the number of a row tells no rows apart.
    """
    numbered = {name for name, column in mapping.columns.items() if column.numbered}
    if any(field.unique and field.required and field.name not in numbered for field in dataset.fields):
        return []
    stored = (field.name for field in dataset.stored)
    return list(dataset.once) or [name for name in stored if name in filled and name not in numbered]


def neighbours_alike(part: Path, keys: Sequence[str]) -> bool:
    """Whether two rows of a file sorted by `keys` may be equal, since they are in these; else no two are.

    Takes a tenth of the time in which rows are compared whole, and mostly the answer is no.
    """
    last = None
    for batch in pyarrow.parquet.ParquetFile(part).iter_batches(_ROWS, columns=list(keys)):
        rows = pyarrow.Table.from_batches([batch] if last is None else [last, batch])
        alike = None
        for name in keys:
            column = rows.column(name).combine_chunks()
            same = pyarrow.compute.fill_null(pyarrow.compute.equal(column[1:], column[:-1]), fill_value=True)
            alike = same if alike is None else pyarrow.compute.and_(alike, same)
        if pyarrow.compute.any(alike).as_py():
            return True
        last = batch.slice(len(batch) - 1)
    return False


def repeated(staging: Staging, dataset: Dataset, fields: Sequence[str]) -> list[Problem]:
    """A warning that counts the right rows which are there already, and names some; none where none is."""
    alike = ", ".join(map(quoted, (*fields, *staging.apart)))
    # By chance two of ten million rows have the same hash once in 300,000 files.
    staging.connection.execute(
        "CREATE TEMP TABLE equal AS SELECT min(place) AS first, max(place) AS last, count(*) AS times FROM "
        f"(SELECT rowid AS place, hash({alike}) AS same FROM staged WHERE rowid NOT IN "
        f'(SELECT "row" FROM bad)) GROUP BY same HAVING count(*) > {dataset.equal_rows}'
    )
    ((rows,),) = staging.connection.execute(
        f"SELECT coalesce(sum(times - {dataset.equal_rows}), 0) FROM equal"
    ).fetchall()
    pairs = staging.connection.execute(f"SELECT first, last FROM equal ORDER BY first LIMIT {SHOWN}").fetchall()
    staging.connection.execute("DROP TABLE equal")
    if not rows:
        return []
    lines = iter(staging.lines([place for pair in pairs for place in pair]))
    named = ", ".join(f"{first} and {last}" for first, last in zip(lines, lines, strict=True))
    told = f"have {', '.join(fields)} of an earlier one" if dataset.once else "are equal to an earlier one"
    return [Problem("", f"rows {told}, such as lines {named}: see that nothing is there twice", int(rows))]
