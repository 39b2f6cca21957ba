"""What is wrong with a condition, shown at its place, in words instead of grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lark import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from connexon.errors import InvalidQuery
from connexon.suggest import nearest

_WIDTH = 48
"""Columns of the text that are shown; narrow enough not to wrap on a small terminal."""
_BEFORE = 28

_VALUES = {"TEXT", "DATE", "DECIMAL", "INTEGER", "TRUE", "FALSE", "CURIE"}
_WORDS = {
    "NAME": "a field's name",
    "QUOTED_NAME": "",
    "OPERATOR": "a comparison such as = or >=",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "CURIE": "a term such as MONDO:0005180",
    "TEXT": "a text in quotes",
    "$END": "the end",
}
_CURLY = "‘’“”„«»´"


class WhereUnreadable(InvalidQuery):
    """A condition that cannot be read."""

    code = "where.unreadable"


def explain(text: str, error: UnexpectedInput) -> WhereUnreadable:
    """Turn what the parser stumbled over into a sentence with the place."""
    accepted = _accepted(error)
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return point_at(text, len(text.rstrip()), 1, f"Here it ends, but {_listed(accepted)} should follow.")
    position = error.pos_in_stream or 0
    word = _word_at(text, position)
    return point_at(text, position, len(word), _problem(text, position, word, accepted))


def point_at(text: str, position: int, length: int, problem: str) -> WhereUnreadable:
    """The sentence, the line of the text around `position`, and carets under `length` characters of it."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : len(text) if end < 0 else end]
    column = position - start
    cut = max(0, column - _BEFORE) if len(line) > _WIDTH else 0
    shown = line[cut : cut + _WIDTH]
    before = ("…" if cut else "") + _plain(shown[: column - cut])
    marked = _plain(shown[column - cut : column - cut + length])
    after = _plain(shown[column - cut + length :]) + ("…" if cut + _WIDTH < len(line) else "")
    carets = " " * _cells(before) + "^" * max(1, _cells(marked))
    return WhereUnreadable(
        f"The condition cannot be read at this place:\n  {before}{marked}{after}\n  {carets}\n{problem}"
    )


def _problem(text: str, position: int, word: str, accepted: set[str]) -> str:
    if word[:1] in _CURLY:
        return "Use straight quotes: ' or \"."
    if word[:1] in "'\"":
        return "This quote is never closed."
    if accepted >= _VALUES and re.match(r"[0-9]+[-/.][0-9]+[-/.][0-9]+", word):
        return "Write dates as year-month-day, for example 2024-01-31."
    if accepted >= _VALUES and re.match(r"[^\W\d]", word):
        return f"Write text in quotes: {_quoted(word)}."
    if word.lower() in ("null", "none") and "_MISSING" in accepted:
        return "Write 'is missing' or 'is not missing'."
    meant = nearest(word, (name[1:].lower() for name in accepted if name.startswith("_")))
    hint = f" Did you mean {meant!r}?" if meant is not None and word.isalpha() else ""
    return f"Expected here: {_listed(accepted)}.{hint}"


def _accepted(error: UnexpectedInput) -> set[str]:
    if isinstance(error, UnexpectedToken | UnexpectedCharacters) and error.interactive_parser is not None:
        return set(error.interactive_parser.accepts())  # type: ignore[no-untyped-call]  # lark has no type for it
    return set()


def _listed(accepted: Iterable[str]) -> str:
    names = set(accepted)
    words = []
    if names >= _VALUES:
        names -= _VALUES
        words.append("a value such as 'iPSC', 10, 2024-01-31 or MONDO:0005180")
    for name in sorted(names, key=lambda name: (name.startswith("_"), name)):
        words.append(_WORDS.get(name, f"'{name.strip('_').lower()}'"))
    words = [word for word in words if word]
    if len(words) < 2:
        return "".join(words) or "something else"
    return ", ".join(words[:-1]) + " or " + words[-1]


def _word_at(text: str, position: int) -> str:
    match = re.compile(r"[\w.:/+-]+|['\"][^\n]*|\S").match(text, position)
    return match[0] if match else " "


def _quoted(word: str) -> str:
    return "'" + word[:40].replace("'", "\\'") + "'"


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
