"""A disease under its former ids selects the same donors, so it must not be another line of the account for each id."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator

import pytest

from connexon.conditions.filters import OneOf
from connexon_node.editions.lists import diseases
from connexon_node.ontology import DEMO, demonstration
from connexon_node.privacy.accuracy import scale_within
from connexon_node.settings import PrivacySection
from tests.redteam.target import SECRET, Target, is_

FORMER = tuple(f"MONDO:99000{number:02d}" for number in range(20))
"""Ids that the center's ontology says are Parkinson disease today."""
RHO = 1 / (2 * scale_within(15) ** 2)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("ontologies")
    for file in DEMO.glob("*.obo"):
        text = file.read_text(encoding="utf-8")
        also = "".join(f"alt_id: {one}\n" for one in FORMER)
        (folder / file.name).write_text(text.replace(f"id: {SECRET}\n", f"id: {SECRET}\n{also}"), encoding="utf-8")
    target = Target(tmp_path_factory.mktemp("target"))
    target.center.ontologies._folder = folder
    assert target.center.ontologies.refresh()
    yield target
    target.center.close()
    shutil.rmtree(folder)


def test_former_ids_select_the_same_donors(node: Target) -> None:
    assert node.begin().count(is_("primary_disease_term", FORMER[0])) == node.count(is_("primary_disease_term", SECRET))


def test_one_disease_under_many_ids_is_paid_from_one_line(node: Target) -> None:
    node.begin(privacy=PrivacySection(researcher=3 * RHO * (1 + 1e-6)))
    answered = [node.noisy(is_("primary_disease_term", one)) for one in FORMER[:10]]
    answered += [node.noisy(OneOf("primary_disease_term", (one,))) for one in FORMER[10:]]
    answered += [node.noisy(is_("primary_disease_term", SECRET))]
    assert sum(one is not None for one in answered) == math.floor(3 * (1 + 1e-6))


def test_no_two_diseases_that_have_a_line_are_one_disease() -> None:
    known = demonstration()
    current = [known.resolve(one) for one in diseases() if known.knows(one)]
    assert current
    assert len(set(current)) == len(current)
