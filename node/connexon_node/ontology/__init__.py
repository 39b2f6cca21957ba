"""Ontologies: which terms there are, and which stand under which.

`under()` in a filter goes down from a term, consent goes up from the disease asked about; both use this one index.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from connexon.errors import InvalidQuery, Misconfigured
from connexon.ontology import source
from connexon_node.ontology.index import Index, compile_index, open_index

INDEX = ".compiled.index"
DEMO = Path(__file__).parent / "demo"
"""A small ontology of this project's own making, enough for the demonstration and the examples."""


class Ontologies:
    """Every ontology file of a folder, compiled once and reopened when the files change. Thread-safe."""

    def __init__(self, folder: Path, index: Index | None) -> None:
        """Use `open`."""
        self._folder = folder
        self._index = index
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> Ontologies:
        """Open the folder's ontologies; an empty folder knows nothing.

        Raises Misconfigured naming file and line where one cannot be read, or the terms that form a cycle.
        """
        return cls(folder, _open(folder))

    def refresh(self) -> bool:
        """Take in changed files; True where anything changed. Raises as `open` does, and keeps what was known."""
        with self._lock:
            index = self._index
            if (index.files if index else {}) == _stamps(self._folder, index):
                return False
            self._index = _open(self._folder)
            return True

    def knows(self, term: str) -> bool:
        """Whether the term, or one that replaced it, is in the files."""
        try:
            return self._index is not None and self._index.find(term) is not None
        except InvalidQuery:
            return False

    def resolve(self, term: str) -> str:
        """The current id: of an alternative or replaced id, the term that counts today.

        Raises InvalidQuery (ontology.unknown_term, ontology.obsolete_term).
        """
        index, number = self._find(term)
        return index.id(number)

    def ancestors(self, term: str) -> frozenset[str]:
        """The term and everything it is a kind of. Raises InvalidQuery."""
        index, number = self._find(term)
        return index.ancestors(number)

    def descendants(self, term: str) -> frozenset[str]:
        """The term and every kind of it. Raises InvalidQuery."""
        index, number = self._find(term)
        return index.descendants(number)

    def former(self, ids: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """Those of the ids that another term has replaced, by the term that counts today."""
        return self._index.former(ids) if self._index else {}

    def label(self, term: str) -> str:
        """What people call the term; empty where the files do not say. Raises InvalidQuery."""
        index, number = self._find(term)
        return index.label(number)

    def synonyms(self, term: str) -> tuple[str, ...]:
        """Other names of the term that mean exactly the same. Raises InvalidQuery."""
        index, number = self._find(term)
        return index.synonyms(number)

    def terms(self, prefix: str) -> tuple[str, ...]:
        """The terms of an ontology that count today, in the order of their ids."""
        return self._index.of(prefix) if self._index else ()

    def labels(self) -> Iterator[tuple[str, str]]:
        """Every current term that has a label, with it."""
        return self._index.labels() if self._index else iter(())

    def version(self, prefix: str) -> str:
        """The version of an ontology, for example MONDO; empty where there is none of that prefix."""
        return self.versions.get(prefix, "")

    @property
    def versions(self) -> dict[str, str]:
        """Every prefix and its version."""
        return dict(self._index.versions) if self._index else {}

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that were compiled."""
        return tuple(sorted(self._index.files)) if self._index else ()

    def __len__(self) -> int:
        return len(self._index) if self._index else 0

    def _find(self, term: str) -> tuple[Index, int]:
        index = self._index
        number = index.find(term) if index else None
        if index is None or number is None:
            prefix = term.partition(":")[0]
            raise InvalidQuery(
                f"{term} is not in the ontologies that this center has"
                + ("." if self.version(prefix) else f": it has none of {prefix}."),
                code="ontology.unknown_term",
            )
        return index, number


def install(files: Sequence[Path], folder: Path) -> Ontologies:
    """Put files into the folder, all or none, and open it. Raises Misconfigured where they cannot be compiled."""
    for path in files:
        # A file of another ending would lie in the folder and never be looked at.
        source.reader_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ontologies-") as trial:
        for path in (*_files(folder), *files):
            # Its content alone: what lies in the folder is for its owner, whoever could read the original.
            shutil.copyfile(path, Path(trial) / path.name)
        Ontologies.open(Path(trial))
        for path in files:
            (Path(trial) / path.name).replace(folder / path.name)
    return Ontologies.open(folder)


def demonstration() -> Ontologies:
    """The demonstration ontologies, compiled aside: their folder may not be writable."""
    with tempfile.TemporaryDirectory() as aside:
        for path in _files(DEMO):
            shutil.copyfile(path, Path(aside) / path.name)
        return Ontologies.open(Path(aside))


def _open(folder: Path) -> Index | None:
    index = open_index(folder / INDEX)
    stamps = _stamps(folder, index)
    if index is not None and index.files == stamps:
        return index
    if not stamps:
        return None
    sources = [source.read(folder / name) for name in stamps]
    try:
        compile_index(sources, stamps, folder / INDEX)
        return open_index(folder / INDEX)
    except PermissionError:
        # A folder that is not ours to write: the index is mapped already when its file goes.
        with tempfile.TemporaryDirectory() as aside:
            compile_index(sources, stamps, Path(aside) / INDEX)
            return open_index(Path(aside) / INDEX)


def _stamps(folder: Path, index: Index | None) -> dict[str, list[Any]]:
    """Name of each file to [size, modified, SHA-256]; a file of unchanged size and time is not read again."""
    known = index.files if index else {}
    stamps: dict[str, list[Any]] = {}
    for path in _files(folder):
        try:
            stat = path.stat()
        except OSError as error:
            raise Misconfigured(f"{path.name} cannot be read: {error}.", code="ontology.unreadable") from error
        before = known.get(path.name)
        if before and before[:2] == [stat.st_size, stat.st_mtime_ns]:
            stamps[path.name] = before
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            stamps[path.name] = [stat.st_size, stat.st_mtime_ns, digest]
    return stamps


def _files(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else iter(())
    return sorted(path for path in found if path.suffix.lower() in source.READERS)
