"""An index of ontology terms that finds them by the words that people use: label, synonym, id, or a misspelling.

One SQLite file, so that a command that starts anew need not read sixty thousand terms to find one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from connexon.errors import Misconfigured
from connexon.ontology.named import NamedTerm, normal

_SCHEMA = """
create table if not exists term (id text primary key, label text not null, source text not null) without rowid;
create table if not exists name (number integer primary key, key text not null, text text not null, term text not null,
                                 label integer not null);
create index if not exists name_key on name (key);
create index if not exists name_term on name (term);
create table if not exists word (word text not null, name integer not null, primary key (word, name)) without rowid;
create table if not exists spelling (word text primary key) without rowid;
create table if not exists source (name text primary key, version text not null, rank integer not null);
"""
_VERSION = 1
_MOST_NAMES = 2_000
"""Names looked at for one search; words that more have are too common to find anything."""
_CLOSE = 0.72
"""From which similarity on a word is taken for a misspelling of another."""
_CANDIDATES = 40


@dataclass(frozen=True)
class Hit:
    """A term that was found, by which of its names, and whether only by a misspelling of it."""

    id: str
    label: str
    name: str
    misspelt: bool = False


class TermIndex:
    """The terms known on this machine. What an ontology's own file says goes before what centers tell."""

    def __init__(self, path: Path) -> None:
        """Nothing is read or made before it is asked for."""
        self._path = path

    def add(self, terms: Iterable[NamedTerm], *, source: str, version: str, own: bool) -> int:
        """Put terms in, in place of what the same source brought before; returns how many.

        `own`: from the ontology's own file; then they go before those that are not.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._open() as database, database:
            rank = 1 if own else 0
            _forget(database, source)
            database.execute("insert into source values (?, ?, ?)", (source, version, rank))
            ranks = dict(database.execute("select term.id, rank from term join source on source.name = term.source"))
            added = 0
            for term in terms:
                if not term.label or ranks.get(term.id, -1) > rank:
                    continue
                if term.id in ranks:
                    _forget_terms(database, [term.id])
                ranks[term.id] = rank
                _put(database, term, source)
                added += 1
        return added

    def version(self, source: str) -> str:
        """The version that a source had; empty where there is none."""
        return self.sources.get(source, "")

    @property
    def sources(self) -> dict[str, str]:
        """What the terms come from, with versions."""
        if not self._path.exists():
            return {}
        with self._open() as database:
            return dict(database.execute("select name, version from source order by name"))

    def __len__(self) -> int:
        if not self._path.exists():
            return 0
        with self._open() as database:
            return int(database.execute("select count(*) from term").fetchone()[0])

    def labels(self, terms: Iterable[str]) -> dict[str, str]:
        """The labels of those of the terms that are known."""
        wanted = sorted(set(terms))
        if not wanted or not self._path.exists():
            return {}
        found: dict[str, str] = {}
        with self._open() as database:
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                found.update(database.execute(f"select id, label from term where id in ({marks})", part))  # noqa: S608 - question marks only
        return found

    def called(self, name: str) -> list[Hit]:
        """The terms that have exactly this name, whatever its letter case; those whose label it is come first."""
        if not self._path.exists() or not (key := normal(name)):
            return []
        with self._open() as database:
            rows = database.execute(
                "select term.id, term.label, text from name join term on term.id = name.term where key = ? "
                "order by name.label desc, term.id",
                (key,),
            )
            hits = [Hit(*row) for row in rows]
        return list({hit.id: hit for hit in reversed(hits)}.values())[::-1]

    def find(self, text: str, *, limit: int = 20) -> list[Hit]:
        """Terms by words of their names, the best first; where a word is in none, by the words most like it."""
        words = normal(text).split()
        if not words or not self._path.exists():
            return []
        with self._open() as database:
            known = database.execute("select id, label from term where id = ?", (text.strip(),)).fetchone()
            if known is not None:
                return [Hit(known[0], known[1], known[1])]
            meant = [[word] if _has(database, word) else _like(database, word) for word in words]
            misspelt = any(word not in found for word, found in zip(words, meant, strict=True))
            aimed = normal(text)
            exact = database.execute("select number from name where key = ? limit ?", (aimed, _MOST_NAMES))
            names = [row[0] for row in exact] + _with_words(database, meant)
            rows = _names(database, names)
        ranked = sorted(rows, key=lambda row: _rank(aimed, row))
        best: dict[str, Hit] = {}
        for _, shown, term, label, _ in ranked:
            best.setdefault(term, Hit(term, label, shown, misspelt))
        return list(best.values())[:limit]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=10)) as database:
                if database.execute("pragma user_version").fetchone()[0] != _VERSION:
                    database.executescript(_SCHEMA + f"pragma user_version = {_VERSION};")
                yield database
        except sqlite3.DatabaseError as error:
            raise Misconfigured(
                f"The terms kept in {self._path} cannot be read; remove the file, and they are fetched again.",
                code="terms.unreadable",
            ) from error


_Row = tuple[str, str, str, str, int]
"""Key, text, term, the term's label, and whether the text is the label."""


def _put(database: sqlite3.Connection, term: NamedTerm, source: str) -> None:
    database.execute("insert or replace into term values (?, ?, ?)", (term.id, term.label, source))
    for place, text in enumerate(dict.fromkeys((term.label, *term.synonyms))):
        key = normal(text)
        cursor = database.execute(
            "insert into name (key, text, term, label) values (?, ?, ?, ?)", (key, text, term.id, place == 0)
        )
        number = cursor.lastrowid
        words = set(key.split())
        database.executemany("insert or ignore into word values (?, ?)", [(word, number) for word in words])
        database.executemany("insert or ignore into spelling values (?)", [(word,) for word in words])


def _forget(database: sqlite3.Connection, source: str) -> None:
    _forget_terms(database, [row[0] for row in database.execute("select id from term where source = ?", (source,))])
    database.execute("delete from source where name = ?", (source,))


def _forget_terms(database: sqlite3.Connection, terms: list[str]) -> None:
    for term in terms:
        for number, key in database.execute("select number, key from name where term = ?", (term,)).fetchall():
            gone = [(word, number) for word in key.split()]
            database.executemany("delete from word where word = ? and name = ?", gone)
        database.execute("delete from name where term = ?", (term,))
        database.execute("delete from term where id = ?", (term,))


def _has(database: sqlite3.Connection, word: str) -> bool:
    return (
        database.execute("select 1 from word where word >= ? and word < ? limit 1", _range(word)).fetchone() is not None
    )


def _range(word: str) -> tuple[str, str]:
    return word, word + "\U0010ffff"


def _with_words(database: sqlite3.Connection, meant: list[list[str]]) -> list[int]:
    """The names that have, for each group of words, one that begins so."""
    found: set[int] | None = None
    for words in sorted(meant, key=lambda group: -max(map(len, group), default=0)):
        having: set[int] = set()
        for word in words:
            rows = database.execute("select name from word where word >= ? and word < ?", _range(word))
            having.update(row[0] for row in rows)
        found = having if found is None else found & having
        if not found:
            return []
    return sorted(found or ())[:_MOST_NAMES]


def _names(database: sqlite3.Connection, numbers: list[int]) -> list[_Row]:
    rows: list[_Row] = []
    for start in range(0, len(numbers), 500):
        part = numbers[start : start + 500]
        marks = ",".join("?" * len(part))
        query = f"select key, text, term.id, term.label, name.label from name join term on term.id = name.term where number in ({marks})"  # noqa: S608, E501 - question marks only
        rows += database.execute(query, part)
    return rows


def _rank(aimed: str, row: _Row) -> tuple[bool, bool, int, bool, str]:
    key = row[0]
    return (key != aimed, not key.startswith(aimed), len(key), not row[4], row[2])


def _like(database: sqlite3.Connection, word: str) -> list[str]:
    """The words most like a misspelt one: of about its length, with most of its pairs of letters."""
    pairs = _pairs(word)
    rows = database.execute(
        "select word from spelling where length(word) between ? and ?", (len(word) - 2, len(word) + 2)
    )
    shared: list[tuple[float, str]] = []
    for (known,) in rows:
        other = _pairs(known)
        common = len(pairs & other)
        if 2 * common >= len(pairs) - 2 and common:
            shared.append((2 * common / (len(pairs) + len(other)), known))
    best = [known for _, known in sorted(shared, reverse=True)[:_CANDIDATES]]
    scored = [(SequenceMatcher(None, word, known).ratio(), known) for known in best]
    return [known for score, known in sorted(scored, reverse=True)[:3] if score >= _CLOSE]


def _pairs(word: str) -> set[str]:
    framed = f"^{word}$"
    return {framed[place : place + 2] for place in range(len(framed) - 1)}
