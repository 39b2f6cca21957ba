"""Quality and production: specifications with their source, tests against them, batches from lots, step by step."""

from __future__ import annotations

import numpy
import pyarrow
import pyarrow.compute

from connexon_node.data.synthetic import bank
from connexon_node.data.synthetic.differentiation import day_numbers
from connexon_node.data.synthetic.tables import Center, Integers, days, numbered, picked, present

compute = pyarrow.compute

SPECIFICATIONS = {
    "BANK": ("Master bank", "MCB", "research", "ISCBI2009"),
    "DA": ("Product", "SIM-DA", "clinical", "Kyoto2020"),
}
ITEMS = (
    ("BANK", "viability", "dye_exclusion", ">=", 60.0, None, "%", "release", 88.0, 8.0),
    ("BANK", "TRA-1-60", "flow_cytometry", ">=", 70.0, None, "%", "release", 93.0, 5.0),
    ("BANK", "mycoplasma", "qPCR", "negative", None, None, "", "release", 0.0, 0.0),
    ("DA", "viability", "dye_exclusion", ">=", 90.0, None, "%", "release", 97.5, 1.6),
    ("DA", "CORIN", "flow_cytometry", ">=", 90.0, None, "%", "release", 93.2, 2.1),
    ("DA", "TRA-1-60", "flow_cytometry", "<=", None, 1.0, "%", "release", 0.2, 0.2),
    ("DA", "endotoxin", "LAL", "<=", None, 1.0, "[EU]/mL", "release", 0.3, 0.2),
    ("DA", "FOXA2", "immunocytochemistry", ">=", 80.0, None, "%", "reference", 92.3, 4.0),
)
"""Specification, attribute, method, operator, low, high, unit, role; then mean and spread of simulated results.

After the ISCBI consensus (2009) and doi 10.1038/s41467-020-17165-w, table 1.
"""
STEPS = (
    ("thaw", "viability", 90.0, 70.0, 100.0, "%"),
    ("expansion", "temperature", 37.0, 36.5, 37.5, "Cel"),
    ("differentiation", "temperature", 37.0, 36.5, 37.5, "Cel"),
    ("formulation", "concentration", 5.0, 4.0, 6.0, "10*6/mL"),
    ("fill", "volume", 1.0, 0.9, 1.1, "mL"),
    ("cryopreserve", "cooling_rate", -1.0, -1.5, -0.5, "Cel/min"),
    ("distribution", "temperature", -170.0, -196.0, -150.0, "Cel"),
)
MATERIALS = (("medium", "L"), ("laminin", "mg"), ("growth_factor", "ug"), ("cryoprotectant", "mL"))


def specifications(center: Center) -> tuple[pyarrow.Table, pyarrow.Table]:
    """The specifications and their items."""
    names = list(SPECIFICATIONS)
    table = pyarrow.table(
        {
            "id": [f"{center.prefix}-SPEC-{name}" for name in names],
            "name": [f"{SPECIFICATIONS[name][0]} (simulated)" for name in names],
            "version": ["1"] * len(names),
            "applies_to": [SPECIFICATIONS[name][1] for name in names],
            "grade": [SPECIFICATIONS[name][2] for name in names],
            "source": [SPECIFICATIONS[name][3] for name in names],
            "effective_on": days(numpy.zeros(len(names), dtype=int)),
        }
    )
    columns = ("attribute", "method", "operator", "low", "high", "unit", "role")
    items = pyarrow.table(
        {
            "id": [f"{center.prefix}-ITEM-{number}" for number in range(len(ITEMS))],
            "specification_id": [f"{center.prefix}-SPEC-{one[0]}" for one in ITEMS],
            **{
                name: pyarrow.array([one[place] if one[place] != "" else None for one in ITEMS])
                for place, name in enumerate(columns, start=1)
            },
        }
    )
    return table, items


def batches(center: Center, lots: pyarrow.Table) -> tuple[pyarrow.Table, Integers]:
    """Batches of one in twelve working lots and of the first lot at least; and the place of each one's lot."""
    random = center.random
    lot = numpy.flatnonzero(random.random(lots.num_rows) < 1 / 12) if lots.num_rows else numpy.zeros(0, dtype=int)
    if lots.num_rows and not len(lot):
        lot = numpy.zeros(1, dtype=int)
    count = len(lot)
    begun = day_numbers(lots["frozen_on"])[lot] + random.integers(20, 300, size=count)
    state = random.choice(3, size=count, p=[0.85, 0.1, 0.05])
    released = (state == 0) & (random.random(count) < 0.9)
    recipe = bank.protocol_ids(center, "manufacture")
    table = pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-X", numpy.arange(1, count + 1), 5),
            "product_code": pyarrow.array(["SIM-DA"] * count, pyarrow.string()),
            "protocol_id": picked(recipe, numpy.zeros(count, dtype=int)),
            "input_lot_id": lots["id"].combine_chunks().take(pyarrow.array(lot)),
            "started_on": days(begun),
            "state": picked(["completed", "running", "aborted"], state),
            "release_verdict": picked(
                ["pending", "released", "rejected"], numpy.where(state == 1, 0, numpy.where(released, 1, 2))
            ),
            "released_by": present(numbered("QP-", random.integers(1, 4, size=count), 2), released),
            "released_on": present(days(begun + 90), released),
        }
    )
    return table, lot


def batch_steps(center: Center, batch_table: pyarrow.Table) -> pyarrow.Table:
    """Seven steps of each batch; what was reached lies close to the target."""
    random, count = center.random, batch_table.num_rows * len(STEPS)
    batch, step = numpy.divmod(numpy.arange(count), len(STEPS))
    target, low, high = (numpy.array([one[place] for one in STEPS])[step] for place in (2, 3, 4))
    begun = day_numbers(batch_table["started_on"])[batch] + step * 10
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-Z", numpy.arange(1, count + 1)),
            "batch_id": batch_table["id"].combine_chunks().take(pyarrow.array(batch)),
            "seq": pyarrow.array(step + 1),
            "procedure": picked([one[0] for one in STEPS], step),
            "equipment_id": numbered("EQ-", random.integers(1, 12, size=count), 2),
            "param": picked([one[1] for one in STEPS], step),
            "target": pyarrow.array(target),
            "low": pyarrow.array(low),
            "high": pyarrow.array(high),
            "actual": pyarrow.array((target + random.normal(0, 1, size=count) * (high - low) / 7).round(3)),
            "unit": picked([one[5] for one in STEPS], step),
            "started_on": days(begun),
            "ended_on": days(begun + random.integers(0, 9, size=count)),
            "performed_by": numbered("OP-", random.integers(1, 9, size=count), 2),
            "verified_by": numbered("QA-", random.integers(1, 4, size=count), 2),
        }
    )


def materials(center: Center, batch_table: pyarrow.Table) -> pyarrow.Table:
    """Four materials of each batch."""
    count = batch_table.num_rows * len(MATERIALS)
    batch, which = numpy.divmod(numpy.arange(count), len(MATERIALS))
    return pyarrow.table(
        {
            "batch_id": batch_table["id"].combine_chunks().take(pyarrow.array(batch)),
            "material": picked([one[0] for one in MATERIALS], which),
            "material_lot": numbered("ML-", center.random.integers(1, 60, size=count), 4),
            "qty": pyarrow.array(center.random.gamma(4, 2, size=count).round(2)),
            "unit": picked([one[1] for one in MATERIALS], which),
        }
    )


def quality_tests(center: Center, lots: pyarrow.Table, batch_table: pyarrow.Table) -> pyarrow.Table:
    """Every item tested on each batch, and on the master banks; the verdict follows from the limits."""
    random = center.random
    masters = numpy.flatnonzero(compute.equal(lots["bank_level"], "MCB").to_numpy(zero_copy_only=False))
    of_bank = [number for number, one in enumerate(ITEMS) if one[0] == "BANK"]
    of_product = [number for number, one in enumerate(ITEMS) if one[0] == "DA"]
    item = numpy.concatenate([numpy.tile(of_bank, len(masters)), numpy.tile(of_product, batch_table.num_rows)]).astype(
        int
    )
    count, in_bank = len(item), len(masters) * len(of_bank)
    subjects = pyarrow.concat_arrays(
        [
            lots["id"].combine_chunks().take(pyarrow.array(numpy.repeat(masters, len(of_bank)))),
            batch_table["id"]
            .combine_chunks()
            .take(pyarrow.array(numpy.repeat(numpy.arange(batch_table.num_rows), len(of_product)))),
        ]
    )
    value = random.normal(*(numpy.array([one[place] for one in ITEMS])[item] for place in (8, 9))).clip(0).round(2)
    low = numpy.array([-numpy.inf if one[4] is None else one[4] for one in ITEMS])[item]
    high = numpy.array([numpy.inf if one[5] is None else one[5] for one in ITEMS])[item]
    measured = numpy.array([one[3] != "negative" for one in ITEMS])[item]
    clean = random.random(count) < 0.99
    passed = numpy.where(measured, (value >= low) & (value <= high), clean)
    bank_rows = numpy.arange(count) < in_bank
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-Q", numpy.arange(1, count + 1)),
            "lot_id": present(subjects, bank_rows),
            "batch_id": present(subjects, ~bank_rows),
            "specification_item_id": picked([f"{center.prefix}-ITEM-{number}" for number in range(len(ITEMS))], item),
            "attribute": picked([one[1] for one in ITEMS], item),
            "method": picked([one[2] for one in ITEMS], item),
            "value_num": present(pyarrow.array(numpy.where(measured, value, 0.0)), measured),
            "value_text": present(picked(["positive", "negative"], clean.astype(int)), ~measured),
            "unit": picked([one[6] for one in ITEMS], item),
            "lab_center_id": pyarrow.array([center.prefix] * count, pyarrow.string()),
            "instrument": numbered("IN-", random.integers(1, 5, size=count), 2),
            "analyst_code": numbered("AN-", random.integers(1, 7, size=count), 2),
            "verdict": picked(["fail", "pass"], passed.astype(int)),
        }
    )


def control_runs(center: Center) -> pyarrow.Table:
    """Sixty runs of two levels of one assay."""
    count = 120
    level = numpy.arange(count) % 2
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-CR", numpy.arange(1, count + 1), 4),
            "assay": pyarrow.array(["viability"] * count, pyarrow.string()),
            "level": picked(["low", "high"], level),
            "value": pyarrow.array((center.random.normal(numpy.where(level, 90.0, 40.0), 1.5)).round(2)),
            "unit": pyarrow.array(["%"] * count, pyarrow.string()),
            "run_no": pyarrow.array(numpy.arange(count) // 2 + 1),
            "measured_on": days(numpy.arange(count) // 2 * 7 + 3_000),
        }
    )


def proficiency(center: Center) -> tuple[pyarrow.Table, pyarrow.Table]:
    """Three rounds, the same at every center, and the center's result in each."""
    rounds = pyarrow.table(
        {
            "id": [f"SIM-ROUND-{number}" for number in (1, 2, 3)],
            "assay": ["viability", "TRA-1-60", "endotoxin"],
            "item": ["A", "B", "C"],
            "assigned_value": [85.0, 92.0, 0.5],
            "sigma_pt": [3.0, 2.0, 0.05],
            "unit": ["%", "%", "[EU]/mL"],
        }
    )
    values = center.random.normal([85.0, 92.0, 0.5], [3.0, 2.0, 0.05]).round(3)
    results = pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-PT", numpy.arange(1, 4), 2),
            "round_id": rounds["id"],
            "value": pyarrow.array(values),
            "u": [1.0, 0.8, 0.02],
        }
    )
    return rounds, results


def deviations(center: Center, batch_table: pyarrow.Table) -> pyarrow.Table:
    """One of five batches has a deviation."""
    random = center.random
    batch = numpy.flatnonzero(random.random(batch_table.num_rows) < 0.2)
    count = len(batch)
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-DV", numpy.arange(1, count + 1), 4),
            "batch_id": batch_table["id"].combine_chunks().take(pyarrow.array(batch)),
            "severity": center.chosen({"minor": 0.75, "major": 0.2, "critical": 0.05}, count),
            "description": pyarrow.array(["Simulated deviation"] * count, pyarrow.string()),
            "closed_on": days(day_numbers(batch_table["started_on"])[batch] + 120),
        }
    )


def shipments(center: Center, lots: pyarrow.Table, batch_table: pyarrow.Table) -> pyarrow.Table:
    """One lot in ten and one batch in two were sent, each with the record of its temperature."""
    random = center.random
    lot = numpy.flatnonzero(random.random(lots.num_rows) < 0.1)
    batch = numpy.flatnonzero(random.random(batch_table.num_rows) < 0.5)
    count, of_lot = len(lot) + len(batch), numpy.arange(len(lot) + len(batch)) < len(lot)
    sent = pyarrow.concat_arrays(
        [
            lots["id"].combine_chunks().take(pyarrow.array(lot)),
            batch_table["id"].combine_chunks().take(pyarrow.array(batch)),
        ]
    )
    packed = random.integers(3_000, 4_500, size=count)
    coldest = random.normal(-178, 4, size=count)
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-SH", numpy.arange(1, count + 1), 5),
            "lot_id": present(sent, of_lot),
            "batch_id": present(sent, ~of_lot),
            "vials": pyarrow.array(random.integers(1, 12, size=count)),
            "from_center": pyarrow.array([center.prefix] * count, pyarrow.string()),
            "to_center": center.chosen({"SIM-KYOTO": 0.4, "SIM-LYON": 0.3, "SIM-BOSTON": 0.3}, count),
            "packed_on": days(packed),
            "received_on": days(packed + random.integers(1, 6, size=count)),
            "temp_min_cel": pyarrow.array(coldest.round(1)),
            "temp_max_cel": pyarrow.array((coldest + random.gamma(2, 6, size=count)).round(1)),
            "excursion_min": pyarrow.array(
                numpy.where(random.random(count) < 0.05, random.integers(5, 90, count), 0.0)
            ),
            "condition": center.chosen({"good": 0.95, "doubtful": 0.04, "damaged": 0.01}, count),
        }
    )
