"""What a format makes of a file: a table with the file's own columns, which the scratch database can read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any as Connection

from connexon_node.data.dictionary import Dataset
from connexon_node.importing.mapping import Mapping as ColumnMapping
from connexon_node.importing.sources import File, Source


@dataclass(frozen=True)
class Relation:
    """A table in the scratch database, or what stands for one after FROM.

    `texts` is the SQL of a column's value as text, where that is not the column itself. `numbers` is a condition that
    is true where a column's value is a number in the file and no text, where the format tells them apart. `line` is
    the SQL of the line at which a row begins; empty where the rows are the records of the file in their order. `blank`
    and `unreadable` are conditions on the table's rows: those that are no record, and those that should be one.
    `ready` says that the columns are made by the format, with the dictionary's names, so that those which are not
    wanted may be left out without a word. `refused` is the SQL of why a row cannot be loaded, in words, and of nothing
    for all others. `notes` warn of what the format left out, and how often; some are known once the table was read.
    `apart` is the SQL of the number by which the file itself tells records apart that are equal in all fields.
    `left_out` are conditions on rows that are not to be loaded, each with the note that counts them; `counted` are
    conditions on rows that are loaded, each with the note that counts them.
    `records` tells, after that, how many records the file has, where rows are made of what is in them.
    """

    names: tuple[str, ...]
    table: str
    texts: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)
    line: str = ""
    blank: str = ""
    unreadable: str = ""
    raw: str = ""
    ready: bool = False
    refused: str = ""
    notes: list[tuple[str, int]] = field(default_factory=list)
    left_out: tuple[tuple[str, str], ...] = ()
    counted: tuple[tuple[str, str], ...] = ()
    apart: str = ""
    records: Callable[[], int] = lambda: 0


@dataclass(frozen=True)
class Reading:
    """What a format needs to read a file. `plain` is the file as plain UTF-8 text, where it is text.

    `beside` holds the files beside it that the format reads, by the names that it asks for, in small letters.
    `before` counts the lines before the header, which `plain` has no more.
    `failures` keeps an error that was raised while the database read batches; see formats.batches.
    """

    source: Source
    scratch: Path
    connection: Connection
    dataset: Dataset
    mapping: ColumnMapping
    plain: Path
    beside: Mapping[str, File] = field(default_factory=dict)
    before: int = 0
    failures: list[Exception] = field(default_factory=list)
