"""The names of terms that a catalog tells, so that researchers can ask in words.

INVARIANT: they come from ontology files and public lists alone. A term that is told because a donor has it would tell
of that donor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from connexon.errors import InvalidQuery
from connexon.v1 import answer_pb2
from connexon_node.ontology import Ontologies

SMALL = 5_000
"""An ontology with at most so many terms is told whole, as far as there is room."""
ROOM = 400_000
"""Bytes of terms in one catalog: less than half of an answer."""


class Vocabulary:
    """Tells the terms on lists, with what is above them, then those of small ontologies. Thread-safe."""

    def __init__(self, ontologies: Ontologies, lists: Callable[[], Iterable[str]]) -> None:
        """`lists` gives the terms that are public by themselves, at this center too: the lists of its tables."""
        self._ontologies = ontologies
        self._lists = lists
        self._made: tuple[dict[str, str], answer_pb2.Description] | None = None

    def describe(self, description: answer_pb2.Description) -> None:
        """Add terms and versions to a catalog."""
        versions = self._ontologies.versions
        if self._made is None or self._made[0] != versions:
            self._made = (versions, self._description(versions))
        description.MergeFrom(self._made[1])

    def _description(self, versions: dict[str, str]) -> answer_pb2.Description:
        description, room, told = answer_pb2.Description(ontologies=versions), ROOM, set[str]()
        for term in self._terms(versions):
            if term in told:
                continue
            told.add(term)
            label = self._ontologies.label(term)
            if not label:
                continue
            wire = answer_pb2.TermDescription(id=term, label=label, synonyms=self._ontologies.synonyms(term))
            room -= wire.ByteSize() + 4
            if room < 0:
                break
            description.terms.append(wire)
        return description

    def _terms(self, versions: dict[str, str]) -> Iterator[str]:
        for term in self._lists():
            try:
                yield from sorted(self._ontologies.ancestors(term))
            except InvalidQuery:
                continue  # a listed term that this center's files do not have
        for prefix in sorted(versions):
            terms = self._ontologies.terms(prefix)
            if len(terms) <= SMALL:
                yield from terms
