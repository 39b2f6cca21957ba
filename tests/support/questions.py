"""Hypothesis strategies for everything that the question language can say."""

from __future__ import annotations

import datetime
import uuid

from hypothesis import strategies as st

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.spec import Kind, Unit
from connexon.clock import DAY
from connexon.conditions import cost
from connexon.conditions.filters import (
    All,
    Any,
    Between,
    Compare,
    DescendsFrom,
    Filter,
    Has,
    IsMissing,
    Not,
    OneOf,
    Operator,
    Scalar,
    Under,
)
from connexon.errors import InvalidQuery
from connexon.identity import keys
from connexon.query.purpose import DISEASE, TERMS
from connexon.query.question import Purpose, Question

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(".".join)
LINE_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,20}", fullmatch=True)
CENTERS = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,3})?", fullmatch=True).map(keys.center_id)
TERM_IDS = st.from_regex(r"MONDO:[0-9]{7}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SCALARS: st.SearchStrategy[Scalar] = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dates(min_value=datetime.date(1, 1, 1)),
)
LEAVES: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Compare, PATHS, st.sampled_from(Operator), SCALARS),
    st.builds(OneOf, PATHS, st.lists(SCALARS, min_size=1, max_size=4).map(tuple)),
    st.builds(Between, PATHS, SCALARS, SCALARS),
    st.builds(IsMissing, PATHS),
    st.builds(Under, PATHS, TERM_IDS),
    st.builds(Has, PATHS),
    st.builds(DescendsFrom, LINE_NAMES),
)


def _grown(children: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(children, min_size=1, max_size=3).map(tuple)
    return st.one_of(st.builds(All, several), st.builds(Any, several), st.builds(Not, children))


_PLAIN = st.recursive(LEAVES, _grown, max_leaves=8)


def is_bounded(condition: Filter | None, fields: tuple[str, ...] = ()) -> bool:
    """Whether a question may ask that much."""
    try:
        cost.require_bounded(condition, fields)
    except InvalidQuery:
        return False
    return True


FILTERS = st.recursive(
    st.one_of(LEAVES, st.builds(Has, PATHS, _PLAIN), st.builds(Has, PATHS, st.builds(Has, PATHS, _PLAIN))),
    _grown,
    max_leaves=12,
).filter(is_bounded)
LINES = st.text(st.characters(categories=["L", "N", "P"]), max_size=40).filter(str.isprintable)


@st.composite
def purposes(draw: st.DrawFn) -> Purpose:
    """A whole purpose: disease research always names its disease."""
    research = tuple(draw(st.lists(st.sampled_from(sorted(TERMS)), min_size=1, max_size=4, unique=True)))
    disease = draw(TERM_IDS) if DISEASE in research else draw(st.sampled_from(["", "MONDO:0005180"]))
    return Purpose(research, disease, draw(st.booleans()), draw(LINES), draw(LINES))


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Any question that may be asked."""
    describe = draw(st.booleans())
    issued = draw(st.integers(1, 4_000_000_000_000))
    condition = None if describe else draw(st.one_of(st.none(), FILTERS))
    by = tuple(draw(st.lists(PATHS, max_size=4, unique=True)))
    while not is_bounded(condition, by):
        by = by[:-1]
    return Question(
        query_id=str(uuid.UUID(int=draw(st.integers(0, 2**128 - 1)))),
        federation=draw(CENTERS),
        centers=tuple(sorted(draw(st.sets(CENTERS, min_size=1, max_size=5)))),
        issued_at_ms=issued,
        expires_at_ms=issued + draw(st.integers(1, 40 * DAY)),
        purpose=draw(purposes()),
        dataset=draw(st.one_of(st.just(""), NAMES)) if describe else draw(NAMES),
        filter=condition,
        analysis=Describe() if describe else Count(by, draw(st.sampled_from(Unit)), draw(st.sampled_from(Kind))),
        within=None if describe else draw(st.one_of(st.none(), st.integers(1, 1000))),
        price_only=not describe and draw(st.booleans()),
    )
