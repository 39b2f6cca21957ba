"""Landlock: the kernel lets a process open only what lies under the named paths (Linux 5.13 and later).

The C library has no functions for it. Numbers and structures are those of linux/landlock.h; see landlock(7).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls; the same numbers on every architecture."""
_ASK_VERSION = 1
_BENEATH_PATH = 1
_NO_NEW_PRIVILEGES = 38

_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FOLDER, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_FOLDER, _MAKE_FILE = 1 << 7, 1 << 8
_TRUNCATE = 1 << 14
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights over files that a version knows, by the version that brought the newest of them."""
_NETWORK_RIGHTS = 0b11
"""To bind and to connect TCP ports (version 4)."""
_SCOPES = 0b11
"""Abstract sockets of, and signals to, processes outside (version 6)."""
_READ = _READ_FILE | _READ_FOLDER
_WRITE = _READ | _WRITE_FILE | _REMOVE_FILE | _REMOVE_FOLDER | _MAKE_FILE | _MAKE_FOLDER
"""No links, sockets, pipes or devices are made, and nothing is executed."""
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE
"""Rights that a rule about a file, and not a folder, may hold."""


def version() -> int:
    """The version of the interface; 0 where the kernel has none or has it switched off."""
    return max(0, _call(_CREATE_RULESET, None, 0, _ASK_VERSION))


def give_up_privileges() -> None:
    """No program started from here may gain rights; Landlock and seccomp ask for that. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise _error()


def restrict(version: int, *, readable: Sequence[Path], writable: Sequence[Path]) -> None:
    """Leave this thread the paths and what lies under them. Raises OSError."""
    known = _FILE_RIGHTS[max(at for at in _FILE_RIGHTS if at <= version)]
    # An older kernel is given a shorter structure: what it does not know must not be there.
    whole = struct.pack("=QQQ", known, _NETWORK_RIGHTS, _SCOPES)
    attributes = whole[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise _error()
    try:
        for paths, rights in ((readable, _READ), (writable, _WRITE | _TRUNCATE)):
            for path in paths:
                _allow(ruleset, path, rights & known)
        if _call(_RESTRICT_SELF, ruleset, 0):
            raise _error()
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        if _call(_ADD_RULE, ruleset, _BENEATH_PATH, struct.pack("=Qi", rights, opened), 0):
            raise _error()
    finally:
        os.close(opened)


def _call(number: int, *arguments: int | bytes | None) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syscall"):
        return -1
    # Whole words: the kernel reads all bits of a register, and ctypes would leave the upper half of an int as it was.
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(library.syscall(ctypes.c_long(number), *words))


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
