"""The rules, each small and named. They take values and return values; control composes them."""

from __future__ import annotations

import datetime
import hmac
import itertools
from collections.abc import Iterable

from connexon.conditions.filters import Scalar
from connexon_node.data.dictionary import Dataset, Dictionary, relations
from connexon_node.pipeline.values import Cell


def enough_donors(cells: Iterable[Cell], minimum: int) -> tuple[Cell, ...]:
    """The cells that rest on at least `minimum` distinct donors; the others go, keys and all.

    A group of nobody and a group of a few are left out alike. After the threshold rule in Hundepool et al.,
    Statistical Disclosure Control (Wiley 2012), chapter 5.
    """
    return tuple(cell for cell in cells if cell.donors >= minimum)


def rounded(count: int, to: int) -> int:
    """The nearest multiple of `to`, ties upward, and never down to zero.

    A released number rests on donors, so it is at least one step: zero would say that there are none.
    """
    return max(to, (2 * count + to) // (2 * to) * to)


def in_order(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """The cells by key, missing first: an order that does not depend on the counts."""
    return tuple(sorted(cells, key=lambda cell: tuple(map(_place, cell.key))))


Domain = tuple[Scalar | None, ...] | None
"""Every value that a group's field may have, missing included; None where they are not few and fixed."""


def domains_of(by: tuple[str, ...], dataset: Dataset, dictionary: Dictionary) -> list[Domain]:
    """The domain of each field; one of another row may always be missing, since that row may be."""
    domains: list[Domain] = []
    for path in by:
        domain: Domain = relations.field_at(dictionary, dataset, path)[1].domain
        if domain is not None and "." in path and None not in domain:
            domain = (*domain, None)
        domains.append(domain)
    return domains


def all_groups_shown(cells: Iterable[Cell], domains: Iterable[Domain]) -> bool:
    """Whether the cells are every group that can be, by the dictionary alone.

    Decided from what is released and what is public: whether a group was really withheld would itself tell of a few.
    """
    domains = list(domains)
    shown = {cell.key for cell in cells}
    return all(domain is not None for domain in domains) and all(
        key in shown for key in itertools.product(*(domain or () for domain in domains))
    )


def _place(value: Scalar | None) -> tuple[int, float, str]:
    match value:
        case str():
            return (3, 0.0, value)
        case None:
            return (0, 0.0, "")
        case bool() | int() | float():
            return (1, float(value), "")
        case datetime.date():
            return (2, 0.0, value.isoformat())


def randomly_rounded(count: int, to: int, *, secret: bytes, seal: bytes) -> int:
    """The multiple of `to` below or above, at random so that the mean stays right; never down to zero.

    The draw is a keyed function of `seal`, which stands for the cohort: asking again gives the same. After random
    rounding in Hundepool et al. (2012), chapter 5; that the draw sticks, after Fraser and Wooton (UNECE 2005).
    """
    below, rest = divmod(count, to)
    drawn = int.from_bytes(hmac.digest(secret, seal, "sha256")[:8], "big") / 2**64
    return max(to, (below + (drawn * to < rest)) * to)
