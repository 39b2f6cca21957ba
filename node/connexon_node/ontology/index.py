"""The compiled index: one file of flat arrays that is mapped into memory and not read.

Terms are numbered in the order of their sorted ids. For each, all its ancestors and all its descendants, itself
included, stand ready as a slice (compressed sparse rows): the closure of MONDO takes about a megabyte.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.errors import InvalidQuery, Misconfigured
from connexon.ontology.source import Source, Term

_MAGIC = b"CNXONT03"
_PREAMBLE = 16
_ALIGN = 64


class Index:
    """An opened index. Thread-safe: nothing in it changes."""

    def __init__(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.versions: dict[str, str] = header["versions"]
        self.files: dict[str, list[Any]] = header["files"]
        self._arrays = arrays
        self._ids = arrays["ids"]
        self._names = b"\n".join(self._ids.tolist()).decode().split("\n")
        self.ancestors = lru_cache(maxsize=4096)(self._ancestors)
        self.descendants = lru_cache(maxsize=1024)(self._descendants)
        self.former = lru_cache(maxsize=128)(self._former)

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, term: str) -> int | None:
        """The number of the current term that `term` stands for; None where it is unknown.

        Raises InvalidQuery for an obsolete term that nothing replaced.
        """
        if not term.isascii():
            return None
        wanted = term.encode()
        place = int(numpy.searchsorted(self._ids, wanted))
        if place == len(self._ids) or self._ids[place] != wanted:
            return None
        current = int(self._arrays["current"][place])
        if current < 0:
            raise InvalidQuery(
                f"{term} ({self.label(place)}) is obsolete and nothing replaced it.", code="ontology.obsolete_term"
            )
        return current

    def id(self, number: int) -> str:
        """The id of a term's number."""
        return self._names[number]

    def label(self, number: int) -> str:
        """The label of a term's number; empty where the files gave none."""
        start, end = self._arrays["label_at"][number : number + 2]
        return bytes(self._arrays["labels"][start:end]).decode()

    def synonyms(self, number: int) -> tuple[str, ...]:
        """The exact synonyms of a term's number."""
        start, end = self._arrays["synonym_at"][number : number + 2]
        return tuple(bytes(self._arrays["synonyms"][start:end]).decode().splitlines())

    def of(self, prefix: str) -> tuple[str, ...]:
        """The ids of one ontology that stand for themselves."""
        current = self._arrays["current"]
        named = (place for place, term in enumerate(self._names) if term.startswith(f"{prefix}:"))
        return tuple(self._names[place] for place in named if current[place] == place)

    def labels(self) -> Iterator[tuple[str, str]]:
        """Every current term that has a label, with it."""
        whole, at = self._arrays["labels"].tobytes(), self._arrays["label_at"].tolist()
        current = self._arrays["current"].tolist()
        for place, name in enumerate(self._names):
            if current[place] == place and at[place] < at[place + 1]:
                yield name, whole[at[place] : at[place + 1]].decode()

    def _ancestors(self, number: int) -> frozenset[str]:
        return self._closure("up", number)

    def _descendants(self, number: int) -> frozenset[str]:
        return self._closure("down", number)

    def _former(self, ids: frozenset[str]) -> Mapping[str, frozenset[str]]:
        replaced: dict[str, set[str]] = {}
        for term in ids:
            # An obsolete term that nothing replaced stands for itself.
            with suppress(InvalidQuery):
                number = self.find(term)
                if number is not None and self.id(number) != term:
                    replaced.setdefault(self.id(number), set()).add(term)
        return {current: frozenset(terms) for current, terms in replaced.items()}

    def _closure(self, direction: str, number: int) -> frozenset[str]:
        start, end = self._arrays[f"{direction}_at"][number : number + 2]
        return frozenset(map(self._names.__getitem__, self._arrays[direction][start:end].tolist()))


def compile_index(sources: Sequence[Source], files: Mapping[str, list[Any]], path: Path) -> None:
    """Merge the sources, whatever their order, and write the index. Raises Misconfigured on a cycle."""
    terms = _merge(sources)
    ids = sorted(terms)
    number = {term_id: place for place, term_id in enumerate(ids)}
    current = _currents(terms, number)
    up = _closures(ids, terms, number, current)
    down: list[list[int]] = [[] for _ in ids]
    for place, above in enumerate(up):
        for ancestor in above:
            down[ancestor].append(place)
    labels = [terms[term_id].label.encode() for term_id in ids]
    up_at, up_flat = _rows(up)
    down_at, down_flat = _rows(down)
    synonyms = ["\n".join(sorted(terms[term_id].synonyms)).encode() for term_id in ids]
    arrays = {
        "ids": numpy.array([term_id.encode() for term_id in ids], dtype=numpy.bytes_),
        "current": numpy.array(current, dtype=numpy.int32),
        "up_at": up_at,
        "up": up_flat,
        "down_at": down_at,
        "down": down_flat,
        "label_at": _starts(labels),
        "labels": numpy.frombuffer(b"".join(labels), dtype=numpy.uint8),
        "synonym_at": _starts(synonyms),
        "synonyms": numpy.frombuffer(b"".join(synonyms), dtype=numpy.uint8),
    }
    _write(path, {"versions": _versions(sources), "files": dict(files)}, arrays)


def open_index(path: Path) -> Index | None:
    """Map an index into memory; None where there is none, or none of this version."""
    try:
        with path.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    if mapped[: len(_MAGIC)] != _MAGIC:
        return None
    size = int.from_bytes(mapped[len(_MAGIC) : _PREAMBLE], "little")
    try:
        header = json.loads(mapped[_PREAMBLE : _PREAMBLE + size])
        start = _aligned(_PREAMBLE + size)
        arrays = {
            name: numpy.frombuffer(mapped, dtype=dtype, count=count, offset=start + offset)
            for name, dtype, count, offset in header["arrays"]
        }
        return Index(header, arrays)
    except (ValueError, KeyError, TypeError):
        return None  # cut short or damaged: it is made anew


def _merge(sources: Sequence[Source]) -> dict[str, Term]:
    """Every term of every source. Where they disagree, the file of the term's own ontology has the word."""
    merged: dict[str, Term] = {}
    own = {
        (source.name, term_id)
        for source in sources
        for term_id in source.terms
        if term_id.partition(":")[0] == source.prefix
    }
    for source in sorted(sources, key=lambda one: one.name):
        for term_id, term in source.terms.items():
            into = merged.setdefault(term_id, Term(obsolete=True))
            into.parents |= term.parents
            into.synonyms |= term.synonyms
            into.alternatives |= term.alternatives
            into.replaced_by |= term.replaced_by
            into.obsolete = into.obsolete and term.obsolete
            if term.label and (not into.label or (source.name, term_id) in own):
                into.label = term.label
    for source in sources:
        for term_id, term in source.terms.items():
            if (source.name, term_id) in own and term.obsolete:
                merged[term_id].obsolete = True
    mentioned = {parent for term in merged.values() for parent in term.parents}
    for term in merged.values():
        mentioned |= term.alternatives
    for term_id in mentioned - merged.keys():
        merged[term_id] = Term()
    return merged


def _currents(terms: Mapping[str, Term], number: Mapping[str, int]) -> list[int]:
    """For each term the one that counts today: itself, what replaced it, or -1."""
    stands_for = {
        alternative: term_id
        for term_id, term in sorted(terms.items())
        for alternative in term.alternatives
        if not term.obsolete
    }
    currents = []
    for term_id in number:
        seen = {term_id}
        at = term_id
        while (following := _next(terms, stands_for, at)) != at:
            if following in seen or following not in number:
                at = ""
                break
            seen.add(following)
            at = following
        currents.append(number[at] if at else -1)
    return currents


def _next(terms: Mapping[str, Term], stands_for: Mapping[str, str], term_id: str) -> str:
    term = terms[term_id]
    if term.obsolete:
        return next(iter(term.replaced_by)) if len(term.replaced_by) == 1 else stands_for.get(term_id, "")
    is_bare = not term.parents and not term.label
    return stands_for.get(term_id, term_id) if is_bare else term_id


def _closures(
    ids: Sequence[str], terms: Mapping[str, Term], number: Mapping[str, int], current: Sequence[int]
) -> list[list[int]]:
    """Each term's ancestors, itself included, sorted. Raises Misconfigured that shows the cycle."""
    parents = [sorted({current[number[parent]] for parent in terms[term_id].parents} - {-1}) for term_id in ids]
    done: list[set[int] | None] = [None] * len(ids)
    for start in range(len(ids)):
        path, on_path = [start], {start}
        while path:
            at = path[-1]
            waiting = next((parent for parent in parents[at] if done[parent] is None), None)
            if waiting is None:
                done[at] = {at}.union(*(done[parent] or () for parent in parents[at]))
                on_path.discard(path.pop())
            elif waiting in on_path:
                circle = " -> ".join(ids[place] for place in (*path[path.index(waiting) :], waiting))
                raise Misconfigured(f"The ontology's is_a goes round in a circle: {circle}.", code="ontology.cycle")
            else:
                path.append(waiting)
                on_path.add(waiting)
    return [sorted(above or ()) for above in done]


def _rows(rows: Iterable[Sequence[int]]) -> tuple[NDArray[numpy.int64], NDArray[numpy.int32]]:
    kept = list(rows)
    starts = numpy.zeros(len(kept) + 1, dtype=numpy.int64)
    numpy.cumsum([len(row) for row in kept], out=starts[1:])
    return starts, numpy.fromiter((place for row in kept for place in row), dtype=numpy.int32, count=int(starts[-1]))


def _starts(texts: Sequence[bytes]) -> NDArray[numpy.int64]:
    starts = numpy.zeros(len(texts) + 1, dtype=numpy.int64)
    numpy.cumsum([len(text) for text in texts], out=starts[1:])
    return starts


def _versions(sources: Sequence[Source]) -> dict[str, str]:
    """Prefix to version: of the ontology's own file, else of the files that bring terms of it along."""
    own: dict[str, set[str]] = {}
    brought: dict[str, set[str]] = {}
    for source in sources:
        own.setdefault(source.prefix, set()).add(source.version)
        for prefix in {term_id.partition(":")[0] for term_id in source.terms}:
            brought.setdefault(prefix, set()).add(f"as in {source.version}")
    return {prefix: " + ".join(sorted(own.get(prefix) or found)) for prefix, found in sorted(brought.items())}


def _write(path: Path, header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Magic, length of the header, header; then, from the next multiple of _ALIGN, the arrays."""
    places: list[tuple[str, str, int, int]] = []
    offset = 0
    for name, array in arrays.items():
        places.append((name, array.dtype.str, len(array), offset))
        offset += _aligned(array.nbytes)
    written = json.dumps({**header, "arrays": places}).encode()
    start = _aligned(_PREAMBLE + len(written))
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".index-")
    with os.fdopen(descriptor, "wb") as out:
        out.write(_MAGIC + len(written).to_bytes(8, "little") + written)
        for (_, _, _, at), array in zip(places, arrays.values(), strict=True):
            out.seek(start + at)
            out.write(array.tobytes())
        out.truncate(start + offset)
    Path(temporary).replace(path)


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
