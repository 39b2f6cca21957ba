"""The importer's side of the reader: starts it, gives it the file, and takes its report."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from connexon import errors
from connexon.errors import ConnexonError, Misconfigured, Unavailable
from connexon_node import sandbox
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.mapping import Mapping
from connexon_node.importing.reader import jobs, protocol, server
from connexon_node.importing.reader.protocol import Drafted, DraftMapping, Failed, FindLines, Job, Lines, Stage, Staged
from connexon_node.importing.sources import File, FileFormat
from connexon_node.settings import IMPORTS, ImportSection

LOG = logging.getLogger("connexon.node")
START_SECONDS = 120.0
_TAKEN_ALONG = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
"""Of the environment, which may hold the password of the database."""
_SINGLE = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
R = TypeVar("R", Staged, Lines, Drafted)


class ReaderFailed(Unavailable):
    """The reader did not do what it should, whatever the file."""

    code = "import.reader_failed"


class Reader:
    """Reads files with the scratch folder `scratch`. Links may not lead into `private`, the node's own folder."""

    def __init__(
        self,
        scratch: Path,
        section: ImportSection = IMPORTS,
        *,
        private: Path | None = None,
        confined: bool = True,
    ) -> None:
        self.scratch = scratch
        self._section = section
        self._private = private
        self._confined = confined

    def stage(self, file: Path, file_format: FileFormat, mapping: Mapping, dataset: Dataset, *, memory: str) -> Staged:
        """Make a table of texts of a file. Raises FileRefused, Unavailable."""
        given, beside = self._given(file, file_format), self._beside(file, file_format, mapping)
        job = Stage(file=given, file_format=file_format, mapping=mapping, beside=beside, dataset=dataset, memory=memory)
        return self._done(job, Staged)

    def lines(self, file: Path, file_format: FileFormat, mapping: Mapping, records: Sequence[int]) -> list[int]:
        """The lines at which records begin."""
        given = self._given(file, file_format)
        done = self._done(
            FindLines(file=given, file_format=file_format, mapping=mapping, records=tuple(records)), Lines
        )
        if len(done.lines) != len(records):
            raise ReaderFailed(f"The reader of {file.name} told the lines of other records than it was asked for.")
        return done.lines

    def draft(
        self,
        file: Path,
        file_format: FileFormat,
        mapping: Mapping,
        dictionary: Dictionary,
        dataset: str,
        labels: dict[str, dict[str, str]],
    ) -> dict[str, str]:
        """Mapping files for a file, by dataset."""
        job = DraftMapping(
            file=self._given(file, file_format),
            file_format=file_format,
            mapping=mapping,
            dictionary=dictionary,
            dataset=dataset,
            labels=labels,
        )
        return self._done(job, Drafted).texts

    def _given(self, file: Path, file_format: FileFormat) -> File:
        """The file under a name of ours, in which no library finds a pattern, an address or an index beside it."""
        self._require_regular(file)
        return self._linked(f"source.{file_format.value}", file)

    def _linked(self, name: str, file: Path) -> File:
        link = self.scratch / name
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())
        return File(path=Path(name), name=file.name)

    def _require_regular(self, file: Path) -> None:
        try:
            kind = file.stat().st_mode
        except OSError as error:
            raise FileRefused(f"{file} cannot be read: {error.strerror or error}.") from error
        if not stat.S_ISREG(kind):
            raise FileRefused(f"{file} is no file that can be read to its end.", code="import.no_file")
        if self._private is not None and file.is_symlink() and file.resolve().is_relative_to(self._private.resolve()):
            raise FileRefused(
                f"{file} is a link to a file of the node itself; name the file that is meant.", code="import.no_file"
            )

    def _beside(self, file: Path, file_format: FileFormat, mapping: Mapping) -> dict[str, File]:
        """The files beside the imported one that its format reads, by name in small letters. No link is followed."""
        if file_format is not FileFormat.SDTM:
            return {}
        written = {one.name.lower(): one for one in file.parent.iterdir()}
        found = {}
        for number, name in enumerate({mapping.sdtm.demographics.lower(), "ds.csv"}):
            path = written.get(name)
            if path is None or path.is_symlink() or not path.is_file():
                continue
            found[name] = self._linked(f"beside-{number}.csv", path)
        return found

    def _done(self, job: Job, kind: type[R]) -> R:
        found = sandbox.support()
        if self._section.require_sandbox and not found.whole:
            raise Misconfigured(
                f"This kernel has no {found.lacking}, and [imports] require_sandbox asks that files are read where "
                "they can reach nothing else. Import on a machine that has it, or set require_sandbox = false.",
                code="import.no_sandbox",
            )
        order = jobs.Order(job=job, scratch=self.scratch, limits=self._limits(), confined=self._confined)
        said, status = _SERVER.do(order, seconds=self._section.seconds)
        return _report(job.file.name, said, status, kind)

    def _limits(self) -> sandbox.Limits:
        section = self._section
        return sandbox.Limits(
            memory=section.memory_bytes, seconds=2 * int(section.seconds), file_size=section.scratch_bytes
        )


class _Server:
    """The process that readers are forked from, one for this process; started when first needed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def do(self, order: jobs.Order, *, seconds: float) -> tuple[bytes, int]:
        """Have a reader do a job. Returns what it said and how it ended, as os.waitpid tells it."""
        with self._lock:
            line = self._line()
            try:
                ours, theirs = socket.socketpair()
                with ours:
                    with theirs:
                        socket.send_fds(line, [b"j"], [theirs.fileno()])
                    return _spoken(ours, line, order, time.monotonic() + seconds)
            except TimeoutError as error:
                self._end()
                raise FileRefused(
                    f"{order.job.file.name} takes longer to read than the {seconds:,.0f} seconds that [imports] gives.",
                    code="import.too_long",
                ) from error
            except OSError as error:
                self._end()
                raise ReaderFailed("The process that reads files has ended; import again.") from error
            except BaseException:
                # Whatever stopped the import, Ctrl-C too, ends the reader.
                self._end()
                raise

    def _line(self) -> socket.socket:
        if self._present is not None and self._present[0].poll() is None:
            return self._present[1]
        self._end()
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _TAKEN_ALONG if name in os.environ}
        # No library finds plugins of its own to load; and numpy starts no threads, which would keep their rights.
        environment |= dict.fromkeys(_SINGLE, "1") | {"HDF5_PLUGIN_PRELOAD": "::"}
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # this very interpreter, with a module of ours
                [sys.executable, "-P", "-m", server.__name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        self._present = (process, ours)
        ours.settimeout(START_SECONDS)
        try:
            began = ours.recv(1)
        except OSError:
            began = b""
        ours.settimeout(None)
        if began != server.READY:
            self._end()
            raise ReaderFailed("The process that reads files could not be started.")
        return ours

    def _end(self) -> None:
        if self._present is None:
            return
        process, line = self._present
        self._present = None
        line.close()
        with contextlib.suppress(ProcessLookupError):
            # It and its reader: they are a group of their own.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


_SERVER = _Server()


def _spoken(ours: socket.socket, line: socket.socket, order: jobs.Order, deadline: float) -> tuple[bytes, int]:
    written = pickle.dumps(order)
    said = bytearray()
    try:
        ours.sendall(jobs.LENGTH.pack(len(written)) + written)
        while piece := _before(ours, deadline, 1 << 20):
            said += piece
            if len(said) > protocol.MAXIMUM_REPORT:
                raise ReaderFailed(f"The reader of {order.job.file.name} says more than a report holds.")
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has ended; how, the status tells
    status = _before(line, deadline, server.STATUS.size)
    line.settimeout(None)
    if len(status) != server.STATUS.size:
        raise ConnectionResetError
    return bytes(said), server.STATUS.unpack(status)[0]


def _before(line: socket.socket, deadline: float, most: int) -> bytes:
    line.settimeout(max(0.001, deadline - time.monotonic()))
    return line.recv(most)


_KINDS: dict[str, type[ConnexonError]] = {
    "FileRefused": FileRefused,
    **{
        name: getattr(errors, name)
        for name in ("Refused", "InvalidQuery", "NotFound", "Conflict", "Unavailable", "Misconfigured")
    },
}


def _report(file: str, said: bytes, status: int, kind: type[R]) -> R:
    if os.WIFSIGNALED(status):
        raise _ended(file, os.WTERMSIG(status))
    try:
        ((name, found),) = json.loads(said).items()
        if name == Failed.__name__:
            failed = Failed.model_validate_json(json.dumps(found))
            LOG.debug("the reader of %r: %s", file, failed.detail)
            raise _KINDS.get(failed.kind, FileRefused)(failed.message, code=failed.code)
        if name == kind.__name__:
            return kind.model_validate_json(json.dumps(found))
    except (ValueError, AttributeError, ValidationError) as error:
        raise ReaderFailed(f"The reader of {file} ended without a report; nothing was loaded.") from error
    raise ReaderFailed(f"The reader of {file} reports on something else; nothing was loaded.")


def _ended(file: str, number: int) -> ConnexonError:
    if number == signal.SIGXCPU:
        return FileRefused(
            f"{file} takes more processor time to read than [imports] gives; nothing was loaded.",
            code="import.too_long",
        )
    if number == signal.SIGKILL:
        return Unavailable(
            f"The system ended the process that read {file}, mostly because memory ran out; nothing was loaded. Import "
            "again when the machine is less busy.",
            code="import.reader_ended",
        )
    name = signal.Signals(number).name
    return FileRefused(
        f"The process that read {file} crashed ({name}); nothing was loaded. The file is damaged, or made to do harm: "
        "see where it comes from.",
        code="import.reader_crashed",
    )
