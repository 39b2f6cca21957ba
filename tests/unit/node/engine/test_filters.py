"""The engine's filters against a reference that evaluates them row by row, three-valued."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any as Value

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connexon.analyses.count import Count
from connexon.analyses.spec import Unit
from connexon.conditions.filters import All, Any, Between, Compare, Filter, IsMissing, Not, OneOf, Operator, Under
from connexon.errors import InvalidQuery
from connexon_node.data.dictionary import DICTIONARY, Field, FieldType
from connexon_node.ontology import DEMO
from connexon_node.pipeline.values import CellTable
from tests.support.center import SmallCenter, ask

DATASETS = ("donors", "cell_lines", "lots")
ODD = ["it's", 'say "so"', "back\\slash", "semi;colon", "100 %", "--", "$1", "{x}", "é", "''"]


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("engine") / "node")
    made.load_sample(70)
    yield made
    made.close()


@pytest.fixture(scope="module")
def rows(center: SmallCenter) -> dict[str, list[dict[str, Value]]]:
    """What lies on disk, by dataset."""
    return {dataset: center.rows(dataset) for dataset in DATASETS}


Rows = dict[str, list[dict[str, Value]]]


def holds(node: Filter, row: dict[str, Value], center: SmallCenter) -> bool | None:
    """Kleene's three values; None is unknown."""
    match node:
        case All(filters):
            values = [holds(child, row, center) for child in filters]
            return False if False in values else None if None in values else True
        case Any(filters):
            values = [holds(child, row, center) for child in filters]
            return True if True in values else None if None in values else False
        case Not(child):
            value = holds(child, row, center)
            return None if value is None else not value
        case IsMissing(name):
            return row[name] is None
        case _ if row[node.field] is None:
            return None
        case Compare(name, how, value):
            return among(row[name], [value]) if how is Operator.EQUAL else compared(row[name], how, value)
        case OneOf(name, wanted):
            return among(row[name], wanted)
        case Between(name, low, high):
            return bool(low <= row[name] <= high)
        case Under(name, term):
            return among(row[name], center.ontologies.descendants(term))
    raise AssertionError(node)


def among(held: Value, wanted: Value) -> bool:
    return any(one in wanted for one in held) if isinstance(held, list) else held in wanted


def compared(held: Value, how: Operator, value: Value) -> bool:
    return bool(
        {
            Operator.NOT_EQUAL: lambda: held != value,
            Operator.LESS: lambda: held < value,
            Operator.LESS_OR_EQUAL: lambda: held <= value,
            Operator.GREATER: lambda: held > value,
            Operator.GREATER_OR_EQUAL: lambda: held >= value,
        }[how]()
    )


TERMS = {
    "MONDO": ["MONDO:0005180", "MONDO:0008199", "MONDO:0004976", "MONDO:0005071", "MONDO:0021095", "MONDO:0000001"],
    "HP": ["HP:0001300", "HP:0001337", "HP:0003202"],
    "HANCESTRO": ["HANCESTRO:0005", "HANCESTRO:0009", "HANCESTRO:0019"],
    "CL": ["CL:0000057", "CL:0002322", "CL:0000000", "CL:0000037"],
}


def literals(field: Field) -> st.SearchStrategy[Value]:
    match field.type:
        case FieldType.TEXT if field.values:
            return st.sampled_from(field.values)
        case FieldType.TEXT:
            return st.sampled_from(["FR", "DE", "SIM-SOP-BANK-1", *ODD])
        case FieldType.TERM:
            return st.sampled_from(TERMS[field.ontologies[0]])
        case FieldType.INTEGER:
            return st.integers(-5, 60) | st.floats(-5, 60).map(lambda x: round(x, 1))
        case FieldType.NUMBER:
            return st.floats(0, 6, allow_nan=False).map(lambda x: round(x, 2)) | st.integers(0, 6)
        case FieldType.BOOLEAN:
            return st.booleans()
        case FieldType.DATE:
            return st.dates(datetime.date(2012, 1, 1), datetime.date(2036, 1, 1))


def leaves(field: Field) -> st.SearchStrategy[Filter]:
    value = literals(field)
    operators = [Operator.EQUAL] if field.many else [Operator.EQUAL, Operator.NOT_EQUAL]
    kinds: list[st.SearchStrategy[Filter]] = [
        st.just(IsMissing(field.name)),
        st.builds(Compare, st.just(field.name), st.sampled_from(operators), value),
        st.lists(value, min_size=1, max_size=4).map(lambda values: OneOf(field.name, tuple(values))),
    ]
    if field.type.ordered:
        kinds.append(st.builds(Compare, st.just(field.name), st.sampled_from(list(Operator)), value))
        kinds.append(st.builds(Between, st.just(field.name), value, value))
    if field.type is FieldType.TERM and field.ontologies[0] != "HP":
        kinds.append(st.builds(Under, st.just(field.name), value))
    return st.one_of(kinds)


def filters(dataset: str) -> st.SearchStrategy[Filter]:
    leaf = st.sampled_from(DICTIONARY.dataset(dataset).offered).flatmap(leaves)

    def children(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[tuple[Filter, ...]]:
        return st.lists(inner, min_size=1, max_size=3).map(tuple)

    return st.recursive(
        leaf, lambda inner: st.one_of(children(inner).map(All), children(inner).map(Any), inner.map(Not)), max_leaves=6
    )


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_engine_counts_what_the_reference_counts(center: SmallCenter, rows: Rows, data: st.DataObject) -> None:
    dataset = data.draw(st.sampled_from(DATASETS))
    where = data.draw(filters(dataset))
    in_force = in_force_donors(center)
    expected = sum(1 for row in rows[dataset] if row["_donor"] in in_force and holds(where, row, center) is True)
    assert center.count(dataset, where) == expected


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_groups_hold_the_records_and_distinct_donors_of_the_reference(
    center: SmallCenter, rows: Rows, data: st.DataObject
) -> None:
    dataset = data.draw(st.sampled_from(DATASETS))
    groupable = [field.name for field in DICTIONARY.dataset(dataset).offered if field.groupable]
    by = tuple(data.draw(st.lists(st.sampled_from(groupable), min_size=1, max_size=3, unique=True)))
    profiles = frozenset(data.draw(st.sets(st.sampled_from(sorted(center.ledger.profiles())))))
    permitted = in_force_donors(center, profiles)
    groups: dict[tuple[object, ...], list[object]] = {}
    for row in rows[dataset]:
        if row["_donor"] in permitted:
            groups.setdefault(tuple(row[name] for name in by), []).append(row["_donor"])
    shape = center.compute(ask(dataset, analysis=Count(by)), center.cohort(profiles)).shape
    assert isinstance(shape, CellTable)
    assert {cell.key: (cell.records, cell.donors) for cell in shape.cells} == {
        key: (len(donors), len(set(donors))) for key, donors in groups.items()
    }


def in_force_donors(center: SmallCenter, profiles: frozenset[int] | None = None) -> set[int]:
    snapshot = center.ledger.snapshot()
    return {
        int(donor)
        for donor, profile in zip(snapshot.donors, snapshot.profiles, strict=True)
        if profile > 0 and (profiles is None or int(profile) in profiles)
    }


def test_not_of_a_comparison_does_not_count_rows_where_the_field_is_missing(center: SmallCenter) -> None:
    equal = Compare("primary_disease_term", Operator.EQUAL, "MONDO:0005180")
    missing = center.count("donors", IsMissing("primary_disease_term"))
    assert missing > 0
    assert center.count("donors", equal) + center.count("donors", Not(equal)) + missing == center.count("donors")


def test_hundreds_of_conditions_are_one_query(center: SmallCenter) -> None:
    many = tuple(Compare("passage_no", Operator.NOT_EQUAL, 1_000 + number) for number in range(499))
    # Exact numbers about persons have fewer parts: each is looked at by itself.
    with_noise = Count((), Unit.RECORDS)
    both = [
        center.compute(ask("lots", condition, with_noise)).shape
        for condition in (All(many), Not(Any(tuple(map(Not, many)))))
    ]
    assert both[0] == both[1]
    assert isinstance(both[0], CellTable)
    assert both[0].cells[0].records > 0


def test_deep_filters_are_one_query(center: SmallCenter) -> None:
    deep: Filter = IsMissing("sex")
    for _ in range(31):
        deep = Not(deep)
    assert center.count("donors", deep) == center.count("donors")


def test_an_old_id_of_a_term_means_the_term_that_replaced_it(center: SmallCenter) -> None:
    term = center.ontologies.resolve("MONDO:0005180")
    assert center.count("donors", Under("primary_disease_term", term)) >= center.count(
        "donors", Compare("primary_disease_term", Operator.EQUAL, term)
    )


_NEXT = """
[Term]
id: MONDO:0099001
name: obsolete kind of Parkinson disease
is_obsolete: true
replaced_by: MONDO:0099002

[Term]
id: MONDO:0099002
name: kind of Parkinson disease
is_a: MONDO:0005180
"""


def test_rows_are_found_under_the_term_that_has_replaced_theirs_since(tmp_path: Path) -> None:
    """The next release of an ontology is taken in while the rows are those of the last."""
    folder = tmp_path / "ontologies"
    shutil.copytree(DEMO, folder)
    mondo = folder / "mondo.obo"
    before = mondo.read_text()
    mondo.write_text(f"{before}\n[Term]\nid: MONDO:0099001\nname: kind of Parkinson disease\nis_a: MONDO:0005180\n")
    center = SmallCenter(tmp_path / "center", ontologies=folder)
    terms = {"D-1": "MONDO:0099001", "D-2": "MONDO:0099001", "D-3": "MONDO:0005180", "D-4": "MONDO:0004976", "D-5": ""}
    center.load_rows(
        "donors", [{"id": one, "sex": "male", "primary_disease_term": term} for one, term in terms.items()]
    )
    form = {"form_version": "1", "obtained_on": "2024-01-01", "status": "active", "scope": "research"}
    form["duo_permission"] = "DUO:0000042"
    center.load_rows("consents", [{"id": f"C-{one}", "donor_id": one, **form} for one in terms])
    field, old, new = "primary_disease_term", "MONDO:0099001", "MONDO:0099002"
    assert center.count("donors", Compare(field, Operator.EQUAL, old)) == 2
    mondo.write_text(before + _NEXT)
    assert center.ontologies.refresh()
    for term in (old, new):
        assert center.count("donors", Compare(field, Operator.EQUAL, term)) == 2
        assert center.count("donors", Compare(field, Operator.NOT_EQUAL, term)) == 2
        assert center.count("donors", OneOf(field, (term, "MONDO:0004976"))) == 3
        assert center.count("donors", Under(field, term)) == 2
    assert center.count("donors", Under(field, "MONDO:0005180")) == 3
    center.close()


@pytest.mark.parametrize(
    ("where", "code", "says"),
    [
        (Compare("sexx", Operator.EQUAL, "male"), "field.not_offered", "Did you mean sex?"),
        (Compare("zzz", Operator.EQUAL, "male"), "field.not_offered", "It has: sex"),
        (Compare("id", Operator.EQUAL, "D1"), "field.identifying", "cannot be asked about"),
        (IsMissing("biosample_id"), "field.identifying", "cannot be asked about"),
        (Compare("sex", Operator.EQUAL, 1), "query.wrong_type", "donors.sex holds text"),
        (Compare("sex", Operator.EQUAL, "mail"), "query.unknown_value", "male"),
        (Compare("sex", Operator.LESS, "male"), "query.wrong_operator", "no order"),
        (Between("sex", "a", "b"), "query.wrong_operator", "no order"),
        (Compare("primary_disease_term", Operator.EQUAL, "parkinson"), "query.wrong_type", "terms of MONDO"),
        (Compare("primary_disease_term", Operator.EQUAL, "HP:0001300"), "query.wrong_type", "terms of MONDO"),
        (OneOf("primary_disease_term", ("MONDO:0005180", 5)), "query.wrong_type", "holds term"),
        (Under("primary_disease_term", "MONDO:9999999"), "ontology.unknown_term", "MONDO:9999999"),
        (Under("sex", "MONDO:0005180"), "query.wrong_operator", "no ontology terms"),
        (Under("phenotype_terms", "HP:0000001"), "ontology.unknown_term", "HP"),
        (Compare("phenotype_terms", Operator.NOT_EQUAL, "HP:0001300"), "query.wrong_operator", "several values"),
        (Compare("country_iso2", Operator.EQUAL, "F\x00R"), "query.invalid_value", "printable"),
        (All((IsMissing("sex"), Not(IsMissing("shoe_size")))), "field.not_offered", "shoe_size"),
    ],
)
def test_a_filter_that_does_not_fit_the_dictionary_is_refused(
    center: SmallCenter, where: Filter, code: str, says: str
) -> None:
    with pytest.raises(InvalidQuery) as caught:
        center.count("donors", where)
    assert caught.value.code == code
    assert says in caught.value.public


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("gmp", 1, True),
        ("gmp", "true", True),
        ("derived_on", "2020-01-01", datetime.date(2020, 1, 1)),
        ("derived_on", 2020, datetime.date(2020, 1, 1)),
    ],
)
def test_a_literal_of_another_type_is_refused_also_after_an_equal_one_was_accepted(
    center: SmallCenter, field: str, value: object, right: object
) -> None:
    center.count("cell_lines", Compare(field, Operator.EQUAL, right))  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery) as caught:
        center.count("cell_lines", Compare(field, Operator.EQUAL, value))  # type: ignore[arg-type]
    assert caught.value.code == "query.wrong_type"


@pytest.mark.parametrize("by", ["frozen_on", "cells_per_vial_1e6"])
def test_fields_of_too_many_values_cannot_be_counted_by(center: SmallCenter, by: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        center.compute(ask("lots", analysis=Count((by,))))
    assert caught.value.code == "field.not_groupable"
    assert "bank_level" in caught.value.public


def test_identifying_fields_cannot_be_counted_by(center: SmallCenter) -> None:
    with pytest.raises(InvalidQuery) as caught:
        center.compute(ask("lots", analysis=Count(("cell_line_id",))))
    assert caught.value.code == "field.identifying"
