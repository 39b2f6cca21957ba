"""Measuring: exact counts of donors by cell, and the one draw of noise that may leave."""

from __future__ import annotations

from collections.abc import Mapping

import numpy
from numpy.typing import NDArray

from connexon_node.privacy.first_ask.dimensions import Codes
from connexon_node.privacy.first_ask.frame import Frame, Table
from connexon_node.privacy.first_ask.plan import Plan
from connexon_node.privacy.noise import Noise

Whole = NDArray[numpy.int64]


def count(frame: Frame, table: Table, codes: Mapping[str, Codes]) -> Whole:
    """The exact numbers of donors in the table's cells; `codes` has each dimension's place of every donor.

    Raises ValueError where the dimensions are not of the same donors or a place lies outside a domain.
    """
    sizes = frame.sizes(table)
    columns = [codes[name] for name in table]
    if any(column.shape != columns[0].shape for column in columns):
        raise ValueError("every dimension needs a place for each donor")
    # Raises ValueError where a place lies outside.
    cells = numpy.ravel_multi_index(columns, sizes)
    return numpy.bincount(cells, minlength=frame.cells(table)).astype(numpy.int64).reshape(sizes)


def measure(frame: Frame, plan: Plan, codes: Mapping[str, Codes]) -> tuple[dict[Table, Whole], float]:
    """One discrete Gaussian draw of every planned table, and the rho that it cost, at most the plan's.

    What is drawn cannot be drawn again, so it has to be kept. It is signed and not clamped.
    """
    drawn, spent = {}, 0.0
    for table, sigma in plan.sigmas.items():
        exact = count(frame, table, codes)
        noise = Noise(sensitivity=1.0, rho=1 / (2 * sigma**2), whole=True)
        drawn[table] = numpy.array(noise.added(exact.ravel().tolist()), dtype=numpy.int64).reshape(exact.shape)
        spent += noise.rho
    return drawn, spent
