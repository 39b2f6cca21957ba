"""Parquet: types are taken as they are, and checked as texts like everything else."""

from __future__ import annotations

import pyarrow
import pyarrow.parquet

from connexon_node.importing.bounds import require_columns, require_proportion
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sql import file, quoted


def relation(reading: Reading) -> Relation:
    """The file as a table."""
    footer = pyarrow.parquet.read_metadata(reading.source.path)
    require_proportion(footer.num_rows, reading.source.path.stat().st_size, reading.source.name, "rows")
    schema = footer.schema.to_arrow_schema()
    require_columns(len(schema.names), reading.source.name)
    kinds = {name: schema.field(name).type for name in dict.fromkeys(schema.names) if _once(schema, name)}
    texts = {name: _as_text(name, kind) for name, kind in kinds.items()}
    numbers = {name: "true" for name, kind in kinds.items() if _is_number(kind)}
    return Relation(
        tuple(schema.names), f"read_parquet({file(reading.source.path)}, hive_partitioning=false)", texts, numbers
    )


def _is_number(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _once(schema: pyarrow.Schema, name: str) -> bool:
    return bool(schema.names.count(name) == 1)


def _as_text(name: str, kind: pyarrow.DataType) -> str:
    column = quoted(name)
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return f"array_to_string({column}, ';')"
    if pyarrow.types.is_timestamp(kind):
        # A day that was written as a moment is still a day; any other moment is shown whole and then refused.
        return (
            f"CASE WHEN {column} = date_trunc('day', {column}) THEN {column}::DATE::VARCHAR ELSE {column}::VARCHAR END"
        )
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        return f"decode({column})"  # a text that was not declared as one
    if pyarrow.types.is_decimal(kind) and kind.scale > 0:
        # As numbers are written: with 1.000 nobody can tell whether the point parts decimals.
        return f"rtrim(rtrim({column}::VARCHAR, '0'), '.')"
    return f"{column}::VARCHAR"
