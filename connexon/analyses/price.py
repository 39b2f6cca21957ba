"""What an answer would cost, of any analysis that has a price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from connexon import strict
from connexon.analyses.results import ResultUnreadable
from connexon.analyses.spec import Combined, Kind, Sheet
from connexon.analyses.wire_kinds import known_kind
from connexon.errors import InvalidQuery
from connexon.identity.keys import CenterId
from connexon.v1 import answer_pb2


@dataclass(frozen=True)
class Priced:
    """What a center's answer would cost; amounts are rho of zCDP, `left` what the researcher may spend this year."""

    kind: Kind
    rho: float
    charge: float
    half_width: float
    left: float
    left_of_center: float


def read_price(wire: answer_pb2.Price) -> Priced:
    """The price that a center states. Raises ResultUnreadable."""
    try:
        # What a later version adds may change what an amount means.
        strict.refuse_unknown(wire, what="result")
    except InvalidQuery as error:
        raise ResultUnreadable(
            "The center's price holds something that cannot be read here; a newer connexon may."
        ) from error
    kind = known_kind(wire.kind)
    amounts = (wire.rho, wire.charge, wire.half_width, wire.left_of_researcher, wire.left_of_center)
    if kind is None or not all(math.isfinite(amount) and 0 <= amount < 1e9 for amount in amounts):
        raise ResultUnreadable("The center's price cannot be.")
    return Priced(kind, *amounts)


def combined_prices(results: Mapping[CenterId, Priced]) -> Combined:
    """A row for each center; nothing is added up, since each center has its own account."""
    columns = ("center", "kind", "within", "rho", "charge", "left", "left_of_center")
    prices = sorted(results.items())
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
        for name, one in prices
    )
    sheet = Sheet(
        title="",
        columns=("center", "numbers", "within ±", "price", "to pay", "left to you", "left to all"),
        rows=tuple(_price_line(name, one) for name, one in prices),
        numbers=frozenset(range(2, 7)),
    )
    if not results:
        return Combined(columns, (), (), (), ("No center has named a price.",), ())
    notes = ("Amounts are rho of zero-concentrated differential privacy, of this year. Nothing was charged.",)
    return Combined(columns, rows, (), (), notes, (sheet,), (sheet,))


def _price_line(name: CenterId, one: Priced) -> tuple[str, ...]:
    if one.kind is not Kind.PRIVATE:
        return (name, one.kind.value, "0", "0", "0", "–", "–")
    amounts = (one.rho, one.charge, one.left, one.left_of_center)
    return (name, "private", f"{one.half_width:g}", *(f"{amount:.4f}" for amount in amounts))
