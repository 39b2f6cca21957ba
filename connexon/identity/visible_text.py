"""Names that people read and decide by: bounded, on one line, with nothing in them that is not seen.

`wrong_with` judges a name where it is read; `escaped` shows any text at all, so that whatever would not be seen is.
"""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 200
"""Characters of an organisation's name or of a file's path."""
_MOST_MARKS = 3
"""Combining marks on one letter: Vietnamese and Devanagari need three; a pile of them covers the lines around it."""
_UNSEEN = (
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0x16FE4, 0x1D159),
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
    *range(0xE0100, 0xE01F0),
)
UNSEEN = frozenset(map(chr, _UNSEEN))
"""Characters that Python calls printable and fonts leave blank: fillers, the empty Braille cell, variation selectors.

Unicode 15.1, DerivedCoreProperties.txt, Default_Ignorable_Code_Point, without what str.isprintable refuses itself.
"""


def wrong_with(name: str, *, longest: int = LONGEST_NAME) -> str:
    """Why people could not read `name` as it is, as the end of a sentence that begins with it; empty where they can."""
    if not name.strip():
        return "is empty"
    if len(name) > longest:
        return f"has {len(name)} characters; at most {longest} fit"
    if not name.isprintable() or not UNSEEN.isdisjoint(name):
        return "has a line break, or a character that is not seen"
    if name != name.strip() or "  " in name:
        return "has a space too many"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode's composed form (NFC)"
    if not any(unicodedata.category(char)[0] in "LN" for char in name):
        return "has neither a letter nor a digit"
    return "has combining marks without a letter, or too many on one" if _piled(name) else ""


def escaped(text: str) -> str:
    """The text on one line with everything unseen written out, such as \\u202e; never shortened."""
    shown, marks = [], 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char)[0] == "M" else 0
        seen = char.isprintable() and char not in UNSEEN and marks <= _MOST_MARKS
        shown.append(char if seen and char != "\\" else _written_out(char))
    return "".join(shown)


def _written_out(char: str) -> str:
    if char == "\\":
        return "\\\\"
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _piled(name: str) -> bool:
    marks, bare = 0, True
    for char in name:
        kind = unicodedata.category(char)[0]
        marks = marks + 1 if kind == "M" else 0
        if marks > _MOST_MARKS or (marks and bare):
            return True
        bare = kind not in "LM"
    return False
