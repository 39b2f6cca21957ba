"""What noise is added to: no donor moves it further than the price says."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.analyses.mean import STEPS
from connexon.analyses.spec import Unit
from connexon_node.analyses.spec import NoisyTable
from connexon_node.pipeline.values import CellTable, Offer, Shape, SumCell, SumTable
from connexon_node.release.measures import UnknownShape, measured

TABLE = NoisyTable(("group",), Unit.DONORS, numbers=2, range=(0.0, 80.0))
VALUES = st.floats(allow_nan=True, allow_infinity=True)
ROWS = st.dictionaries(st.tuples(st.integers(0, 5), st.integers(1, 9)), VALUES, max_size=40)


def table(rows: dict[tuple[int, int], float]) -> SumTable:
    """Values by group and donor."""
    cells = []
    for group in sorted({group for group, _ in rows}):
        own = {donor: value for (at, donor), value in rows.items() if at == group}
        donors = numpy.array(sorted(own), dtype=numpy.int32)
        cells.append(SumCell((group,), donors=donors, own=numpy.array([own[int(one)] for one in donors])))
    return SumTable("value", ("group",), tuple(cells))


@given(ROWS, st.integers(1, 9), st.integers(1, 3))
def test_one_donor_moves_few_groups_and_each_number_by_a_step_at_most(
    rows: dict[tuple[int, int], float], gone: int, contributions: int
) -> None:
    without = {place: value for place, value in rows.items() if place[1] != gone}
    one, other = (measured(table(each), TABLE, contributions).groups for each in (rows, without))
    moved = 0
    for key in one.keys() | other.keys():
        number, steps = (a - b for a, b in zip(one.get(key, (0, 0)), other.get(key, (0, 0)), strict=True))
        assert number in (0, 1)
        assert abs(steps) <= STEPS * number
        moved += number
    assert moved <= contributions


def test_values_beyond_the_range_count_as_its_ends() -> None:
    rows = {(0, 1): -5.0, (0, 2): 200.0, (0, 3): 60.0, (0, 4): float("nan")}
    assert measured(table(rows), TABLE, 1).groups == {(0,): (4, STEPS // 2)}


@pytest.mark.parametrize(
    ("shape", "of"),
    [
        (Offer(()), TABLE),
        (Shape(), TABLE),
        (table({(0, 1): 1.0}), NoisyTable(("group",), Unit.DONORS, numbers=2, range=None)),
        (SumTable("value", (), (SumCell((), records=3, total=1.0),)), TABLE),
    ],
)
def test_a_shape_without_a_form_with_noise_does_not_leave(shape: Shape, of: NoisyTable) -> None:
    with pytest.raises(UnknownShape):
        measured(shape, of, 1)
    assert measured(CellTable((), ()), of, 1).groups == {}
