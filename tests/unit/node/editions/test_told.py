"""Which questions an edition's tables answer: by words, whoever asks, and never by a number."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy
import pytest

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.spec import Kind, Unit
from connexon.conditions.where import parse
from connexon.query.purpose import parse_purpose
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.editions.first_ask import Tables, kept, read
from connexon_node.editions.lists import standard_frame
from connexon_node.editions.told import STANDING, is_standing, told
from connexon_node.privacy.first_ask import plan
from connexon_node.settings import EditionSection
from tests.support.center import ask

EDITION = {"donors": 1, "cell_lines": 1}
FEMALE = ask("donors", parse("sex = 'female'"), Count())


@functools.cache
def tables() -> Tables:
    frame = standard_frame(EditionSection())
    planned = plan(frame, rho=0.46)
    nothing = {table: numpy.zeros(frame.sizes(table), dtype=numpy.int64) for table in planned.sigmas}
    made = read(*kept(planned, frame, nothing), 0.46)
    assert made is not None
    return made


def test_the_shipped_lists_leave_every_cell_within_ten() -> None:
    assert tables().half_width <= 10


@pytest.mark.parametrize(
    ("purpose", "holds"),
    [
        ("health", True),
        ("health,disease=MONDO:0005180", False),
        ("disease=MONDO:0005180", False),
        ("health,methods", False),
        ("general", False),
        ("methods", False),
    ],
)
def test_the_standing_purpose_is_health_research_and_nothing_else(purpose: str, holds: bool) -> None:
    assert is_standing(parse_purpose(purpose)) is holds
    assert is_standing(parse_purpose(purpose, project="X", ethics_approval="E-1")) is holds
    assert not is_standing(parse_purpose(purpose, commercial_use=True))
    assert is_standing(STANDING)


def test_a_count_of_donors_is_told_and_what_is_more_is_not() -> None:
    assert told(tables(), EDITION, DICTIONARY, FEMALE) is not None
    for analysis in (Count((), Unit.RECORDS), Count((), Unit.DONORS, Kind.GRANTED), Describe()):
        assert told(tables(), EDITION, DICTIONARY, replace(FEMALE, analysis=analysis)) is None
    assert told(None, EDITION, DICTIONARY, FEMALE) is None
    other = replace(FEMALE, purpose=parse_purpose("methods"))
    assert told(tables(), EDITION, DICTIONARY, other) is None


def test_accuracy_that_tables_do_not_have_is_not_told() -> None:
    made = told(tables(), EDITION, DICTIONARY, FEMALE)
    assert made is not None
    assert told(tables(), EDITION, DICTIONARY, replace(FEMALE, within=made.half_width)) is not None
    assert told(tables(), EDITION, DICTIONARY, replace(FEMALE, within=made.half_width - 1)) is None


def test_a_dataset_that_the_edition_does_not_have_is_not_told() -> None:
    has = ask("donors", parse("has cell_lines"), Count())
    assert told(tables(), EDITION, DICTIONARY, has) is not None
    assert told(tables(), {"donors": 1}, DICTIONARY, has) is None


def test_groups_by_the_best_of_several_values_are_another_question() -> None:
    assert told(tables(), EDITION, DICTIONARY, ask("donors", None, Count(("sex",)))) is not None
    assert told(tables(), EDITION, DICTIONARY, ask("cell_lines", None, Count(("grade",)))) is None


def test_more_groups_than_a_free_answer_may_have_are_not_told() -> None:
    both = Count(("country_iso2", "primary_disease_term"))
    assert told(tables(), EDITION, DICTIONARY, ask("donors", None, both)) is None
    some = ask("donors", parse("country_iso2 in ('FR', 'JP')"), both)
    assert told(tables(), EDITION, DICTIONARY, some) is not None


def test_tables_of_another_frame_answer_nothing() -> None:
    frame = standard_frame(EditionSection())
    planned = plan(frame, rho=0.46)
    nothing = {table: numpy.zeros(frame.sizes(table), dtype=numpy.int64) for table in planned.sigmas}
    text, content = kept(planned, frame, nothing)
    assert read(text.replace('"iPSC+derived"', '"iPSC+other"'), content, 0.46) is None


def test_settings_add_to_the_networks_lists_and_name_nothing_twice() -> None:
    section = EditionSection(diseases=("MONDO:0005180", "MONDO:0000001"))
    domain = standard_frame(section).dimension("disease").domain
    assert domain.count("MONDO:0005180") == 1
    assert "MONDO:0000001" in domain
