"""Where the parcels of training lie on disk: tasks as they came, records as they will go. Closed to other users."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from connexon.link.frames import CHUNK_SIZE
from connexon.link.parcel_files import ParcelFile, TaskId
from connexon.v1 import link_pb2

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class Spool:
    """A folder of parcels, each by its task's id. What no row of the database names is a crash's and may be removed."""

    root: Path

    def make(self) -> Spool:
        """Create the folders, and remove what was under way when the node last ended."""
        for folder in (self.arriving, self.tasks, self.replies):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        self.root.chmod(0o700)
        for left in [*self.arriving.iterdir(), *self.replies.glob(".*"), *self.replies.glob("*.work")]:
            left.unlink(missing_ok=True)
        return self

    @property
    def arriving(self) -> Path:
        """Parcels that are not yet written down."""
        return self.root / "arriving"

    @property
    def tasks(self) -> Path:
        """Tasks that are written down."""
        return self.root / "tasks"

    @property
    def replies(self) -> Path:
        """Records of replies, each as a parcel with an empty head."""
        return self.root / "replies"

    def task(self, task: TaskId) -> Path:
        """The parcel of a task."""
        return self.tasks / str(task)

    def worked(self, task: TaskId) -> Path:
        """What local work wrote and release has not seen."""
        return self.replies / f"{task}.work"

    def reply(self, task: TaskId) -> Path:
        """The records of a reply."""
        return self.replies / str(task)

    def forget(self, task: TaskId) -> None:
        """Remove a task's files."""
        for path in (self.task(task), self.worked(task), self.reply(task)):
            path.unlink(missing_ok=True)


def reply_pieces(task: TaskId, head: bytes, records: ParcelFile | None) -> Iterator[link_pb2.Chunk]:
    """A reply cut into frames: its signed answer from the database, its records from their file."""
    start = _LENGTH.pack(len(head)) + head
    total = len(start) + (records.records_size if records is not None else 0)
    offset = 0

    def frame(data: bytes) -> link_pb2.Chunk:
        return link_pb2.Chunk(
            query_id=str(task), kind=link_pb2.PARCEL_KIND_REPLY, total_size=total, offset=offset, data=data
        )

    for place in range(0, len(start), CHUNK_SIZE):
        data = start[place : place + CHUNK_SIZE]
        yield frame(data)
        offset += len(data)
    for data in records.records() if records is not None else ():
        yield frame(data)
        offset += len(data)
