"""Where the parcels of runs and the arrays of models lie."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from connexon.identity.keys import CenterId
from connexon.link.parcel_files import TaskId


@dataclass(frozen=True)
class RunFiles:
    """Paths below the hub's folder."""

    root: Path

    @property
    def arriving(self) -> Path:
        """Replies that are not checked yet, and pieces of replies."""
        return self.root / "runs" / "arriving"

    def run(self, query_id: str) -> Path:
        """One run's folder."""
        return self.root / "runs" / query_id

    def task(self, task: TaskId) -> Path:
        """A task's parcel."""
        return self.run(task.run) / f"{task.number}.task"

    def reply(self, task: TaskId, center: CenterId) -> Path:
        """A center's reply to a task."""
        return self.run(task.run) / f"{task.number}.{center}.reply"

    def model(self, query_id: str) -> Path:
        """The arrays of the model that a run made."""
        return self.root / "models" / f"{query_id}.arrays"

    def prepare(self, live: Collection[str]) -> None:
        """Make the folders; throw away what had arrived in pieces, and the parcels of runs that are not `live`.

        A hub that was killed between a run's end and the removal of its parcels has left them.
        """
        for path in (self.arriving, self.root / "models"):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
        for piece in self.arriving.iterdir():
            piece.unlink()
        for run in (self.root / "runs").iterdir():
            if run != self.arriving and run.name not in live:
                self.remove(run.name)

    def begin(self, query_id: str) -> Path:
        """Make one run's folder."""
        self.run(query_id).mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.run(query_id)

    def remove(self, query_id: str) -> None:
        """Throw a run's parcels away; what they led to is in the database and the model."""
        shutil.rmtree(self.run(query_id), ignore_errors=True)
