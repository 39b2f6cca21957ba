"""The children that do local work, as the node sees them: one for each run, warm between its tasks, within limits."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from connexon.errors import ConnexonError, Refused
from connexon.learning import wire_recipe
from connexon.learning.recipe import Recipe
from connexon_node.pipeline.values import TrainingTable, Work
from connexon_node.settings import TrainingSection
from connexon_node.training import rows, worker_protocol
from connexon_node.training.capabilities import packages_of

LOG = logging.getLogger("connexon.node")
KEPT = 4
"""Children that wait for their run's next task; the longest idle goes first."""
IDLE_SECONDS = 120.0
"""Then they go, with the rows they have; the run's next task has another one."""
START_SECONDS = 60.0
_TAKEN_ALONG = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_BOUNDED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")


class WorkFailed(ConnexonError):
    """The child could not do the task, for a reason of its own, or died of it."""

    code = "training.failed"


class TooLong(Refused):
    """The task took longer than this center gives to one."""

    code = "training.time_limit"


@dataclass(frozen=True)
class Errand:
    """What a child is told of a task: the parcel to read and the file to write."""

    run: str
    task: str
    action: str
    parcel: Path
    out: Path
    share: float
    """Of the donors, kept apart."""


@dataclass
class _Child:
    line: socket.socket
    pid: int
    table: TrainingTable | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)
    used: float = field(default_factory=time.monotonic)


class Crew:
    """Thread-safe; one per node. Starts nothing before it is needed."""

    def __init__(self, section: TrainingSection) -> None:
        self._section = section
        self._lock = threading.Lock()
        self._children: OrderedDict[str, _Child] = OrderedDict()
        self._zygote: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._closed = False

    def warm(self) -> None:
        """Have everything loaded by the time a task comes; in the background."""
        if self._line_to_zygote() is None:
            threading.Thread(target=self._warm, name="training-warm", daemon=True).start()

    def do(self, errand: Errand, recipe: Recipe, table: TrainingTable, work: Work, *, minimum: int) -> None:
        """Have a task done over these rows; the records are in `errand.out` when this returns.

        Raises what the child says is wrong with it (Refused), TooLong, Interrupted, or WorkFailed.
        """
        with self._child(errand.run, recipe) as child:
            seconds = min(self._section.seconds, work.seconds_left)
            forget = work.on_cancel(lambda: self._break(child))
            try:
                said = self._told(child, errand, recipe, table, minimum, seconds)
            except (EOFError, OSError) as error:
                late = isinstance(error, TimeoutError)
                self._let_go(errand.run, child)
                work.require_wanted()
                if late:
                    raise TooLong(
                        f"The task took more than the {seconds:g} seconds this center gives to one."
                    ) from error
                raise WorkFailed("The process that did the local work ended.") from error
            finally:
                forget()
        work.require_wanted()
        if said.get("code"):
            raise Refused(said["message"], code=said["code"])
        if "message" in said:
            raise WorkFailed(f"The local work failed: {said['message']}.")

    def forget(self, run: str) -> None:
        """End a run's child, with the rows it has."""
        with self._lock:
            child = self._children.pop(run, None)
        if child is not None:
            self._end(child)

    def tidy(self, *, idle_seconds: float = IDLE_SECONDS) -> None:
        """End the children that have long had nothing to do."""
        since = time.monotonic() - idle_seconds
        with self._lock:
            idle = [run for run, one in self._children.items() if not one.busy.locked() and one.used <= since]
            parting = [self._children.pop(run) for run in idle]
        for child in parting:
            self._end(child)

    def close(self) -> None:
        """End every child."""
        with self._lock:
            self._closed = True
            children, self._children = list(self._children.values()), OrderedDict()
            zygote, self._zygote = self._zygote, None
        for child in children:
            self._hang_up(child)
        if zygote is not None:
            zygote[1].close()
            zygote[0].wait(START_SECONDS)

    def _told(
        self, child: _Child, errand: Errand, recipe: Recipe, table: TrainingTable, minimum: int, seconds: float
    ) -> dict[str, str]:
        child.line.settimeout(max(0.001, seconds))
        words: dict[str, object] = {
            "task": errand.task,
            "action": errand.action,
            "parcel": str(errand.parcel),
            "out": str(errand.out),
        }
        if child.table is table:
            worker_protocol.say(child.line, words)
        else:
            words |= {"recipe": wire_recipe.to_bytes(recipe).hex(), "minimum": minimum, "share": errand.share}
            with rows.write(table, share=errand.share, seed=recipe.seed) as file:
                worker_protocol.say(child.line, words, [file.fileno()])
            child.table = table
        return worker_protocol.hear(child.line)[0]

    @contextlib.contextmanager
    def _child(self, run: str, recipe: Recipe) -> Iterator[_Child]:
        """The run's child, for one task at a time."""
        while True:
            with self._lock:
                child = self._children.get(run)
                if child is None:
                    child = self._children[run] = self._fork(recipe)
                self._children.move_to_end(run)
                idle = [name for name, one in self._children.items() if name != run and not one.busy.locked()]
                parting = [self._children.pop(name) for name in idle[: max(0, len(self._children) - KEPT)]]
            for one in parting:
                self._end(one)
            with child.busy:
                with self._lock:
                    if self._children.get(run) is not child:
                        continue
                try:
                    yield child
                finally:
                    child.used = time.monotonic()
                return

    def _fork(self, recipe: Recipe) -> _Child:
        line = self._started()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                needed = {"memory": self._section.memory_bytes, "packages": packages_of(recipe.model)}
                worker_protocol.say(line, needed, [theirs.fileno()])
            said, _ = worker_protocol.hear(line)
        except (EOFError, OSError) as error:
            ours.close()
            self._zygote = None
            raise WorkFailed("The process that does local work could not be started.") from error
        return _Child(ours, int(said["pid"]))

    def _warm(self) -> None:
        with self._lock, contextlib.suppress(ConnexonError):
            self._started()

    def _started(self) -> socket.socket:
        """The line to the zygote, started where there is none. Called with the lock held."""
        if self._closed:
            raise WorkFailed("The node is stopping.")
        present = self._line_to_zygote()
        if present is not None:
            return present
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _TAKEN_ALONG if name in os.environ}
        environment |= dict.fromkeys(_BOUNDED, "1") | {"FLWR_TELEMETRY_ENABLED": "0"}
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # this very interpreter, with a module of ours
                [sys.executable, "-m", "connexon_node.training.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        ours.settimeout(START_SECONDS)
        try:
            worker_protocol.hear(ours)
        except (EOFError, OSError) as error:
            ours.close()
            process.kill()
            process.wait()
            raise WorkFailed("The process that does local work could not be started.") from error
        self._zygote = (process, ours)
        return ours

    def _line_to_zygote(self) -> socket.socket | None:
        """None where it was not started or has ended."""
        zygote = self._zygote
        return zygote[1] if zygote is not None and zygote[0].poll() is None else None

    def _let_go(self, run: str, child: _Child) -> None:
        with self._lock:
            if self._children.get(run) is child:
                del self._children[run]
        self._end(child)

    def _break(self, child: _Child) -> None:
        """Have whoever waits for the child wake up at once."""
        with contextlib.suppress(OSError):
            child.line.shutdown(socket.SHUT_RDWR)

    def _end(self, child: _Child) -> None:
        self._hang_up(child)
        with self._lock:
            if self._zygote is not None:
                with contextlib.suppress(OSError):
                    worker_protocol.say(self._zygote[1], {"end": child.pid})

    def _hang_up(self, child: _Child) -> None:
        self._break(child)
        child.line.close()
