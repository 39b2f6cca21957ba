"""Places: which countries there are, and the regions they lie in. See regions.tsv for what is what and its sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("regions.tsv")
_NOWHERE = "-"
_COUNTRY = re.compile(r"(?:GAZ/)?(?:ISO:)?([A-Z]{2})\Z")


def read_place(text: str) -> str | None:
    """A country or region in the one form it is compared in, such as ISO:DE or M49:150; None where it is neither.

    Also read are DE, and GAZ/ISO:DE.
    """
    match = _COUNTRY.match(text)
    place = f"ISO:{match[1]}" if match else text
    return place if place in _known() else None


@cache
def places_of(country: str) -> frozenset[str]:
    """The country (ISO 3166-1 alpha-2) as a place, and every region that it lies in."""
    place = f"ISO:{country}"
    return frozenset({place, *(region for region in _regions() if place in _countries(region))})


@cache
def countries() -> tuple[str, ...]:
    """The code of every country (ISO 3166-1 alpha-2), in order."""
    return tuple(sorted(place.removeprefix("ISO:") for place in _known() if place.startswith("ISO:")))


@cache
def _known() -> frozenset[str]:
    return frozenset(_regions()) | {place for _, members in _lines() for place in members if place.startswith("ISO:")}


@cache
def _regions() -> dict[str, tuple[str, ...]]:
    return {region: members for region, members in _lines() if region != _NOWHERE}


@cache
def _countries(region: str) -> frozenset[str]:
    found: set[str] = set()
    for member in _regions()[region]:
        found |= {member} if member.startswith("ISO:") else _countries(member)
    return frozenset(found)


def _lines() -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            region, _, members = line.split("\t")
            yield region, tuple(one if ":" in one else f"ISO:{one}" for one in members.split())
