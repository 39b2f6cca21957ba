"""The red team on real people's data: 306 subjects of CDISC's pilot study, who failed its screening or did not."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon.conditions.filters import Not
from tests.redteam.target import Target, Unprotected, both, certain, is_, minus, told

FAILED = is_("eligibility", "ineligible")
TARGETS = 24


@pytest.fixture(scope="module")
def subjects(shared_data: Path) -> list[dict[str, object]]:
    """Subjects as donors; the site, of which the dictionary has no field, is written as a country."""
    with (shared_data / "cdisc_pilot01" / "dm.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sites = sorted({row["SITEID"] for row in rows})
    return [
        {
            "id": row["USUBJID"],
            "sex": {"F": "female", "M": "male"}[row["SEX"]],
            "age_range_y": f"{int(row['AGE']) // 5 * 5}-{int(row['AGE']) // 5 * 5 + 4}",
            "country_iso2": "S" + chr(ord("A") + sites.index(row["SITEID"])),
            "eligibility": "ineligible" if row["ARM"] == "Screen Failure" else "eligible",
        }
        for row in rows
    ]


@pytest.fixture(scope="module")
def node(subjects: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("pilot"), subjects)
    yield target
    target.center.close()


def attack(node: Target, subjects: list[dict[str, object]]) -> int:
    """How many subjects, each alone of their age, sex and site, are told from the others by leaving them out."""
    known = ("age_range_y", "sex", "country_iso2")
    alike = Counter(tuple(row[name] for name in known) for row in subjects)
    alone = [row for row in subjects if alike[tuple(row[name] for name in known)] == 1]
    failed = [row for row in alone if row["eligibility"] == "ineligible"]
    targets = (failed + [row for row in alone if row not in failed])[:TARGETS]
    everybody = node.count(FAILED)
    claims: dict[str, bool | None] = {}
    for row in targets:
        one = both(*(is_(name, str(row[name])) for name in known))
        claims[str(row["id"])] = told(minus(everybody, node.count(both(FAILED, Not(one)))))
    return certain(claims, {str(row["id"]): row["eligibility"] == "ineligible" for row in targets})


def test_nobody_of_the_pilot_study_is_told_from_the_others(node: Target, subjects: list[dict[str, object]]) -> None:
    assert attack(node.begin(), subjects) == 0
    assert attack(node.begin(release=Unprotected), subjects) == TARGETS


def test_tables_of_the_pilot_study_add_up_to_its_totals(node: Target) -> None:
    """Groups of a few are there; what the shown groups lack to the sum is never a few.

    Without a condition: one that makes a difference for a few in a group does not count there, so that a table with it
    need not add up.
    """
    node.begin()
    for fields in (("country_iso2",), ("age_range_y",), ("sex",), ("country_iso2", "eligibility")):
        total, table = node.count(None), node.table(fields, None)
        assert total is not None
        assert table
        assert not 0 < total - sum(table.values()) < 5
