"""Reading ontology files: OBO 1.4, OWL, and tab-separated is_a edges with labels. Only is_a counts as a parent."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from connexon.errors import Misconfigured

TSV_HEADER = ["subject", "subject_label", "parent", "parent_label"]
MAXIMUM_ID = 100
_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)+)"\s+EXACT\b')
"""Of OBO. Only exact synonyms mean the same: a broader one would find what was not asked for."""


@dataclass
class Term:
    """One term as a file has it. `replaced_by` empty on an obsolete term: nothing took its place."""

    label: str = ""
    synonyms: set[str] = field(default_factory=set)
    parents: set[str] = field(default_factory=set)
    alternatives: set[str] = field(default_factory=set)
    obsolete: bool = False
    replaced_by: set[str] = field(default_factory=set)


@dataclass
class Source:
    """One file's terms, the version it states (else a digest), and the prefix whose ontology it is."""

    name: str
    version: str = ""
    prefix: str = ""
    terms: dict[str, Term] = field(default_factory=dict)

    def term(self, term_id: str) -> Term:
        """The term of that id, made on first sight."""
        return self.terms.setdefault(term_id, Term())


def reader_of(path: Path) -> Callable[[Path], Source]:
    """What reads a file of that ending. Raises Misconfigured where nothing does."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise Misconfigured(
            f"{path.name} is no ontology that can be read here: its name must end with {' or '.join(READERS)}.",
            code="ontology.unknown_format",
        )
    return reader


def read(path: Path) -> Source:
    """Read an ontology file. Raises Misconfigured that names file and line."""
    reader = reader_of(path)
    try:
        source = reader(path)
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path.name} cannot be read as text: {error}", code="ontology.unreadable") from error
    if not source.terms:
        raise Misconfigured(f"{path.name} has no terms in it; see that it is the right file.", code="ontology.empty")
    if not source.version:
        source.version = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    counts = Counter(term.partition(":")[0] for term in source.terms)
    prefixes = {prefix.upper(): prefix for prefix in sorted(counts)}
    most = min(counts, key=lambda prefix: (-counts[prefix], prefix))
    source.prefix = prefixes.get(source.prefix.upper(), most)
    return source


def _read_obo(path: Path) -> Source:
    source = Source(path.name)
    stanza, term, identified = "", Term(), False
    for number, line in _lines(path):
        if line.startswith("["):
            stanza, term, identified = line, Term(), False
            continue
        tag, colon, rest = line.partition(":")
        if not colon:
            raise _wrong(path, number, "expected a tag, a colon and a value")
        value = rest.strip()
        if not stanza:
            _obo_header(source, tag, value)
        elif stanza == "[Term]" and tag == "id":
            term, identified = source.term(_term_id(path, number, value)), True
        elif stanza == "[Term]" and not identified:
            raise _wrong(path, number, "a [Term] must begin with its id")
        elif stanza == "[Term]":
            _obo_tag(path, number, term, tag, value)
    return source


def _obo_header(source: Source, tag: str, value: str) -> None:
    if tag == "data-version":
        source.version = value
    elif tag == "ontology":
        source.prefix = value.partition("/")[0]


def _obo_tag(path: Path, number: int, term: Term, tag: str, value: str) -> None:
    if tag == "name":
        term.label = value
    elif tag == "synonym":
        match = _SYNONYM.match(value)
        if match:
            term.synonyms.add(match[1].replace('\\"', '"'))
    elif tag == "is_a":
        term.parents.add(_term_id(path, number, value))
    elif tag == "alt_id":
        term.alternatives.add(_term_id(path, number, value))
    elif tag == "is_obsolete":
        term.obsolete = value.split(" ")[0] == "true"
    elif tag == "replaced_by":
        term.replaced_by.add(_term_id(path, number, value))


def _read_tsv(path: Path) -> Source:
    source = Source(path.name)
    with path.open(encoding="utf-8", newline="") as opened:
        rows = csv.reader(opened, delimiter="\t", quoting=csv.QUOTE_NONE)
        if next(rows, None) != TSV_HEADER:
            raise _wrong(path, 1, f"expected the columns {', '.join(TSV_HEADER)}")
        for number, row in enumerate(rows, start=2):
            if len(row) != len(TSV_HEADER):
                raise _wrong(path, number, f"expected {len(TSV_HEADER)} columns and found {len(row)}")
            subject, subject_label, parent, parent_label = row
            child = source.term(_term_id(path, number, subject))
            child.label = subject_label or child.label
            if parent:
                above = source.term(_term_id(path, number, parent))
                above.label = above.label or parent_label
                child.parents.add(parent)
    return source


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8") as opened:
        for number, line in enumerate(opened, start=1):
            content = line.strip()
            if content and not content.startswith("!"):
                yield number, content


def _term_id(path: Path, number: int, value: str) -> str:
    """The id before any comment ("! label") or qualifier ("{...}")."""
    term_id = value.split(" ", 1)[0].split("{", 1)[0]
    if not term_id or len(term_id) > MAXIMUM_ID or not term_id.isascii():
        raise _wrong(path, number, f"{value[:50]!r} is no term id")
    return term_id


def _wrong(path: Path, number: int, what: str) -> Misconfigured:
    return Misconfigured(f"{path.name} line {number}: {what}.", code="ontology.unreadable")


def _read_owl(path: Path) -> Source:
    from connexon.ontology.owl import read_owl

    return read_owl(path)


READERS = {".obo": _read_obo, ".tsv": _read_tsv, ".owl": _read_owl}
"""File endings that can be read."""
