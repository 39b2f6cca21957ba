"""Parcels too large for memory, as files: 4 bytes big-endian length of a head, the head, then records.

The head is a serialised Task or SignedAnswer. A file appears under its name only when it is whole and on disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from connexon.link.frames import CHUNK_SIZE, MAXIMUM_FRAME, ParcelRefused
from connexon.v1 import link_pb2

MAXIMUM_HEAD = MAXIMUM_FRAME
MAXIMUM_PARCEL = 2 * 1024**3
"""Bytes of one parcel with records."""
MAXIMUM_OPEN = 16
"""Parcels that may be under way from one peer at once."""

_PARCEL_ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([0-9]{1,9})\Z")
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class TaskId:
    """Which run, and which of its tasks; written as the parcel's id."""

    run: str
    number: int

    def __str__(self) -> str:
        return f"{self.run}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> TaskId:
        """Read a parcel's id. Raises ParcelRefused."""
        match = _PARCEL_ID.match(text)
        if match is None:
            raise ParcelRefused("A parcel does not say which task of which run it belongs to.")
        return cls(match[1], int(match[2]))


@dataclass(frozen=True)
class ParcelFile:
    """A whole parcel on disk."""

    path: Path
    head: bytes
    records_at: int
    size: int

    @property
    def records_size(self) -> int:
        """Bytes of the records."""
        return self.size - self.records_at

    def records(self) -> Iterator[bytes]:
        """The records' bytes, a piece at a time."""
        with self.path.open("rb") as file:
            file.seek(self.records_at)
            while piece := file.read(CHUNK_SIZE):
                yield piece

    def records_sha256(self) -> bytes:
        """SHA-256 of the records."""
        return sha256(self.records())

    def sha256(self) -> bytes:
        """SHA-256 of the whole parcel."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


def sha256(pieces: Iterable[bytes | memoryview]) -> bytes:
    """SHA-256 of pieces one after another."""
    return sha256_and_size(pieces)[0]


def sha256_and_size(pieces: Iterable[bytes | memoryview]) -> tuple[bytes, int]:
    """SHA-256 of pieces one after another, and how many bytes they are."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return digest.digest(), size


def write(path: Path, head: bytes, records: Iterable[bytes | memoryview] = ()) -> None:
    """Write a parcel; it is on disk and under its name when this returns."""
    if len(head) > MAXIMUM_HEAD:
        raise ParcelRefused("The head of a parcel is too large.")
    with _InPlace(path) as file:
        file.write(_LENGTH.pack(len(head)) + head)
        for piece in records:
            file.write(piece)


def write_plain(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file of nothing but these pieces, as durably as a parcel."""
    with _InPlace(path) as file:
        for piece in pieces:
            file.write(piece)


def read(path: Path) -> ParcelFile:
    """Open a parcel. Raises ParcelRefused where it is not whole in itself, FileNotFoundError where there is none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
        if length > MAXIMUM_HEAD or _LENGTH.size + length > size:
            raise ParcelRefused("A parcel with records does not begin with its head.")
        return ParcelFile(path, file.read(length), _LENGTH.size + length, size)


def pieces(
    parcel_id: str, kind: link_pb2.ParcelKind.ValueType, path: Path, *, traceparent: str = ""
) -> Iterator[link_pb2.Chunk]:
    """Cut a parcel's file into frames, reading as they are taken."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for offset in range(0, max(size, 1), CHUNK_SIZE):
            yield link_pb2.Chunk(
                query_id=parcel_id,
                kind=kind,
                total_size=size,
                offset=offset,
                data=file.read(CHUNK_SIZE),
                traceparent=traceparent if offset == 0 else "",
            )


class _InPlace:
    """A file that takes its name, durably, when the block ends well, and is gone otherwise."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> BinaryIO:
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=self._path.parent)
        self._part = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                settle(self._file, self._part, self._path)
        finally:
            self._file.close()
            self._part.unlink(missing_ok=True)


def settle(file: IO[bytes], part: Path, path: Path) -> None:
    """Put a written file under its name, so that a crash leaves it there or nothing."""
    file.flush()
    os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have the names in a folder on disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@dataclass
class _Open:
    total: int
    part: Path
    file: BinaryIO
    size: int = 0


@dataclass(frozen=True)
class Arrived:
    """A parcel that came whole. INVARIANT: its file is not safe from a power cut before `keep`."""

    id: TaskId
    kind: link_pb2.ParcelKind.ValueType
    path: Path

    def keep(self, path: Path) -> None:
        """Put the file under its lasting name, durably. Waits for the disk: not for an event loop."""
        with self.path.open("rb+") as file:
            settle(file, self.path, path)

    def discard(self) -> None:
        """Throw the file away."""
        self.path.unlink(missing_ok=True)


@dataclass
class FileAssembler:
    """Puts the pieces of parcels together on disk, in `folder`. One per connection; `close` removes what is not whole.

    `kind` is the one kind it takes, `maximum` the most bytes one parcel may have.
    """

    folder: Path
    kind: link_pb2.ParcelKind.ValueType
    maximum: int = MAXIMUM_PARCEL
    _under_way: dict[str, _Open] = field(default_factory=dict)

    def add(self, chunk: link_pb2.Chunk) -> Arrived | None:
        """Return the parcel when this piece completes it. Raises ParcelRefused."""
        task = TaskId.parse(chunk.query_id)
        if chunk.kind != self.kind:
            raise ParcelRefused("A parcel of this kind does not belong here.")
        if chunk.offset == 0:
            self._begin(chunk)
        parcel = self._under_way.get(chunk.query_id)
        if parcel is None or chunk.offset != parcel.size or chunk.total_size != parcel.total:
            raise ParcelRefused("A piece of a parcel is missing or out of order.")
        if not chunk.data or len(chunk.data) > CHUNK_SIZE or parcel.size + len(chunk.data) > parcel.total:
            raise ParcelRefused("A parcel is larger than it said.")
        parcel.file.write(chunk.data)
        parcel.size += len(chunk.data)
        if parcel.size < parcel.total:
            return None
        del self._under_way[chunk.query_id]
        parcel.file.close()
        return Arrived(task, chunk.kind, parcel.part)

    def close(self) -> None:
        """Remove what is not whole."""
        for parcel in self._under_way.values():
            parcel.file.close()
            parcel.part.unlink(missing_ok=True)
        self._under_way.clear()

    def _begin(self, chunk: link_pb2.Chunk) -> None:
        if chunk.total_size > self.maximum:
            raise ParcelRefused(f"A parcel has {chunk.total_size} bytes; at most {self.maximum} are allowed.")
        former = self._under_way.pop(chunk.query_id, None)
        if former is not None:
            former.file.close()
            former.part.unlink(missing_ok=True)
        if len(self._under_way) >= MAXIMUM_OPEN:
            raise ParcelRefused("Too many parcels are under way at once.")
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.folder)
        self._under_way[chunk.query_id] = _Open(chunk.total_size, Path(name), os.fdopen(descriptor, "wb"))
