"""Terms by the names that people use."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")
_GENITIVE = re.compile(r"['’]s\b")


@dataclass(frozen=True)
class NamedTerm:
    """A term with its label and the other names that mean exactly the same."""

    id: str
    label: str
    synonyms: tuple[str, ...] = ()


def normal(text: str) -> str:
    """A name without letter case, accents, punctuation and the genitive: Parkinson's disease is Parkinson disease."""
    flat = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return " ".join(_WORD.findall(_GENITIVE.sub("", flat.casefold())))
