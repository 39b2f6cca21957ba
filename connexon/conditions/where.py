"""Conditions as text, and back: disease_term under MONDO:0005180 and not type in ('ESC', 'iPSC').

The grammar is in where.lark. Text is read into the same tree that connexon.conditions.expression builds, within
the bounds of a question; whatever is wrong is pointed at.
"""

from __future__ import annotations

import datetime
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from connexon.conditions import cost, wire_filter
from connexon.conditions.cost import MAXIMUM_SIZE
from connexon.conditions.expression import scalar, within_bounds
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
from connexon.conditions.where_errors import WhereUnreadable, explain, point_at
from connexon.conditions.where_text import to_text
from connexon.errors import InvalidQuery

if TYPE_CHECKING:
    _Base = Transformer[Token, "_Node"]
else:
    _Base = Transformer

__all__ = ["parse", "to_text"]
_OPERATORS = {operator.value: operator for operator in Operator} | {"==": Operator.EQUAL, "<>": Operator.NOT_EQUAL}
_FIELD = re.compile(rf"[a-z][a-z0-9_]{{0,63}}(\.[a-z][a-z0-9_]{{0,63}}){{0,{wire_filter.MAXIMUM_STEPS}}}\Z")
_ESCAPE = re.compile(r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|([\s\S]))|''|\"\"")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}


def parse(text: str) -> Filter:
    """Read a condition. Raises InvalidQuery: as WhereUnreadable its sentence shows the place and what was expected."""
    if len(text) > MAXIMUM_SIZE:
        raise WhereUnreadable(
            f"The condition has {len(text)} characters; at most {MAXIMUM_SIZE} are allowed.",
            code="where.too_large",
        )
    if not text.strip():
        raise WhereUnreadable("The condition is empty; leave it out to ask about every record.")
    try:
        node: _Node = _parser().parse(text)  # type: ignore[assignment]  # the embedded transformer makes nodes, not trees
    except UnexpectedInput as error:
        raise explain(text, error) from error
    except _Misplaced as error:
        raise point_at(text, error.position, error.length, error.problem) from error
    cost.require_bounded(node.filter)
    return node.filter


class _Node(NamedTuple):
    filter: Filter
    depth: int = 1
    nodes: int = 1
    inside: int = 0


class _Misplaced(Exception):
    """Something readable but wrong, with its place in the text."""

    def __init__(self, token: Token, problem: str) -> None:
        super().__init__(problem)
        self.position = token.start_pos or 0
        self.length = len(token)
        self.problem = problem


def _wrong(token: Token, problem: str) -> NoReturn:
    raise _Misplaced(token, problem)


@v_args(inline=True)
class _Builder(_Base):
    """Makes filters while the text is read, so that no depth of nesting can exhaust the stack."""

    def either(self, *nodes: _Node) -> _Node:
        return _group(Any, nodes)

    def both(self, *nodes: _Node) -> _Node:
        return _group(All, nodes)

    def negation(self, node: _Node) -> _Node:
        within_bounds(node.nodes + 1, node.depth + 1)
        return _Node(Not(node.filter), node.depth + 1, node.nodes + 1, node.inside)

    def compare(self, field: str, operator: Token, value: Scalar) -> _Node:
        return _Node(Compare(field, _OPERATORS[str(operator)], value))

    def one_of(self, field: str, *values: Scalar) -> _Node:
        if len(values) > wire_filter.MAXIMUM_VALUES:
            raise WhereUnreadable(
                f"The list for {field} holds {len(values)} values; at most {wire_filter.MAXIMUM_VALUES} are allowed.",
                code="where.too_large",
            )
        return _Node(OneOf(field, values))

    def not_one_of(self, field: str, *values: Scalar) -> _Node:
        return self.negation(self.one_of(field, *values))

    def between(self, field: str, low: Scalar, high: Scalar) -> _Node:
        return _Node(Between(field, low, high))

    def not_between(self, field: str, low: Scalar, high: Scalar) -> _Node:
        return _Node(Not(Between(field, low, high)), 2, 2)

    def under(self, field: str, term: Token) -> _Node:
        return _Node(Under(field, _term(term)))

    def not_under(self, field: str, term: Token) -> _Node:
        return _Node(Not(Under(field, _term(term))), 2, 2)

    def missing(self, field: str) -> _Node:
        return _Node(IsMissing(field))

    def not_missing(self, field: str) -> _Node:
        return _Node(Not(IsMissing(field)), 2, 2)

    def has_any(self, dataset: str) -> _Node:
        return _Node(Has(dataset), inside=1)

    def has(self, dataset: str, node: _Node) -> _Node:
        within_bounds(node.nodes + 1, node.depth + 1)
        if node.inside >= wire_filter.MAXIMUM_HAS:
            raise wire_filter.too_many_has()
        return _Node(Has(dataset, node.filter), node.depth + 1, node.nodes + 1, node.inside + 1)

    def descends_from(self, token: Token) -> _Node:
        try:
            return _Node(DescendsFrom(wire_filter.line_name(_text(token))))
        except InvalidQuery as error:
            _wrong(token, error.public)

    def name(self, token: Token) -> str:
        return _path(token, str(token))

    def quoted_name(self, token: Token) -> str:
        return _path(token, str(token[1:-1]))

    def text(self, token: Token) -> Scalar:
        return _text(token)

    def curie(self, token: Token) -> Scalar:
        return _bounded(token, str(token))

    def date(self, token: Token) -> Scalar:
        try:
            return datetime.date.fromisoformat(token)
        except ValueError:
            _wrong(token, f"There is no such day as {token}; write year-month-day.")

    def decimal(self, token: Token) -> Scalar:
        return _sendable(token, float(token))

    def integer(self, token: Token) -> Scalar:
        if len(token) > 20:
            _wrong(token, "This number is too large to send.")
        return _sendable(token, int(token))

    def true(self, _token: Token) -> Scalar:
        return True

    def false(self, _token: Token) -> Scalar:
        return False


def _group(kind: type[All] | type[Any], nodes: tuple[_Node, ...]) -> _Node:
    depth, count = max(node.depth for node in nodes) + 1, sum(node.nodes for node in nodes) + 1
    within_bounds(count, depth)
    return _Node(kind(tuple(node.filter for node in nodes)), depth, count, max(node.inside for node in nodes))


def _path(token: Token, text: str) -> str:
    if text.count(".") > wire_filter.MAXIMUM_STEPS:
        _wrong(token, f"The way to a field may lead over {wire_filter.MAXIMUM_STEPS} other rows at most.")
    if not _FIELD.match(text):
        _wrong(token, f"{text[:64]!r} is not the name of a field: they are in lower case, 64 letters at most.")
    return text


def _term(token: Token) -> str:
    term = _text(token) if token.type == "TEXT" else str(token)
    if not term.strip():
        _wrong(token, "After 'under' comes an ontology term such as 'Parkinson disease' or MONDO:0005180.")
    return term


def _text(token: Token) -> str:
    quote = token[0]

    def unescape(match: re.Match[str]) -> str:
        if match[0] in ("''", '""'):
            return quote if match[0][0] == quote else match[0]
        if match[1] is not None:
            number = int(match[1], 16)
            if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
                _wrong(token, f"\\u{{{match[1]}}} is not a character.")
            return chr(number)
        if match[2] not in _ESCAPED:
            _wrong(token, "In quotes, a backslash is written \\\\ and a quote \\' (also known: \\n, \\t, \\u{e9}).")
        return _ESCAPED[match[2]]

    return _bounded(token, _ESCAPE.sub(unescape, token[1:-1]))


def _bounded(token: Token, text: str) -> str:
    if len(text) > wire_filter.MAXIMUM_TEXT:
        _wrong(token, f"This text is longer than {wire_filter.MAXIMUM_TEXT} characters.")
    _sendable(token, text)
    return text


def _sendable(token: Token, value: Scalar) -> Scalar:
    try:
        return scalar(value, "The field")
    except InvalidQuery as error:
        _wrong(token, error.public)


@functools.cache
def _parser() -> Lark:
    grammar = Path(__file__).with_name("where.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", maybe_placeholders=False, transformer=_Builder())
