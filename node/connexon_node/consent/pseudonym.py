"""Donor ids typed by hand, validated by the rules for imported files."""

from __future__ import annotations

import re

from connexon.errors import InvalidQuery
from connexon_node.data.dictionary.patterns import NO_PSEUDONYM, PSEUDONYM


def require_pseudonym(donor: str) -> None:
    """Raise InvalidQuery for an id that has not the form of one, or that tells of a person."""
    if not re.fullmatch(PSEUDONYM.pattern, donor):
        raise InvalidQuery(f"{donor!r} is no donor's id: it must be {PSEUDONYM.what}.", code="consent.donor_id")
    kind = next((kind for kind, pattern in NO_PSEUDONYM if re.fullmatch(pattern, donor)), None)
    if kind is not None:
        raise InvalidQuery(
            f"{donor!r} looks like {kind}. Give every person a pseudonym that tells nothing of them, such as D-0001.",
            code="consent.donor_id",
        )
