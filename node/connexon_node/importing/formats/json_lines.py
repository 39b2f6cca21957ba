"""JSON lines: one object on each line."""

from __future__ import annotations

from collections.abc import Sequence

from connexon_node.importing.bounds import MAXIMUM_COLUMNS, require_columns
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats.delimited import SIZES
from connexon_node.importing.mapping import Mapping
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
        refused=_nested(names, reading.mapping),
    )


def _as_text(name: str) -> str:
    path = _path(name)
    many = f"array_to_string(json_extract_string(json_extract(object, {path}), '$[*]'), ';')"
    return (
        f"CASE json_type(object, {path}) WHEN 'ARRAY' THEN {many} WHEN 'OBJECT' THEN NULL "
        f"ELSE json_extract_string(object, {path}) END"
    )


def _nested(names: Sequence[str], mapping: Mapping) -> str:
    """SQL of why a row cannot be loaded: a key that is read has an object, or a list with one; neither is a value."""
    cases = []
    for name in names:
        if mapping.excludes(name):
            continue
        path = _path(name)
        inside = f"json_type(json_extract(object, {path}), '$[*]')"
        holds = (
            f"json_type(object, {path}) = 'OBJECT' OR (json_type(object, {path}) = 'ARRAY' AND "
            f"list_has_any({inside}, ['OBJECT', 'ARRAY']))"
        )
        cases.append(f"WHEN {holds} THEN {text(f'holds an object and no value in {name[:60]!r}')}")
    return f"CASE {' '.join(cases)} END" if cases else ""


def _path(name: str) -> str:
    # A JSON pointer (RFC 6901): quotes and stars in a key mean nothing.
    return text("/" + name.replace("~", "~0").replace("/", "~1"))
