"""First-ask tables: which questions they answer, by their words; from tables without noise, the true count."""

from __future__ import annotations

import functools
import itertools

import duckdb
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.conditions import where
from connexon.conditions.filters import All, Any, Compare, Filter, Has, IsMissing, Not, OneOf
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.privacy.first_ask import (
    AnswerCell,
    Cell,
    Dimension,
    Frame,
    Origin,
    Precision,
    Special,
    answer,
    count,
    decide,
    plan,
    reconstruct,
)
from connexon_node.privacy.first_ask import dimensions as making
from tests.support.first_ask import coded_center, shipped_frame, small_frame

PARKINSON, ALZHEIMER = "MONDO:0005180", "MONDO:0004975"
DONORS = 300


@functools.cache
def precision() -> Precision:
    frame = shipped_frame()
    return Precision(frame, plan(frame, rho=0.444))


@functools.cache
def codes() -> dict[str, numpy.ndarray]:
    return coded_center(precision().frame, DONORS, seed=8)


@functools.cache
def exact() -> object:
    """The estimates of a center whose tables came out without noise."""
    frame = precision().frame
    return reconstruct(precision(), {table: count(frame, table, codes()) for table in precision().plan.sigmas})


def asked(dataset: str, text: str = "", *by: str, best_of: bool = False) -> tuple[AnswerCell, ...] | None:
    condition: Filter | None = where.parse(text) if text else None
    found = decide(precision(), DICTIONARY, dataset, condition, by, best_of=best_of)
    return None if found is None else answer(exact(), found)  # type: ignore[arg-type]


def donors(**wanted: set[str]) -> int:
    """The donors whose codes are among the wanted ones, straight from the frame."""
    frame = precision().frame
    rows = numpy.ones(DONORS, dtype=bool)
    for name, chosen in wanted.items():
        places = [place for place, code in enumerate(frame.dimension(name).domain) if code in chosen]
        rows &= numpy.isin(codes()[name], places)
    return int(rows.sum())


OTHER, MISSING = Cell("other", frozenset({Special.OTHER})), Cell("missing", frozenset({None}))
IPSC = {"iPSC", "ESC+iPSC", "iPSC+derived", "ESC+iPSC+derived"}
SOME_GRADE = {"clinical", "research"}


@pytest.mark.parametrize(
    ("dataset", "text", "wanted"),
    [
        ("donors", "", {}),
        ("donors", "sex = 'female'", {"sex": {"female"}}),
        ("donors", "sex != 'female'", {"sex": {"male", "intersex", "unknown"}}),
        ("donors", "not (sex = 'female' or sex = 'male')", {"sex": {"intersex", "unknown"}}),
        ("donors", f"primary_disease_term = '{PARKINSON}'", {"disease": {PARKINSON}}),
        ("donors", "primary_disease_term is missing", {"disease": {"missing"}}),
        (
            "donors",
            f"primary_disease_term in ('{PARKINSON}', '{ALZHEIMER}') and sex = 'female'",
            {"disease": {PARKINSON, ALZHEIMER}, "sex": {"female"}},
        ),
        (
            "donors",
            f"primary_disease_term = '{PARKINSON}' and age_range_y in ('60-64', '65-69')",
            {"disease": {PARKINSON}, "decade": {"60-69"}},
        ),
        ("donors", "age_range_y = '60-64' and sex = 'male'", {"age": {"60-64"}, "sex": {"male"}}),
        ("donors", "has cell_lines", {"lines": {"1", "2", "3+"}}),
        ("donors", "not (has cell_lines)", {"lines": {"0"}}),
        ("donors", "has cell_lines (type = 'iPSC')", {"line_type": IPSC}),
        ("donors", "has cell_lines (xeno_free = true)", {"xeno_free": {"true"}}),
        ("donors", "has lots (status = 'released')", {"released_lot": {"released"}}),
        (
            "donors",
            "has lots (bank_level in ('product', 'WCB', 'MCB'))",
            {"bank_level": {"product", "WCB", "MCB"}},
        ),
        (
            "donors",
            "has cell_lines (type = 'iPSC') and has cell_lines (availability = 'available')",
            {"line_type": IPSC, "availability": {"available"}},
        ),
        ("cell_lines", "", {"lines": {"1", "2", "3+"}}),
        ("cell_lines", "type = 'iPSC'", {"line_type": IPSC}),
        ("cell_lines", "grade = 'clinical' and donor.sex = 'female'", {"grade": {"clinical"}, "sex": {"female"}}),
        ("cell_lines", "donor.sex = 'female'", {"grade": SOME_GRADE, "sex": {"female"}}),
        ("lots", "cell_line.donor.sex = 'male'", None),
        (
            "lots",
            f"status = 'released' and cell_line.donor.primary_disease_term = '{PARKINSON}'",
            {"released_lot": {"released"}, "disease": {PARKINSON}},
        ),
        ("differentiation_runs", "success = true", {"run_success": {"true"}}),
    ],
)
def test_a_question_inside_the_tables_is_answered(dataset: str, text: str, wanted: dict[str, set[str]] | None) -> None:
    found = asked(dataset, text)
    if wanted is None:
        assert found is None
        return
    assert found is not None
    (cell,) = found
    assert cell.key == ()
    assert cell.estimate == pytest.approx(donors(**wanted), abs=1e-6)
    assert cell.count == donors(**wanted)


@pytest.mark.parametrize(
    ("dataset", "text", "why"),
    [
        ("donors", f"primary_disease_term under '{PARKINSON}'", "which terms are below is not said by the words"),
        ("donors", "primary_disease_term = 'MONDO:0099999'", "in the cell of all others"),
        ("donors", "primary_disease_term != 'MONDO:0099999'", "in the cell of all others"),
        ("donors", f"primary_disease_term = '{PARKINSON}' and age_range_y = '60-64'", "half a decade"),
        ("donors", "sex = 'female' and eligibility = 'eligible'", "no such pair"),
        ("donors", f"sex = 'female' and age_range_y = '60-64' and primary_disease_term = '{PARKINSON}'", "three"),
        ("donors", "sex = 'female' or age_range_y = '60-64'", "not a conjunction"),
        ("donors", "not (sex = 'female' and age_range_y = '60-64')", "not a conjunction"),
        ("donors", "sex = 'Female'", "no value of the domain"),
        ("donors", "phenotype_terms = 'HP:0001300'", "no dimension"),
        ("donors", "has vials", "no dimension"),
        ("donors", "has cell_lines (grade = 'research')", "a donor of a clinical line may have it too"),
        ("donors", "has cell_lines (reprogramming_method = 'sendai')", "only the first line's is known"),
        ("donors", "has cell_lines (type = 'iPSC' and grade = 'clinical')", "one line that is both"),
        ("donors", "has cell_lines (type = 'iPSC') and has cell_lines (status = 'active')", "no such pair"),
        ("donors", "has lots (cell_line.grade = 'clinical')", "of another row"),
        ("cell_lines", "type = 'iPSC' and grade = 'clinical'", "one line that is both"),
        ("cell_lines", "has lots (status = 'released')", "a line, not a donor"),
        ("cell_lines", "derived_on >= 2020-01-01", "ordered"),
        ("lots", "cell_line.grade = 'clinical'", "of lots"),
        ("lots", "parent_lot.donor.sex = 'male'", "perhaps another donor"),
        ("no_such", "", "nobody offers it"),
        ("trials", "", "of nobody"),
        ("donors", "no.such.way = 1", "no such way"),
        ("donors", "sex = 'female' and sex = 'male'", "nobody by its words"),
    ],
)
def test_a_question_outside_the_tables_is_left_to_the_account(dataset: str, text: str, why: str) -> None:
    assert asked(dataset, text) is None, why


def test_groups_have_their_values_and_others_are_one_group() -> None:
    found = asked("donors", "", "primary_disease_term")
    assert found is not None
    listed = {cell.key[0]: cell.count for cell in found}
    assert {PARKINSON, None, Special.OTHER} <= set(listed)
    assert listed[None] == donors(disease={"missing"})
    assert listed[Special.OTHER] == donors(disease={"other"})
    assert sum(listed.values()) == DONORS


def test_a_condition_on_what_is_grouped_leaves_its_values() -> None:
    found = asked("donors", "sex in ('female', 'male') and not (primary_disease_term is missing)", "sex")
    assert found is not None
    assert [cell.key for cell in found] == [("female",), ("male",)]
    known = set(precision().frame.dimension("disease").domain) - {"missing"}
    assert [cell.count for cell in found] == [donors(sex={sex}, disease=known) for sex in ("female", "male")]


def test_groups_of_two_fields_come_in_the_order_that_was_asked_for() -> None:
    found = asked("donors", "", "age_range_y", "sex")
    assert found is not None
    assert len(found) == 21 * 4
    assert all(cell.count == donors(age={_code(cell.key[0])}, sex={_code(cell.key[1])}) for cell in found)


def test_a_donor_of_two_kinds_of_line_is_in_both_groups() -> None:
    found = asked("cell_lines", "", "type")
    assert found is not None
    line_type = precision().frame.dimension("line_type")
    for cell in found:
        kinds = {one.code for one in line_type.cells if cell.key[0] in one.values}
        assert cell.count == donors(line_type=kinds)
    assert sum(cell.count for cell in found) > donors(lines={"1", "2", "3+"})


def test_grouping_by_the_best_value_has_to_be_allowed_and_says_so() -> None:
    assert asked("cell_lines", "", "grade", "donor.sex") is None
    made = decide(precision(), DICTIONARY, "cell_lines", None, ("grade", "donor.sex"), best_of=True)
    assert made is not None
    assert made.best_of == ("grade",)
    for cell in answer(exact(), made):  # type: ignore[arg-type]
        assert cell.count == donors(grade={_code(cell.key[0])}, sex={_code(cell.key[1])})
    one = decide(precision(), DICTIONARY, "cell_lines", where.parse("grade = 'clinical'"), ("grade",), best_of=False)
    assert one is not None
    assert one.best_of == (), "every donor with a clinical line is in the group of clinical ones"
    research = where.parse("grade = 'research'")
    assert decide(precision(), DICTIONARY, "cell_lines", research, ("grade",), best_of=True) is None


def test_grouping_by_a_decade_is_not_grouping_by_age() -> None:
    assert asked("donors", f"primary_disease_term = '{PARKINSON}'", "age_range_y") is None


def test_the_most_accurate_table_is_taken_and_its_width_is_said() -> None:
    made = decide(precision(), DICTIONARY, "donors", where.parse("age_range_y in ('60-64', '65-69')"))
    assert made is not None
    tables = [("age",), ("decade",)]
    variances: dict[tuple[str], float] = {}
    for table in tables:
        dimension = precision().frame.dimension(table[0])
        found = precision().variance(table, [dimension.having(frozenset({"60-64", "65-69"}))])
        assert found is not None
        variances[table] = found
    assert made.table == min(tables, key=lambda table: variances[table])
    (cell,) = answer(exact(), made)  # type: ignore[arg-type]
    assert cell.variance == min(variances.values())


def test_deciding_does_not_multiply_with_every_has() -> None:
    """Hundreds of conditions that several dimensions tell: the timeout of the suite would end it otherwise."""
    many = All(
        tuple(
            itertools.chain.from_iterable(
                [Has("cell_lines"), Not(Has("cell_lines", IsMissing("type")))] for _ in range(200)
            )
        )
    )
    made = decide(precision(), DICTIONARY, "donors", many)
    assert made is not None
    (cell,) = answer(exact(), made)  # type: ignore[arg-type]
    assert cell.count == donors(lines={"1", "2", "3+"})
    assert decide(precision(), DICTIONARY, "donors", None, ("sex",) * 30) is None


def test_tables_of_more_dimensions_are_not_taken_for_what_fewer_tell() -> None:
    made = decide(precision(), DICTIONARY, "donors", where.parse("sex = 'female'"))
    assert made is not None
    assert made.table == ("sex",)


def _code(value: object) -> str:
    return "missing" if value is None else value.value if isinstance(value, Special) else str(value)


LEAVES = ["a = 'a0'", "a != 'a1'", "a in ('a1', 'a2')", "a is missing", "a in ('a0')"]
CONDITIONS = st.recursive(
    st.sampled_from(LEAVES).map(where.parse),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: All(tuple(some))),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: Any(tuple(some))),
        inner.map(Not),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(CONDITIONS)
def test_conditions_are_as_true_as_in_sql(condition: Filter) -> None:
    """Of a field that may be missing, with values outside the list."""
    cells = (*(Cell(f"a{place}", frozenset({f"a{place}"})) for place in range(3)), OTHER, MISSING)
    axis = Dimension(name="a", title="a", dataset="donors", field="a", origin=Origin.OWN, cells=cells)
    frame = Frame((axis,), (("a",),))
    known = Precision(frame, plan(frame, rho=1.0))
    made = decide(known, DICTIONARY, "donors", condition)
    expected = [
        bool(
            duckdb.execute(f"SELECT count(*) FROM (SELECT ?::VARCHAR AS a) WHERE {sql(condition)}", [value]).fetchall()[
                0
            ][0]
        )
        for value in ("a0", "a1", "a2", "elsewhere", None)
    ]
    if not any(expected):
        assert made is None
        return
    assert made is not None
    (group,) = made.groups
    assert group.chosen[0].tolist() == expected if made.table else all(expected)


def sql(node: Filter) -> str:
    match node:
        case All(filters):
            return "(" + " AND ".join(sql(child) for child in filters) + ")"
        case Any(filters):
            return "(" + " OR ".join(sql(child) for child in filters) + ")"
        case Not(child):
            return f"(NOT {sql(child)})"
        case Compare(_, operator, value):
            return f"(a {operator.value} '{value}')"
        case OneOf(_, values):
            return "(a IN (" + ", ".join(f"'{value}'" for value in values) + "))"
        case IsMissing():
            return "(a IS NULL)"
        case _:
            raise AssertionError(node)


AXES = ["line_type", "grade", "status", "availability", "method", "bank_level", "released_lot"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*AXES, "run_success", "xeno_free"]), st.data())
def test_a_cell_decides_a_condition_for_every_donor_in_it_or_for_none(name: str, data: st.DataObject) -> None:
    """Beside every donor of up to three rows: told is what holds for all with that code, and nothing is given away."""
    axis = precision().frame.dimension(name)
    values = list(axis.ordered_values)
    chosen = frozenset(data.draw(st.lists(st.sampled_from(values), unique=True)))
    # Three rows of the few values that matter say as much as any number of rows.
    few = (
        data.draw(st.lists(st.sampled_from(values), min_size=2, max_size=4, unique=True)) if len(values) > 5 else values
    )
    mask, seen = axis.having(chosen), dict[int, set[bool]]()
    for many in range(4):
        for rows in itertools.product(few, repeat=many):
            (code,) = axis.coded([0] * many, list(rows), donors=1)
            truth = bool(chosen & set(rows))
            seen.setdefault(int(code), set()).add(truth)
            assert axis.having_rows()[code] == bool(rows)
            if mask is not None:
                assert mask[code] == truth
    if few == values:
        assert (mask is None) == any(len(both) > 1 for both in seen.values())


def test_donors_are_coded_from_their_rows() -> None:
    frame = precision().frame
    grade, first = frame.dimension("grade"), frame.dimension("method")
    owners = [1, 0, 1, 3]
    best = grade.coded(owners, ["research", "research", "clinical", "clinical"], donors=4)
    assert [grade.domain[code] for code in best] == ["research", "clinical", "none", "clinical"]
    earliest = first.coded(owners, ["sendai", None, "mrna", "other"], donors=4)
    assert [first.domain[code] for code in earliest] == ["missing", "sendai", "none", "other"]
    number = frame.dimension("lines").coded([0, 1, 1, 1, 1], [None] * 5, donors=3)
    assert number.tolist() == [1, 3, 0]
    disease = frame.dimension("disease").coded([0, 2], [PARKINSON, "MONDO:0099999"], donors=3)
    assert [frame.dimension("disease").domain[code] for code in disease] == [PARKINSON, "missing", "other"]


@pytest.mark.parametrize(
    ("name", "owners", "values"),
    [
        ("sex", [0], ["female"]),  # the second donor has no sex, which the dictionary requires
        ("sex", [0, 1], ["female", "Female"]),
        ("grade", [2], ["clinical"]),
        ("grade", [-1], ["clinical"]),
    ],
)
def test_what_a_domain_has_no_place_for_is_refused(name: str, owners: list[int], values: list[str]) -> None:
    with pytest.raises(ValueError, match="no"):
        precision().frame.dimension(name).coded(owners, values, donors=2)


def test_every_field_of_the_frame_is_in_the_dictionary_and_its_domain_is_whole() -> None:
    for axis in precision().frame.dimensions:
        if not axis.field:
            assert DICTIONARY.dataset(axis.dataset).personal
            continue
        field = DICTIONARY.dataset(axis.dataset).offered_field(axis.field)
        if field.domain is not None:
            assert axis.values == frozenset(field.domain), axis.name
        else:
            assert {Special.OTHER, None} <= axis.values


def test_a_frame_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="order"):
        small_frame([2, 2], [("b", "a")])
    with pytest.raises(ValueError, match="once"):
        small_frame([2, 2], [("a",), ("a",)])
    with pytest.raises(ValueError, match="two codes"):
        small_frame([1], [("a",)])
    with pytest.raises(ValueError, match="two codes"):
        Frame.standard(diseases=["other"], ancestries=[], countries=[])
    with pytest.raises(ValueError, match="rank"):
        making.ranked("grade", "Grade", "cell_lines", DICTIONARY.dataset("cell_lines").field("grade"), "clinical")
