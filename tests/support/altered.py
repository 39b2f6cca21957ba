"""Processes whose software is changed from outside, as another release or a slow machine would be.

Python runs a module named sitecustomize, found on PYTHONPATH, before the program itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_OTHER_VERSION = """
from connexon.link import frames
from connexon.identity.roster import Protocol

frames.PROTOCOL = Protocol({major}, {minor})
frames.agree.__kwdefaults__["ours"] = frames.PROTOCOL
"""
_SAYS_MORE = """
from connexon.query import signed

sign_answer = signed.sign_answer


def sign_more(answer, key):
    # Field 1000, which no message of this version has.
    answer.MergeFromString(b"\\xc2\\x3e\\x03new")
    return sign_answer(answer, key)


signed.sign_answer = sign_more
"""
_SLOW = """
import pathlib

from connexon_node.engine.duck import _Session

fetch = _Session.fetch
while_there = pathlib.Path({file!r})


def fetch_after_long_work(self, sql):
    if while_there.exists():
        self.cursor.execute("select count(*) from range(10000000) a, range(10000000) b where a.range * b.range % 7 = 3")
    return fetch(self, sql)


_Session.fetch = fetch_after_long_work
"""
_MOVED_CLOCK = """
import pathlib
import time

time_ns, time_s = time.time_ns, time.time
moved = pathlib.Path({file!r})


def by_seconds():
    return int(moved.read_text()) if moved.exists() else 0


time.time_ns = lambda: time_ns() + by_seconds() * 1_000_000_000
time.time = lambda: time_s() + by_seconds()
"""
_WITHOUT_REVOCATIONS = (
    _OTHER_VERSION
    + """
from connexon.errors import Refused
from connexon_hub.rpc.link import LinkService


async def unknown_frame(self, session, arriving, said):
    raise Refused("A frame of kind None does not belong here.", code="link.bad_frame")


LinkService._revoke = unknown_frame
"""
)


def without_revocations(folder: Path) -> Mapping[str, str]:
    """Environment in which a hub speaks version 1.0 and knows no frame of revocations."""
    return _environment(folder, _WITHOUT_REVOCATIONS.format(major=1, minor=0))


def other_version(folder: Path, major: int, minor: int, *, says_more: bool = False) -> Mapping[str, str]:
    """Environment in which hub and node speak that version of the protocol; `says_more` adds a field to answers."""
    return _environment(folder, _OTHER_VERSION.format(major=major, minor=minor) + (_SAYS_MORE if says_more else ""))


def slow_while_there(folder: Path, file: Path) -> Mapping[str, str]:
    """Environment in which DuckDB has years of work in every question of a node, as long as `file` is there."""
    return _environment(folder, _SLOW.format(file=str(file)))


def moved_clock(folder: Path, file: Path) -> Mapping[str, str]:
    """Environment in which the clock is ahead by as many seconds as `file` says, as long as it is there."""
    return _environment(folder, _MOVED_CLOCK.format(file=str(file)))


def _environment(folder: Path, code: str) -> Mapping[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))}
