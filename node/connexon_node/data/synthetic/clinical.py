"""Clinical studies: subjects of two trials, treated with batches; everything in days from their day 0."""

from __future__ import annotations

import numpy
import pyarrow
import pyarrow.compute

from connexon_node.data.dictionary.donors import AGE_RANGES
from connexon_node.data.synthetic import frequencies
from connexon_node.data.synthetic.tables import Center, days, numbered, picked, present

compute = pyarrow.compute

TRIALS = (("NCT09000001", "1/2", "MONDO:0005180", 65), ("NCT09000002", "2", "MONDO:0043797", 40))
"""Registry number (made up), phase, indication, mean age."""
ARMS = ("treated", "control")
EVENTS = (
    ("Headache", "Nervous system disorders"),
    ("Nausea", "Gastrointestinal disorders"),
    ("Fatigue", "General disorders"),
)


def trials(center: Center) -> pyarrow.Table:
    """The two trials."""
    return pyarrow.table(
        {
            "id": [f"{center.prefix}-TR{number}" for number in range(len(TRIALS))],
            "registry_id": [one[0] for one in TRIALS],
            "phase": [one[1] for one in TRIALS],
            "indication_term": [one[2] for one in TRIALS],
            "product_code": ["SIM-DA"] * len(TRIALS),
            "arms": [";".join(ARMS)] * len(TRIALS),
        }
    )


def subjects(center: Center, count: int) -> tuple[pyarrow.Table, pyarrow.Table]:
    """`count` subjects, and their consents: nine in ten to general or health research, in the clinic too."""
    random = center.random
    trial, arm = random.integers(0, len(TRIALS), size=count), random.integers(0, 2, size=count)
    age = numpy.clip(random.normal(numpy.array([one[3] for one in TRIALS])[trial], 8), 18, 89).astype(int)
    persons = numbered(f"{center.prefix}-P", numpy.arange(1, count + 1))
    disposition = random.choice(4, size=count, p=[0.7, 0.15, 0.1, 0.05])
    table = pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-U", numpy.arange(1, count + 1)),
            "person_id": persons,
            "trial_id": picked([f"{center.prefix}-TR{number}" for number in range(len(TRIALS))], trial),
            "arm": picked(ARMS, arm),
            "age_range_y": picked(AGE_RANGES, age // 5),
            "sex": picked(["female", "male"], random.integers(0, 2, size=count)),
            "disease_term": picked([one[2] for one in TRIALS], trial),
            "disposition": picked(["completed", "ongoing", "withdrawn", "lost"], disposition),
            "last_day": pyarrow.array(random.integers(90, 730, size=count)),
        }
    )
    holders = numpy.flatnonzero(random.random(count) < 0.9)
    held = len(holders)
    consents = pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-CU", holders + 1),
            "donor_id": persons.take(pyarrow.array(holders)),
            "form_version": pyarrow.array([frequencies.FORMS[-1]] * held, pyarrow.string()),
            "obtained_on": days(random.integers(2_500, 4_000, size=held)),
            "status": pyarrow.array(["active"] * held, pyarrow.string()),
            "withdrawn_on": pyarrow.nulls(held, pyarrow.date32()),
            "scope": pyarrow.array(["both"] * held, pyarrow.string()),
            "duo_permission": center.chosen({"DUO:0000042": 0.6, "DUO:0000006": 0.4}, held),
            "modifiers": pyarrow.array([frequencies.CLINICAL_CARE] * held, pyarrow.string()),
            "ethics_body": pyarrow.array(["Simulated ethics committee"] * held, pyarrow.string()),
            "ethics_approval_no": pyarrow.array(["SIM-TRIAL"] * held, pyarrow.string()),
            "isscr_category": pyarrow.array(["2"] * held, pyarrow.string()),
        }
    )
    return table, consents


def treatments(center: Center, people: pyarrow.Table, batch_table: pyarrow.Table) -> pyarrow.Table:
    """Each treated subject is given a released batch on day 0, the others a sham."""
    random, count = center.random, people.num_rows
    released = batch_table.filter(compute.equal(batch_table["release_verdict"], "released"))["id"].combine_chunks()
    treated = compute.equal(people["arm"], "treated").to_numpy(zero_copy_only=False) & bool(len(released))
    batch = pyarrow.nulls(count, pyarrow.string())
    if len(released):
        batch = present(released.take(pyarrow.array(random.integers(0, len(released), size=count))), treated)
    return pyarrow.table(
        {
            "subject_id": people["id"],
            "batch_id": batch,
            "product_code": picked(["sham", "SIM-DA"], treated.astype(int)),
            "dose_1e6": present(pyarrow.array(random.choice([2.4, 4.8], size=count)), treated),
            "route": pyarrow.array(["intracerebral"] * count, pyarrow.string()),
            "day": pyarrow.array(numpy.zeros(count, dtype=int)),
        }
    )


def adverse_events(center: Center, people: pyarrow.Table) -> pyarrow.Table:
    """One or two events a subject, some more in the treated arm."""
    random = center.random
    treated = compute.equal(people["arm"], "treated").to_numpy(zero_copy_only=False)
    who = numpy.repeat(numpy.arange(people.num_rows), random.poisson(numpy.where(treated, 1.6, 1.1)))
    count, kind = len(who), random.integers(0, len(EVENTS), size=len(who))
    onset = random.integers(1, 300, size=count)
    grade = random.choice([1, 2, 3, 4], size=count, p=[0.55, 0.3, 0.12, 0.03])
    return pyarrow.table(
        {
            "subject_id": people["id"].combine_chunks().take(pyarrow.array(who)),
            "pt_text": picked([one[0] for one in EVENTS], kind),
            "soc": picked([one[1] for one in EVENTS], kind),
            "grade_ctcae": pyarrow.array(grade),
            "serious": pyarrow.array(grade >= 3),
            "related": center.chosen({"none": 0.6, "possible": 0.3, "probable": 0.1}, count),
            "onset_day": pyarrow.array(onset),
            "resolved_day": pyarrow.array(onset + random.integers(0, 30, size=count)),
        }
    )


def outcomes(center: Center, people: pyarrow.Table) -> pyarrow.Table:
    """A motor score at five visits; the treated improve."""
    random, visits = center.random, numpy.array([0, 90, 180, 365, 730])
    treated = compute.equal(people["arm"], "treated").to_numpy(zero_copy_only=False)
    who = numpy.repeat(numpy.arange(people.num_rows), len(visits))
    day = numpy.tile(visits, people.num_rows)
    base = random.normal(40, 8, size=people.num_rows)[who]
    value = base + day / 365 * numpy.where(treated[who], -4.0, 1.5) + random.normal(0, 2, size=len(who))
    return pyarrow.table(
        {
            "subject_id": people["id"].combine_chunks().take(pyarrow.array(who)),
            "measure": pyarrow.array(["motor_score"] * len(who), pyarrow.string()),
            "day": pyarrow.array(day),
            "value": pyarrow.array(numpy.clip(value, 0, 132).round(1)),
            "unit": pyarrow.array(["{score}"] * len(who), pyarrow.string()),
        }
    )


def survival(center: Center, people: pyarrow.Table) -> pyarrow.Table:
    """Time to progression, later in the treated arm, ended at two years."""
    random = center.random
    treated = compute.equal(people["arm"], "treated").to_numpy(zero_copy_only=False)
    time = random.exponential(numpy.where(treated, 900.0, 600.0)).round(0)
    return pyarrow.table(
        {
            "subject_id": people["id"],
            "endpoint": pyarrow.array(["progression"] * people.num_rows, pyarrow.string()),
            "time_d": pyarrow.array(numpy.minimum(time, 730.0)),
            "event": pyarrow.array(time <= 730),
        }
    )
