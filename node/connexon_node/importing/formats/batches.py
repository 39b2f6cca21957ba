"""Rows that are made in Python, handed to the scratch database batch by batch, never all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow

from connexon_node.importing.relation import Reading

ROWS = 20_000
"""Rows of one batch."""


def offer(
    reading: Reading, name: str, schema: pyarrow.Schema, batches: Callable[[], Iterator[pyarrow.RecordBatch]]
) -> str:
    """Make the batches readable, once, as table `name`. An error while they are read is kept in the reading."""

    def kept() -> Iterator[pyarrow.RecordBatch]:
        try:
            yield from batches()
        except Exception as error:
            # Every kind: DuckDB would wrap it in an error of its own; staging raises this one instead.
            reading.failures.append(error)
            raise

    reading.connection.register(name, pyarrow.RecordBatchReader.from_batches(schema, kept()))
    return name


def texts(names: Sequence[str]) -> pyarrow.Schema:
    """A schema of text columns, and the line of each row."""
    return pyarrow.schema([*((name, pyarrow.string()) for name in names), ("_line", pyarrow.int64())])


def batched(rows: Iterator[tuple[object, ...]], schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    """Batches of rows given as tuples in the order of the schema."""
    held: list[tuple[object, ...]] = []
    for row in rows:
        held.append(row)
        if len(held) == ROWS:
            yield _batch(held, schema)
            held = []
    if held:
        yield _batch(held, schema)


def _batch(rows: list[tuple[object, ...]], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    columns = [pyarrow.array(column, kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
    return pyarrow.record_batch(columns, schema=schema)
