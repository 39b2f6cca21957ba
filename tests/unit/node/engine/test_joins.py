"""Questions across datasets: paths, has, lineage and coded features, against a reference in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.analyses.count import Count
from connexon.conditions import where
from connexon.conditions.filters import All, Any, Compare, Filter, Has, Not, OneOf, Operator
from connexon.errors import InvalidQuery, NotFound
from connexon_node.pipeline.values import CellTable
from tests.support.center import SmallCenter, ask

Row = dict[str, object]
DONORS: list[Row] = [{"id": f"D{n}", "sex": "male" if n % 2 else "female"} for n in range(8)]
CONSENTS: list[Row] = [  # type: ignore[assignment]  # a sum of two lists
    {
        "id": f"C{n}",
        "donor_id": f"D{n}",
        "form_version": "1",
        "obtained_on": "2024-01-01",
        "status": "active",
        "scope": "research",
        "duo_permission": "DUO:0000042" if n % 3 else "DUO:0000006",
    }
    for n in range(7)
] + [
    {
        "id": "CS",
        "donor_id": "P1",
        "form_version": "1",
        "obtained_on": "2024-01-01",
        "status": "active",
        "scope": "research",
        "duo_permission": "DUO:0000042",
    }
]
LINES: list[Row] = [
    {
        "id": f"L{n}",
        "donor_id": f"D{n % 8}",
        "parent_line_id": {9: "L1", 10: "L9", 11: "L10"}.get(n, ""),
        "hpscreg_name": f"TESTi{n:03d}-A",
        "type": "derived" if n > 8 else "iPSC",
        "grade": ["research", "clinical"][n % 2],
    }
    for n in range(12)
]
LINES[9]["donor_id"] = LINES[10]["donor_id"] = LINES[11]["donor_id"] = "D1"
PROTOCOLS: list[Row] = [{"id": f"P{n}", "code": f"SOP-{n}", "version": "1", "kind": "culture"} for n in range(3)]
LOTS: list[Row] = [
    {
        "id": f"B{n}",
        "cell_line_id": f"L{n % 12}",
        "lot_no": f"N{n}",
        "bank_level": ["seed", "MCB", "WCB"][n % 3],
        "status": "released",
        "protocol_id": f"P{n % 3}" if n % 4 else "",
    }
    for n in range(20)
]
FINDINGS: list[Row] = [
    {
        "id": f"K{n}",
        "lot_id": f"B{n}",
        "method": "SNP",
        "change": ["none", "gain", "loss"][n % 3],
        "recurrent_region": ["20q11.21", "12p"][n % 2],
        "clone_pct": 5 * n,
    }
    for n in range(15)
]
RUNS: list[Row] = [{"id": f"R{n}", "lot_id": f"B{n}", "protocol_id": "P1"} for n in range(6)]
SAMPLES: list[Row] = [
    {
        "id": f"S{n}",
        "lot_id": f"B{n}" if n % 2 else "",
        "run_id": "" if n % 2 else f"R{n % 6}",
        "kind": "rna",
        "cell_type_term": "CL:0000540" if n % 3 else "",
    }
    for n in range(12)
]
GENES = {"ENSG00000111640": "GAPDH", "ENSG00000204531": "POU5F1"}
EXPRESSION: list[Row] = [
    {"sample_id": f"S{n}", "ensembl_id": gene, "gene_symbol": symbol, "value": n / 2 + place, "unit": "log2TPM"}
    for n in range(12)
    for place, (gene, symbol) in enumerate(GENES.items())
]
SUBJECTS: list[Row] = [{"id": "T1", "person_id": "P1", "arm": "A"}, {"id": "T2", "person_id": "P2", "arm": "B"}]
BATCHES: list[Row] = [
    {"id": f"X{n}", "product_code": "PRD", "protocol_id": f"P{n}", "input_lot_id": f"B{n}", "state": "completed"}
    for n in range(3)
]
TREATMENTS: list[Row] = [
    {"subject_id": "T1", "batch_id": "X1", "day": 0},
    {"subject_id": "T2", "batch_id": "X1", "day": 0},
    {"subject_id": "T1", "batch_id": "X0", "day": 3},
]
TABLES = {
    "donors": DONORS,
    "consents": CONSENTS,
    "protocols": PROTOCOLS,
    "cell_lines": LINES,
    "lots": LOTS,
    "karyotype_findings": FINDINGS,
    "differentiation_runs": RUNS,
    "samples": SAMPLES,
    "expression": EXPRESSION,
    "batches": BATCHES,
    "subjects": SUBJECTS,
    "treatments": TREATMENTS,
}


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    center = SmallCenter(tmp_path_factory.mktemp("joins"))
    for dataset, rows in TABLES.items():
        assert center.load_rows(dataset, rows).warnings == ()
    yield center
    center.close()


def count(center: SmallCenter, dataset: str, text: str) -> int:
    return center.count(dataset, where.parse(text))


def cells(center: SmallCenter, dataset: str, *by: str, text: str = "") -> dict[tuple[object, ...], int]:
    shape = center.compute(ask(dataset, where.parse(text) if text else None, Count(by))).shape
    assert isinstance(shape, CellTable)
    return {cell.key: cell.records for cell in shape.cells}


def donor_of(dataset: str, row: Row) -> str:
    """The donor by a path of references, in plain Python."""
    if dataset == "donors":
        return str(row["id"])
    if dataset == "cell_lines":
        return str(row["donor_id"])
    ways = {
        "lots": ("cell_line_id", "cell_lines"),
        "karyotype_findings": ("lot_id", "lots"),
        "differentiation_runs": ("lot_id", "lots"),
        "expression": ("sample_id", "samples"),
    }
    field, parent = ways.get(dataset, ("", ""))
    if dataset == "samples":
        field, parent = ("lot_id", "lots") if row["lot_id"] else ("run_id", "differentiation_runs")
    return donor_of(parent, one(parent, row[field]))


def one(dataset: str, key: object) -> Row:
    return next(row for row in TABLES[dataset] if row["id"] == key)


CONSENTED = {str(row["donor_id"]) for row in CONSENTS}


def kept(dataset: str, test: Callable[[Row], bool]) -> int:
    return sum(1 for row in TABLES[dataset] if donor_of(dataset, row) in CONSENTED and test(row))


def test_a_path_leads_to_the_row_that_a_row_points_to(center: SmallCenter) -> None:
    female = {str(row["id"]) for row in DONORS if row["sex"] == "female"}
    assert count(center, "cell_lines", "donor.sex = 'female'") == kept(
        "cell_lines", lambda row: row["donor_id"] in female
    )
    expected = kept("lots", lambda row: donor_of("lots", row) in female)
    for path in ("donor.sex", "cell_line.donor.sex"):
        assert count(center, "lots", f"{path} = 'female'") == expected
    assert count(center, "expression", "donor.sex = 'female'") == kept(
        "expression", lambda row: donor_of("expression", row) in female
    )
    assert count(center, "lots", "protocol.code is missing") == kept("lots", lambda row: not row["protocol_id"])


def test_a_path_follows_whichever_reference_leads_to_the_donor(center: SmallCenter) -> None:
    def grade(row: Row) -> object:
        lot = row["lot_id"] or one("differentiation_runs", row["run_id"])["lot_id"]
        return one("cell_lines", one("lots", lot)["cell_line_id"])["grade"]

    assert count(center, "samples", "cell_line.grade = 'clinical'") == kept(
        "samples", lambda row: grade(row) == "clinical"
    )
    assert count(center, "expression", "sample.cell_line.grade = 'clinical' and cell_line.grade = 'clinical'") == kept(
        "expression", lambda row: grade(one("samples", row["sample_id"])) == "clinical"
    )


def test_groups_may_lie_in_other_datasets(center: SmallCenter) -> None:
    found = cells(center, "lots", "donor.sex", "cell_line.grade", "bank_level")
    assert sum(found.values()) == kept("lots", lambda row: True)
    sexes = {str(row["id"]): row["sex"] for row in DONORS}
    for group, records in found.items():
        assert records == kept(
            "lots",
            lambda row, group=group: (  # type: ignore[misc]  # a default makes it untyped
                (sexes[donor_of("lots", row)], one("cell_lines", row["cell_line_id"])["grade"], row["bank_level"])
                == group
            ),
        )


def test_has_counts_rows_that_others_point_to(center: SmallCenter) -> None:
    gained = {row["lot_id"] for row in FINDINGS if row["change"] == "gain" and row["recurrent_region"] == "20q11.21"}
    lines = {one("lots", lot)["cell_line_id"] for lot in gained}
    condition = "karyotype_findings (change = 'gain' and recurrent_region = '20q11.21')"
    assert count(center, "lots", f"has {condition}") == kept("lots", lambda row: row["id"] in gained)
    assert count(center, "cell_lines", f"has {condition}") == kept("cell_lines", lambda row: row["id"] in lines)
    assert count(center, "cell_lines", f"has lots (has {condition})") == count(center, "cell_lines", f"has {condition}")
    assert count(center, "lots", f"not has cell_line.{condition}") == kept(
        "lots", lambda row: row["cell_line_id"] not in lines
    )
    assert count(center, "donors", f"has {condition}") == len(
        {donor_of("cell_lines", one("cell_lines", line)) for line in lines} & CONSENTED
    )


def test_rows_without_consent_neither_count_nor_make_others_count(center: SmallCenter) -> None:
    # T2 has no consent; batch X1 is of donor D1, X0 of D0.
    assert count(center, "subjects", "has treatments (batch.protocol.code = 'SOP-1')") == 1
    assert count(center, "batches", "has treatments (day = 0)") == 1
    everyone = center.ledger.profiles()
    general = frozenset(number for number, one in everyone.items() if one.permission == "DUO:0000042")
    cohort = center.cohort(general)
    # D0 consented to health research only: its batch is as if it were not there, for the subject too.
    assert center.count("subjects", where.parse("has treatments (batch.product_code = 'PRD' and day = 3)"), cohort) == 0
    assert center.count("subjects", where.parse("has treatments (batch.product_code is missing)"), cohort) == 1
    assert center.count("subjects", where.parse("has treatments (batch.product_code = 'PRD' and day = 0)"), cohort) == 1


@pytest.mark.parametrize("text", ["ensembl_id = 'ENSG00000204531'", "gene_symbol = 'POU5F1'", "gene_symbol != 'GAPDH'"])
def test_a_feature_is_asked_by_id_or_symbol(center: SmallCenter, text: str) -> None:
    assert count(center, "expression", f"{text} and value > 3") == kept(
        "expression", lambda row: row["gene_symbol"] == "POU5F1" and float(str(row["value"])) > 3
    )
    lines = {
        donor_of("expression", row)
        for row in EXPRESSION
        if row["gene_symbol"] == "POU5F1" and float(str(row["value"])) > 3
    }
    assert count(center, "donors", f"has expression ({text} and value > 3)") == len(lines & CONSENTED)
    assert count(center, "expression", "gene_symbol = 'NOSUCH'") == 0


def test_lineage_is_asked_by_public_names_only(center: SmallCenter) -> None:
    assert count(center, "cell_lines", "descends_from('TESTi001-A')") == 3
    assert count(center, "cell_lines", "descends_from('TESTi010-A')") == 1
    assert count(center, "lots", "descends_from('TESTi009-A')") == sum(
        row["cell_line_id"] in ("L10", "L11") for row in LOTS
    )
    assert count(center, "cell_lines", "descends_from('L1')") == 0
    with pytest.raises(InvalidQuery):
        count(center, "donors", "descends_from('TESTi001-A')")


@pytest.mark.parametrize(
    ("dataset", "text", "code"),
    [
        ("lots", "owner.sex = 'female'", "relation.not_offered"),
        ("lots", "cell_line.rrid = 'CVCL_1234'", "field.identifying"),
        ("lots", "cell_line.colour = 'red'", "field.not_offered"),
        ("lots", "has treatments (batch.colour = 'red')", "field.not_offered"),
        ("donors", "has protocols", "relation.not_offered"),
        ("protocols", "has lots", "query.personal_relation"),
        ("expression", "gene_symbol > 'A'", "query.wrong_operator"),
        ("expression", "sample.lot.cell_line.type = 7", "query.wrong_type"),
    ],
)
def test_what_is_no_way_is_refused(center: SmallCenter, dataset: str, text: str, code: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        count(center, dataset, text)
    assert caught.value.code == code


def test_a_dataset_that_was_not_imported_is_not_offered_to_filters_either(center: SmallCenter) -> None:
    with pytest.raises(NotFound) as caught:
        count(center, "lots", "has vials (state = 'stored')")
    assert caught.value.code == "dataset.not_offered"


def test_a_probe_of_a_polymorphism_cannot_be_asked_about(tmp_path: Path) -> None:
    center = SmallCenter(tmp_path / "probes")
    for name in ("donors", "consents", "protocols", "cell_lines", "lots", "differentiation_runs", "samples"):
        center.load_rows(name, TABLES[name])
    center.load_rows("methylation", [{"sample_id": "S1", "probe_id": "rs1019916", "beta": 0.5}])
    with pytest.raises(InvalidQuery) as caught:
        count(center, "methylation", "probe_id = 'rs1019916'")
    assert caught.value.code == "field.identifying"
    center.close()


def test_rows_of_nobody_are_counted_without_consent(center: SmallCenter) -> None:
    assert center.count("protocols", None, center.cohort(frozenset())) == 3


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"id": "S1", "kind": "rna"}, "lot_id"),
        ({"id": "S1", "kind": "rna", "lot_id": "B0", "run_id": "R1"}, "run_id"),
        ({"id": "S1", "kind": "rna", "lot_id": "B99"}, "lot_id"),
        ({"id": "S1", "kind": "rna", "timepoint_id": "T1"}, "timepoint_id"),
    ],
)
def test_a_row_must_lead_to_one_donor(center: SmallCenter, row: Row, field: str) -> None:
    outcome = center.load("samples", center.write("samples", [row, SAMPLES[1]]))
    assert outcome.refused
    assert field in {problem.field for problem in outcome.problems}


def test_one_feature_has_one_symbol(center: SmallCenter) -> None:
    rows = [*EXPRESSION, {**EXPRESSION[0], "sample_id": "S3", "gene_symbol": "OTHER"}]
    outcome = center.load("expression", center.write("expression", rows))
    assert [problem.field for problem in outcome.problems] == ["gene_symbol"]


# What `has` means, once more: conditions over lines, lots and findings, worked out row by row.
SIMPLE = {
    "cell_lines": [("grade", "clinical"), ("type", "iPSC"), ("donor.sex", "male")],
    "lots": [("bank_level", "MCB"), ("cell_line.grade", "clinical"), ("protocol.code", "SOP-1")],
    "karyotype_findings": [("change", "gain"), ("recurrent_region", "12p"), ("lot.bank_level", "seed")],
}
BELOW = {"cell_lines": ["lots", "karyotype_findings"], "lots": ["karyotype_findings"], "karyotype_findings": []}


def conditions(dataset: str, depth: int) -> st.SearchStrategy[Filter]:
    leaf = st.sampled_from([Compare(name, Operator.EQUAL, value) for name, value in SIMPLE[dataset]])
    kinds: list[st.SearchStrategy[Filter]] = [leaf]
    if depth:
        inner = conditions(dataset, depth - 1)
        pair = st.tuples(inner, inner)
        kinds += [st.builds(Not, inner), st.builds(All, pair), st.builds(Any, pair)]
        for other in BELOW[dataset]:
            kinds.append(st.builds(Has, st.just(other), st.none() | conditions(other, depth - 1)))
    return st.one_of(kinds)


def truth(dataset: str, row: Row, node: Filter | None) -> bool | None:
    match node:
        case None:
            return True
        case All(filters):
            found = [truth(dataset, row, child) for child in filters]
            return False if False in found else None if None in found else True
        case Any(filters):
            found = [truth(dataset, row, child) for child in filters]
            return True if True in found else None if None in found else False
        case Not(child):
            inner = truth(dataset, row, child)
            return None if inner is None else not inner
        case Compare(path, _, value):
            found_value = value_at(dataset, row, path)
            return None if found_value in (None, "") else found_value == value
        case OneOf(path, values):
            found_value = value_at(dataset, row, path)
            return None if found_value in (None, "") else found_value in values
        case Has(other, inside):
            return any(
                line_or_lot(other, below, dataset) == row["id"]
                and donor_of(other, below) in CONSENTED
                and truth(other, below, inside) is True
                for below in TABLES[other]
            )
    raise AssertionError(node)


def value_at(dataset: str, row: Row, path: str) -> object:
    way, _, name = path.rpartition(".")
    if not way:
        return row[name]
    if way == "donor":
        return one("donors", donor_of(dataset, row))[name]
    target = {"cell_line": "cell_lines", "lot": "lots", "protocol": "protocols"}[way]
    return one(target, row[f"{way}_id"])[name] if row[f"{way}_id"] else None


def line_or_lot(dataset: str, row: Row, target: str) -> object:
    if dataset == "karyotype_findings":
        return row["lot_id"] if target == "lots" else line_or_lot("lots", one("lots", row["lot_id"]), target)
    return row["cell_line_id"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SIMPLE)).flatmap(lambda name: st.tuples(st.just(name), conditions(name, 2))))
def test_has_and_paths_mean_what_they_mean_row_by_row(center: SmallCenter, asked: tuple[str, Filter]) -> None:
    dataset, node = asked
    assert center.count(dataset, node) == kept(dataset, lambda row: truth(dataset, row, node) is True)
