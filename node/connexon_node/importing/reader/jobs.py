"""What the reader does, in its own process: it confines itself, reads, and says in plain JSON what came of it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import signal
import socket
import struct
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Any as Connection

import connexon
import connexon_node
from connexon.errors import ConnexonError
from connexon_node import sandbox
from connexon_node.importing import fullness
from connexon_node.importing.reader import staging
from connexon_node.importing.reader.protocol import DraftMapping, Failed, FindLines, Job, Report, Stage
from connexon_node.importing.sources import FileFormat

LENGTH = struct.Struct("=Q")
HERE = Path()
"""The scratch folder, which is the reader's working folder: no name of a file or folder of the center is in a path."""
_CODE = tuple(
    Path(path)
    for path in dict.fromkeys(
        [
            *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
            *(str(Path(str(package.__file__)).parent) for package in (connexon, connexon_node)),
        ]
    )
)
"""Python's libraries and this program: modules are loaded when they are first needed."""
_TIME_ZONES = (Path("/etc/localtime"), Path("/usr/share/zoneinfo"))
_LOADED_FIRST = ("lzma", "bz2", "_strptime", "encodings.idna")
"""Modules that need libraries of the system, which are out of reach later."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job, the folder it is done in, and what the reader may use. `confined` is false only in tests."""

    job: Job
    scratch: Path
    limits: sandbox.Limits
    confined: bool = True


def work(line: socket.socket) -> None:
    """Do the one job that comes down the line."""
    order = _heard(line)
    said: Report
    try:
        with fullness.said():
            said = _done(order)
    except ConnexonError as error:
        said = Failed(kind=_kind(error), code=error.code, message=error.public[:10_000])
    except MemoryError:
        said = Failed(kind="Unavailable", code="import.memory", message=fullness.MEMORY)
    except RecursionError:
        name = order.job.file.name
        said = Failed(
            kind="FileRefused", code="import.too_large", message=f"{name} is nested more deeply than such files are."
        )
    except Exception as error:  # noqa: BLE001  # the reader's edge: whatever a library does, it is a sentence
        name, first = order.job.file.name, (str(error).splitlines() or [""])[0][:200]
        said = Failed(
            kind="FileRefused",
            code="import.unreadable",
            message=f"{name} cannot be read: {type(error).__name__}: {first}",
            detail=traceback.format_exc()[-20_000:],
        )
    with contextlib.suppress(OSError):
        line.sendall(json.dumps({type(said).__name__: said.model_dump()}).encode())


def _done(order: Order) -> Report:
    job = order.job
    os.chdir(order.scratch)
    tempfile.tempdir = str(HERE)
    _silence()
    do = _worker(job)
    _load(job.file_format)
    # Opened first: it looks at processors and memory, which are out of reach later. It has no threads yet.
    connection = staging.opened()
    files = [job.file.path.resolve(), *(file.path.resolve() for file in job.beside.values())]
    if order.confined:
        there = [path for path in (*files, *_CODE, *_TIME_ZONES) if path.exists()]
        sandbox.confine(readable=there, folder=HERE, limits=order.limits)
    staging.restrict(connection, HERE, files)
    with contextlib.closing(connection):
        return do(job, connection)


def _worker(job: Job) -> Callable[[Any, Connection], Report]:
    match job:
        case Stage():
            return staging.stage
        case FindLines():
            return staging.find_lines
        case DraftMapping():
            return importlib.import_module("connexon_node.importing.drafting").drafted  # type: ignore[no-any-return]
    raise TypeError(type(job).__name__)


def _load(file_format: FileFormat) -> None:
    from connexon_node.importing import formats

    for name in _LOADED_FIRST:
        importlib.import_module(name)
    formats.load(file_format)
    time.localtime()


def _silence() -> None:
    # Libraries write to the terminal what they find in a file, control characters and all.
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _heard(line: socket.socket) -> Order:
    (length,) = LENGTH.unpack(b"".join(_exactly(line, LENGTH.size)))
    order = pickle.loads(b"".join(_exactly(line, length)))  # noqa: S301  # from the importer, never from a file
    assert isinstance(order, Order)
    return order


def _exactly(line: socket.socket, size: int) -> Iterator[bytes]:
    while size:
        piece = line.recv(min(size, 1 << 20))
        if not piece:
            raise EOFError
        size -= len(piece)
        yield piece


def _kind(error: ConnexonError) -> str:
    return type(error).__name__
