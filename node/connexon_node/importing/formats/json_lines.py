"""JSON lines: one object on each line."""

from __future__ import annotations

from connexon_node.importing.bounds import MAXIMUM_COLUMNS, require_columns
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats.delimited import SIZES
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sql import file, text


def relation(reading: Reading) -> Relation:
    """The file as a table; every key that occurs is a column."""
    connection = reading.connection
    connection.execute(
        f"CREATE TABLE raw AS SELECT line FROM read_csv({file(reading.plain)}, header=false, auto_detect=false, "
        f"columns={{'line': 'VARCHAR'}}, delim='\x01', quote='', escape='', {SIZES})"
    )
    connection.execute(
        # An object with a key twice says two things of one; the database would take the first.
        "CREATE TABLE parsed AS SELECT CASE WHEN json_valid(line) AND json_type(line) = 'OBJECT' "
        "AND list_unique(json_keys(line)) = len(json_keys(line)) THEN line::JSON END AS object, line FROM raw"
    )
    connection.execute("DROP TABLE raw")
    keys = connection.execute(
        f"SELECT DISTINCT unnest(json_keys(object)) FROM parsed ORDER BY 1 LIMIT {MAXIMUM_COLUMNS + 1}"
    ).fetchall()
    require_columns(len(keys), reading.source.name)
    names = tuple(str(key) for (key,) in keys)
    if not names:
        raise FileRefused(f"{reading.source.name} holds no JSON object, one in each line.")
    return Relation(
        names,
        "parsed",
        {name: _as_text(name) for name in names},
        {name: f"json_type(object, {_path(name)}) IN ('BIGINT', 'UBIGINT', 'DOUBLE')" for name in names},
        blank="line IS NULL OR trim(line) = ''",
        unreadable="object IS NULL AND trim(line) <> ''",
        raw="line",
    )


def _as_text(name: str) -> str:
    path, inside = _path(name), text(f'$."{name}"[*]')
    many = f"array_to_string(json_extract_string(object, {inside}), ';')"
    return f"CASE json_type(object, {path}) WHEN 'ARRAY' THEN {many} ELSE json_extract_string(object, {path}) END"


def _path(name: str) -> str:
    return text(f'$."{name}"')
