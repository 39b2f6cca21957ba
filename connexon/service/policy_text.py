"""Where one rule of a Cedar file ends and the next begins: told alike by the node that obeys and whoever signs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# INVARIANT: a comment ends where Cedar ends it, at a carriage return too; else a rule behind one would not be seen.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\r\n]*|;|\s+|[^\s;"/]+|.', re.DOTALL)
_LINE_END = re.compile(r"\r\n|\r|\n")
_ID = re.compile(r'@id\s*\(\s*"([a-z0-9_.]+)"\s*\)')


@dataclass(frozen=True)
class Statement:
    """One rule as it is written, with its annotations. `line` counts from 1."""

    line: int
    start: int
    end: int
    text: str

    @property
    def id(self) -> str:
        """What its first @id says, for a heading; empty where it has none that a node would take."""
        found = _ID.search(self.text)
        return found[1] if found else ""


def statements(text: str) -> Iterator[Statement]:
    """The rules of a Cedar file, in order; strings and comments may hold semicolons."""
    start: int | None = None
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if start is None and not piece.isspace() and not piece.startswith("//"):
            start = match.start()
        if piece == ";" and start is not None:
            yield _statement(text, start, match.end())
            start = None
    if start is not None:
        yield _statement(text, start, len(text))


def between(text: str, found: list[Statement]) -> list[str]:
    """The lines that stand outside the rules: comments, as a rule. Nothing of a file is in neither."""
    edges = [0, *(edge for one in found for edge in (one.start, one.end)), len(text)]
    gaps = [text[edges[place] : edges[place + 1]] for place in range(0, len(edges), 2)]
    return [line for gap in gaps for line in _LINE_END.split(gap) if line.strip()]


def _statement(text: str, start: int, end: int) -> Statement:
    return Statement(len(_LINE_END.findall(text, 0, start)) + 1, start, end, text[start:end])
