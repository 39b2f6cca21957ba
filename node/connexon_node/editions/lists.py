"""The public lists behind first-ask tables, and the frame that they make. INVARIANT: nothing here has seen data."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from connexon_node.ontology import regions
from connexon_node.privacy.first_ask import Frame
from connexon_node.settings import EditionSection

_FILE = Path(__file__).with_name("lists.tsv")


def standard_frame(section: EditionSection) -> Frame:
    """The shipped frame with the network's lists, and what this center's settings add to them."""
    return Frame.standard(
        diseases=_joined(_listed("disease"), section.diseases),
        ancestries=_joined(_listed("ancestry"), section.ancestries),
        countries=regions.countries(),
    )


def listed_terms(section: EditionSection) -> tuple[str, ...]:
    """The terms on the network's lists, and on those of this center's settings."""
    return _joined(_listed("disease"), section.diseases) + _joined(_listed("ancestry"), section.ancestries)


@cache
def diseases() -> frozenset[str]:
    """The network's diseases."""
    return frozenset(_listed("disease"))


def _joined(shipped: Iterable[str], added: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*shipped, *added)))


@cache
def _listed(kind: str) -> tuple[str, ...]:
    lines = (line.split("\t") for line in _FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return tuple(term for which, term, _ in lines if which == kind)
