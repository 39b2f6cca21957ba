"""What one donor may contribute to an answer: a public number of records, so that noise can be as wide as one donor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

from connexon.analyses.registry import spec_of
from connexon.conditions.filters import All, Any, DescendsFrom, Filter, Has, Not, Scalar
from connexon.errors import Refused
from connexon.query.question import Question
from connexon_node.data.dictionary import DONORS, Dataset, Dictionary, relations

Donors = NDArray[numpy.int32]
Key = tuple[Scalar | None, ...]


class OtherDonors(Refused):
    """One donor's rows would decide whether another donor's are counted, so that noise as wide as one is too little."""

    code = "privacy.other_donors"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} may belong to another donor than the row that is counted. Noise that hides a single donor would "
            "not hide that one, so differential privacy cannot be given to this question."
        )


def bounded_groups(keys: Sequence[Key], groups: Sequence[Donors], allowed: int) -> list[int]:
    """The distinct donors of each group, each donor in at most `allowed` groups of the table.

    INVARIANT: as in bounded_records.
    """
    donor, group, _ = _pairs(groups)
    kept = _kept(keys, donor, group, allowed)
    counts: list[int] = numpy.bincount(group[kept], minlength=len(groups)).tolist()
    return counts


def kept_groups(keys: Sequence[Key], groups: Sequence[Donors], allowed: int) -> list[NDArray[numpy.bool_]]:
    """Of each group, where each donor stands once, which of its donors count in it: each in at most `allowed` groups.

    INVARIANT: as in bounded_records.
    """
    if not groups:
        return []
    sizes = [one.size for one in groups]
    donor = numpy.concatenate(groups).astype(numpy.int64)
    kept = _kept(keys, donor, numpy.repeat(numpy.arange(len(groups)), sizes), allowed)
    return numpy.split(kept, numpy.cumsum(sizes)[:-1])


def _kept(
    keys: Sequence[Key], donor: NDArray[numpy.int64], group: NDArray[numpy.int64], allowed: int
) -> NDArray[numpy.bool_]:
    """Which lines of donor and group, each there once, count."""
    kept = numpy.ones(donor.size, dtype=bool)
    if donor.size and numpy.bincount(donor).max() > allowed:
        order = numpy.lexsort((_mixed(donor, _hashes(keys)[group]), donor))
        kept[order] = _before_within(donor[order], numpy.ones(donor.size, dtype=numpy.int64)) < allowed
    return kept


def bounded_records(keys: Sequence[Key], groups: Sequence[Donors], allowed: int) -> list[int]:
    """The records of each group, at most `allowed` of each donor over all groups together.

    INVARIANT: what is kept of a donor depends on that donor's own records and nothing else. Then a donor who comes or
    goes changes the vector of counts by that donor's records alone, at most `allowed` (Euclidean, too). Of a donor with
    more, the groups are taken in an order that a hash of donor and key gives, so that no value is favored.
    """
    donor, group, times = _pairs(groups)
    kept = times
    if times.size and (times.max() > allowed or numpy.bincount(donor, weights=times).max() > allowed):
        order = numpy.lexsort((_mixed(donor, _hashes(keys)[group]), donor))
        kept = numpy.empty_like(times)
        before = _before_within(donor[order], times[order])
        kept[order] = numpy.clip(allowed - before, 0, times[order])
    counts: list[int] = numpy.bincount(group, weights=kept, minlength=len(groups)).astype(numpy.int64).tolist()
    return counts


def _pairs(groups: Sequence[Donors]) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64], NDArray[numpy.int64]]:
    """One line for each donor and group: donor, group, and how many records that is."""
    behind = numpy.concatenate(groups) if groups else numpy.empty(0, dtype=numpy.int32)
    group = numpy.repeat(numpy.arange(len(groups)), [one.size for one in groups])
    pairs, times = numpy.unique(behind.astype(numpy.int64) * max(1, len(groups)) + group, return_counts=True)
    return pairs // max(1, len(groups)), pairs % max(1, len(groups)), times


def require_own_rows(dictionary: Dictionary, question: Question) -> None:
    """Raise OtherDonors where the question looks into rows that may be of another donor than the row counted."""
    dataset = dictionary.dataset(question.dataset)
    if not dataset.personal:
        return
    spec = spec_of(question.analysis)
    for path in spec.fields(question.analysis):
        _require_own_way(dictionary, dataset, path)
    if question.filter is not None:
        _require_own(dictionary, dataset, question.filter)
    for one in spec.lookups(question.analysis):
        # What is looked up elsewhere is found where `has` finds it.
        _require_own(dictionary, dataset, Has(one.dataset, one.filter))
        _, place, name = relations.place(dictionary, dataset, one.dataset)
        for path in one.fields:
            _require_own_way(dictionary, relations.pointing(dictionary, place, name), path)


def _require_own(dictionary: Dictionary, dataset: Dataset, node: Filter) -> None:
    match node:
        case All(filters) | Any(filters):
            for child in filters:
                _require_own(dictionary, dataset, child)
        case Not(child):
            _require_own(dictionary, dataset, child)
        case Has(path, inside):
            _require_own_way(dictionary, dataset, path)
            _, place, name = relations.place(dictionary, dataset, path)
            other = relations.pointing(dictionary, place, name)
            # Rows that find their donor through this one, or that are the donor's, are of the same donor.
            if other.personal and place.name != DONORS and not relations.leads_to(dictionary, other, place):
                raise OtherDonors(f"What of {other.name} points to {place.name}")
            if inside is not None:
                _require_own(dictionary, other, inside)
        case DescendsFrom():
            raise OtherDonors("The lines between a line and its ancestor")
        case leaf:
            _require_own_way(dictionary, dataset, leaf.field)


def _require_own_way(dictionary: Dictionary, dataset: Dataset, path: str) -> None:
    place = dataset
    for step in relations.place(dictionary, dataset, path)[0]:
        if step.target.personal and step.field is not None and step.field.name not in place.donor_through:
            raise OtherDonors(f"What {place.name}.{step.field.relation} leads to")
        place = step.target


def _before_within(donor: NDArray[numpy.int64], times: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
    """For lines sorted by donor: the records of the same donor in the lines before."""
    total = numpy.cumsum(times) - times
    first = numpy.concatenate([[True], donor[1:] != donor[:-1]])
    start: NDArray[numpy.int64] = numpy.maximum.accumulate(numpy.where(first, total, 0))
    return total - start


def _hashes(keys: Sequence[Key]) -> NDArray[numpy.uint64]:
    """A number for each key that depends on nothing but the key."""
    digests = (hashlib.sha256(repr(key).encode()).digest()[:8] for key in keys)
    return numpy.array([int.from_bytes(digest, "big") for digest in digests], dtype=numpy.uint64)


def _mixed(donor: NDArray[numpy.int64], hashes: NDArray[numpy.uint64]) -> NDArray[numpy.uint64]:
    # splitmix64 (Steele, Lea and Flood, OOPSLA 2014, doi:10.1145/2660193.2660195).
    mixed = hashes ^ (donor.astype(numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15))
    mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    last: NDArray[numpy.uint64] = mixed ^ (mixed >> numpy.uint64(31))
    return last
