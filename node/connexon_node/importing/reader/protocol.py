"""What is said between the importer and the reader. A job goes there pickled; only plain JSON comes back.

INVARIANT: nothing that the reader sends is unpickled: whoever wrote the file may speak through it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.importing.mapping import Mapping
from connexon_node.importing.sources import File, FileFormat

STAGED = "staged.parquet"
"""The rows as texts: the dataset's fields, and the columns that begin with an underscore; see jobs.stage."""
REJECTED = "rejected.parquet"
"""Records that do not fit the header: `line` counts them from 1, the header, and `reason` is why."""
MAXIMUM_REPORT = 32 << 20
"""Bytes."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something to do with a foreign file. `beside` holds the files beside it that its format reads, by their names."""

    file: File
    file_format: FileFormat
    mapping: Mapping
    beside: dict[str, File] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage(Job):
    """Make a table of texts of it."""

    dataset: Dataset
    memory: str


@dataclass(frozen=True, kw_only=True)
class FindLines(Job):
    """Tell the lines at which some records of a delimited file begin; the header is record 1."""

    records: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DraftMapping(Job):
    """Draft a mapping file."""

    dictionary: Dictionary
    dataset: str
    labels: dict[str, dict[str, str]]


class Report(BaseModel):
    """What the reader says; strictly read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Failed(Report):
    """Why the reader did not do it. `kind` is the class of the error, `detail` is for the log."""

    kind: str = Field(max_length=100)
    code: str = Field(max_length=100, pattern=r"^[a-z_.]*$")
    message: str = Field(max_length=10_000)
    detail: str = ""


class Staged(Report):
    """What became of a file. See Source, Relation and Staging for the fields."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    lines: int = Field(ge=0)
    before: int = Field(ge=0)
    ends_whole: bool
    filled: list[str]
    own_lines: bool
    refuses: bool
    apart: bool
    notes: list[tuple[str, int]] = Field(max_length=1_000)
    records: int = Field(ge=0)


class Lines(Report):
    """The lines, in the order of the records."""

    lines: list[int]


class Drafted(Report):
    """Mapping files in TOML, by dataset; by no name where the file is of one that it says itself."""

    texts: dict[str, str]
