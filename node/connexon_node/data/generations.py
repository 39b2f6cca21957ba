"""Generations: every import makes one, whole and immutable; one row in the state database is the switch to it.

On disk a generation is a folder `data/DATASET/000003` with its Parquet parts and `manifest.json`. A folder without its
row was never switched to: a crash left it, and the next import removes it.

A field whose values repeat by the million is an integer in the parts; `codes-FIELD.parquet` beside them has the columns
`code` (from 0 on, in the order of the values), `value`, and one for every other name that the values have.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, RowMapping, func, insert, select, update
from sqlmodel import Field

from connexon.clock import now_ms
from connexon.errors import Conflict, Unavailable
from connexon.service.database import Database
from connexon_node.state import NodeTable

MANIFEST = "manifest.json"
_ATTEMPTS = 3


class GenerationRow(NodeTable, table=True):
    """One generation of one dataset. The newest that is not retired is in force."""

    __tablename__ = "generations"

    dataset: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    rows: int = Field(sa_type=BigInteger)
    donors: int = Field(sa_type=BigInteger, description="distinct donors behind the rows")
    last_donor: int = Field(description="the greatest donor number among the rows")
    bytes: int = Field(sa_type=BigInteger, description="of the Parquet parts")
    dictionary_version: str
    manifest_sha256: str
    source: str = Field(description="name of the imported file")
    source_sha256: str
    imported_by: str = Field(description="user of the operating system")
    imported_at_ms: int = Field(sa_type=BigInteger)
    retired_at_ms: int | None = Field(sa_type=BigInteger, default=None, description="when it stopped being offered")
    removed_at_ms: int | None = Field(sa_type=BigInteger, default=None, description="when its files were given up")


_TABLE = GenerationRow.metadata.tables["generations"]
_NEWEST = select(_TABLE.c.dataset, func.max(_TABLE.c.number).label("number")).group_by(_TABLE.c.dataset).subquery()
_NEWEST_OF_EACH = (_NEWEST.c.dataset == _TABLE.c.dataset) & (_NEWEST.c.number == _TABLE.c.number)
_IN_FORCE = select(_TABLE).join(_NEWEST, _NEWEST_OF_EACH).where(_TABLE.c.retired_at_ms.is_(None))
_NUMBERS_IN_FORCE = _IN_FORCE.with_only_columns(_TABLE.c.dataset, _TABLE.c.number)


class Damaged(Unavailable):
    """A generation's files are not those that were written."""

    code = "generation.damaged"


@dataclass(frozen=True)
class Generation:
    """One immutable state of one dataset."""

    dataset: str
    number: int
    rows: int
    donors: int
    last_donor: int
    bytes: int
    dictionary_version: str
    manifest_sha256: str
    source: str
    source_sha256: str
    imported_by: str
    imported_at_ms: int
    retired_at_ms: int | None
    removed_at_ms: int | None
    path: Path

    @property
    def parts(self) -> tuple[Path, ...]:
        """Its Parquet files, in order."""
        return tuple(sorted(self.path.glob("part-*.parquet")))

    @property
    def path_when_removed(self) -> Path:
        """Where its files are while they are being deleted."""
        return self.path.with_name(f".removed-{self.path.name}")

    @property
    def has_files(self) -> bool:
        """Whether anything of it is left on disk."""
        return self.path.exists() or self.path_when_removed.exists()

    def codes_of(self, field: str) -> Path:
        """The file of the codes of a coded field."""
        return self.path / f"codes-{field}.parquet"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A folder being filled, and what is known of it; `Generations.publish` makes it a generation."""

    dataset: str
    number: int
    folder: Path
    scratch: Path

    def codes_of(self, field: str) -> Path:
        """Where the codes of a coded field are to be written."""
        return self.folder / f"codes-{field}.parquet"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a draft holds and where it came from."""

    rows: int
    donors: int
    last_donor: int
    dictionary_version: str
    source: str
    source_sha256: str
    imported_by: str


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A durable draft under way to be a generation: its record, and its files as they lie until the switch."""

    row: Mapping[str, Any]
    generation: Generation


class Generations:
    """Which generation of each dataset is in force, and the history."""

    def __init__(self, database: Database, data_folder: Path) -> None:
        self._database = database
        self._folder = data_folder.resolve()
        self._known: Mapping[tuple[str, int], Generation] = {}
        """What was in force when it was last read: while a generation is, nothing of it changes."""
        self._numbered: Mapping[tuple[str, int], Generation] = {}
        """What was last asked for by number: the edition in force."""
        self._lock = threading.Lock()

    @property
    def database(self) -> Database:
        """The database of the records."""
        return self._database

    @property
    def folder(self) -> Path:
        """Where all generations lie."""
        return self._folder

    def current(self, dataset: str) -> Generation | None:
        """The generation in force; None where nothing was imported or what was is retired."""
        return self.all_current().get(dataset)

    def all_current(self) -> Mapping[str, Generation]:
        """The generation in force of every dataset that has one, in one consistent view."""
        with self._database.reading() as connection:
            numbers = [(row.dataset, row.number) for row in connection.execute(_NUMBERS_IN_FORCE)]
            known = self._known
            if not all(number in known for number in numbers):
                found = [self._read(row) for row in connection.execute(_IN_FORCE).mappings()]
                known = self._known = {(generation.dataset, generation.number): generation for generation in found}
        return {dataset: known[dataset, number] for dataset, number in numbers}

    def numbered(self, numbers: Mapping[str, int]) -> Mapping[str, Generation]:
        """The generations of these numbers by dataset, in force or not. Raises Damaged where one is not on record."""
        wanted = set(numbers.items())
        with self._lock:
            known = self._numbered
        if known.keys() != wanted:
            names = _TABLE.c.dataset.in_(sorted(numbers))
            with self._database.reading() as connection:
                found = [self._read(row) for row in connection.execute(select(_TABLE).where(names)).mappings()]
            known = {(one.dataset, one.number): one for one in found if (one.dataset, one.number) in wanted}
            with self._lock:
                self._numbered = known
        if known.keys() != wanted:
            raise Damaged("A generation that an edition is made of is not on record.")
        return {dataset: known[dataset, number] for dataset, number in numbers.items()}

    @contextmanager
    def held(self, which: Callable[[], Mapping[str, Generation]] | None = None) -> Iterator[Mapping[str, Generation]]:
        """What all_current gives, or `which` where given, of which nothing is removed while this lasts."""
        which = which or self.all_current
        with contextlib.ExitStack() as leases:
            current = which()
            for _ in range(_ATTEMPTS):
                gone = [one for one in current.values() if not lease(one, leases)]
                if not gone:
                    break
                # What was just removed is no longer in force. What is in force and damaged stays, and its queries fail.
                current = which()
            yield current

    def remove(self, generation: Generation) -> bool:
        """Give up the files of a generation that is not in force; False where a query reads them.

        The record of it stays. The order is safe against a crash: what is marked as removed is never offered, and the
        next call finishes what this one began.
        """
        with contextlib.ExitStack() as held:
            if not sole_lease(generation, held):
                return False
            with self._database.writing() as connection:
                newest = select(func.max(_TABLE.c.number)).where(_TABLE.c.dataset == generation.dataset)
                if generation.number == connection.execute(newest).scalar_one():
                    raise Conflict(f"{generation.dataset} generation {generation.number} is the newest.")
                mark = update(_TABLE).where(
                    _TABLE.c.dataset == generation.dataset,
                    _TABLE.c.number == generation.number,
                    _TABLE.c.removed_at_ms.is_(None),
                )
                connection.execute(mark.values(removed_at_ms=now_ms()))
            # Renamed first: nobody finds half of it.
            with contextlib.suppress(FileNotFoundError):
                generation.path.rename(generation.path_when_removed)
                _sync(generation.path.parent)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(generation.path_when_removed)
        return True

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """No import begins while this lasts. Raises Conflict where one is under way."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _held(self._folder / ".importing"):
            yield

    def history(self, dataset: str | None = None) -> tuple[Generation, ...]:
        """Every generation ever switched to, by dataset, oldest first."""
        query = select(_TABLE).order_by(_TABLE.c.dataset, _TABLE.c.number)
        if dataset is not None:
            query = query.where(_TABLE.c.dataset == dataset)
        with self._database.reading() as connection:
            return tuple(self._read(row) for row in connection.execute(query).mappings())

    @contextmanager
    def drafting(self, dataset: str) -> Iterator[Draft]:
        """An empty folder for the next generation, and one for scratch; removed unless published.

        One import at a time, since a dataset finds its donors in another: raises Conflict where one is under way.
        What a crash left is cleared first.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _held(self._folder / ".importing"):
            draft = self._new_draft(dataset)
            try:
                yield draft
            finally:
                shutil.rmtree(draft.folder, ignore_errors=True)
                shutil.rmtree(draft.scratch, ignore_errors=True)

    def _new_draft(self, dataset: str) -> Draft:
        """Empty folders for the next generation, once what a crash left is cleared."""
        home = self._folder / dataset
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        history = self.history(dataset)
        published = {generation.path for generation in history}
        for left in home.iterdir():
            if left.is_dir() and left not in published:
                shutil.rmtree(left)
        number = max((generation.number for generation in history), default=0) + 1
        draft = Draft(dataset=dataset, number=number, folder=home / ".draft", scratch=home / ".scratch")
        draft.folder.mkdir(mode=0o700)
        draft.scratch.mkdir(mode=0o700)
        return draft

    def publish(self, draft: Draft, contents: Contents, *, retire: tuple[str, ...] = ()) -> Generation:
        """Make the draft durable, then switch to it and stop offering the datasets in `retire`: all or nothing."""
        (made,) = self.switch((self._prepare(draft, contents),), retire=retire)
        return made

    def _prepare(self, draft: Draft, contents: Contents) -> Prepared:
        """Write the manifest of a draft and make it durable."""
        moment = now_ms()
        files = {path.name: sha256_of(path) for path in sorted(draft.folder.glob("*.parquet"))}
        size = sum((draft.folder / name).stat().st_size for name in files)
        record = {"dataset": draft.dataset, "number": draft.number, **asdict(contents), "imported_at_ms": moment}
        written = json.dumps({**record, "files": files}, indent=2, sort_keys=True).encode()
        (draft.folder / MANIFEST).write_bytes(written)
        _make_durable(draft.folder)
        row = {
            **record,
            "bytes": size,
            "manifest_sha256": hashlib.sha256(written).hexdigest(),
            "retired_at_ms": None,
            "removed_at_ms": None,
        }
        return Prepared(row=row, generation=Generation(path=draft.folder, **row))

    def switch(self, prepared: Sequence[Prepared], *, retire: tuple[str, ...] = ()) -> tuple[Generation, ...]:
        """Put what was prepared into its place, then into force, and stop offering the datasets in `retire`."""
        made = []
        for one in prepared:
            final = self._path(one.generation.dataset, one.generation.number)
            one.generation.path.rename(final)
            _sync(final.parent)
            made.append(Generation(path=final, **one.row))
        with self._database.writing() as connection:
            for one in prepared:
                connection.execute(insert(_TABLE).values(one.row))
            if retire:
                retired = update(_TABLE).where(_TABLE.c.dataset.in_(retire), _TABLE.c.retired_at_ms.is_(None))
                connection.execute(retired.values(retired_at_ms=now_ms()))
        return tuple(made)

    def verify(self, generation: Generation) -> None:
        """Read every file again and compare with what was written at import. Raises Damaged that names the file."""
        where = f"{generation.dataset} generation {generation.number}"
        try:
            written = (generation.path / MANIFEST).read_bytes()
        except OSError as error:
            raise Damaged(f"{where}: {MANIFEST} cannot be read.") from error
        if hashlib.sha256(written).hexdigest() != generation.manifest_sha256:
            raise Damaged(f"{where}: {MANIFEST} is not what the import wrote.")
        files: dict[str, str] = json.loads(written)["files"]
        if set(files) != {file.name for file in generation.path.glob("*.parquet")}:
            raise Damaged(f"{where}: Parquet files are missing or were added.")
        for name, digest in files.items():
            if sha256_of(generation.path / name) != digest:
                raise Damaged(f"{where}: {name} is not what the import wrote. Import the file again.")

    def _path(self, dataset: str, number: int) -> Path:
        return self._folder / dataset / f"{number:06d}"

    def _read(self, row: RowMapping) -> Generation:
        return Generation(path=self._path(row["dataset"], row["number"]), **row)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lease(generation: Generation, leases: contextlib.ExitStack) -> bool:
    """Keep a generation from being removed until `leases` closes, in this process or another; False where it is gone.

    The lock is the operating system's, on the manifest: it ends with the process that holds it.
    """
    manifest = f"{generation.path}/{MANIFEST}"
    try:
        # Not as a file of Python's: a query leases every dataset, and that takes three times as long.
        file = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
        leases.callback(os.close, file)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Removed between the opening and the lock?
        return os.path.samestat(os.fstat(file), os.stat(manifest))  # noqa: PTH116  # as above
    except (FileNotFoundError, BlockingIOError):
        return False


def sole_lease(generation: Generation, leases: contextlib.ExitStack) -> bool:
    """Keep everybody else from a generation until `leases` closes; False where somebody holds a lease of it."""
    try:
        file = leases.enter_context((generation.path / MANIFEST).open("rb+"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    # The lock goes with the process: a killed import leaves none behind.
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                "Another import is under way at this node; wait until it is done.", code="import.under_way"
            ) from error
        yield


def _make_durable(folder: Path) -> None:
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
