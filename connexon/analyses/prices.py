"""Prices of answers: what they would cost at each center, and what is left there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from connexon.analyses.answer_bounds import ResultUnreadable
from connexon.analyses.spec import Combined, Kind, Sheet
from connexon.identity.keys import CenterId
from connexon.v1 import answer_pb2, query_pb2

KINDS = {
    query_pb2.NUMBER_KIND_PRIVATE: Kind.PRIVATE,
    query_pb2.NUMBER_KIND_GRANTED: Kind.GRANTED,
    query_pb2.NUMBER_KIND_PUBLISHED: Kind.PUBLISHED,
}


@dataclass(frozen=True)
class Priced:
    """What a center's answer would cost; amounts are rho of zCDP, `left` what the researcher may spend this year."""

    kind: Kind
    rho: float
    charge: float
    half_width: float
    left: float
    left_of_center: float


def read(wire: answer_pb2.Price) -> Priced:
    """One center's price. Raises ResultUnreadable."""
    kind = KINDS.get(wire.kind)
    amounts = (wire.rho, wire.charge, wire.half_width, wire.left_of_researcher, wire.left_of_center)
    if kind is None or not all(math.isfinite(amount) and 0 <= amount < 1e9 for amount in amounts):
        raise ResultUnreadable("The center's price cannot be.")
    return Priced(kind, *amounts)


def combined(results: Mapping[CenterId, Priced]) -> Combined:
    """A row for each center."""
    columns = ("center", "kind", "within", "rho", "charge", "left", "left_of_center")
    found = sorted(results.items())
    rows = tuple(
        {
            "center": name,
            "kind": one.kind.value,
            "within": one.half_width,
            "rho": one.rho,
            "charge": one.charge,
            "left": one.left,
            "left_of_center": one.left_of_center,
        }
        for name, one in found
    )
    sheet = Sheet(
        title="",
        columns=("center", "numbers", "within ±", "price", "to pay", "left to you", "left to all"),
        rows=tuple(_line(name, one) for name, one in found),
        numbers=frozenset(range(2, 7)),
    )
    notes = ("Amounts are rho of zero-concentrated differential privacy, of this year. Nothing was charged.",)
    return Combined(columns, rows, (), (), notes, (sheet,), (sheet,))


def _line(name: CenterId, one: Priced) -> tuple[str, ...]:
    if one.kind is not Kind.PRIVATE:
        return (name, one.kind.value, "0", "0", "0", "–", "–")
    amounts = (one.rho, one.charge, one.left, one.left_of_center)
    return (name, "private", f"{one.half_width:g}", *(f"{amount:.4f}" for amount in amounts))
