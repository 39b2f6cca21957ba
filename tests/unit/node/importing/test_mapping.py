"""Mapping files: what they change, what they refuse, how they are drafted; and the guard that none gets past."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon_node.data.dictionary import DICTIONARY
from connexon_node.importing import FileRefused, ImportOptions, ImportOutcome, Mapping, load_mapping
from connexon_node.importing.ages import age_range
from connexon_node.importing.drafting import draft
from connexon_node.importing.mapping import Written, _trimmed, expression
from connexon_node.importing.numbers import no_number, with_point
from connexon_node.importing.pseudonymity import identifying
from connexon_node.importing.sql import quoted
from connexon_node.importing.units import conversion, ucum
from tests.support.center import SmallCenter

ROOT = Path(__file__).parents[4]
LINE = {"id": "L1", "donor_id": "D1", "type": "iPSC", "grade": "research"}


def draft_text(*arguments: Any, **options: Any) -> str:
    return "\n".join(draft(*arguments, **options).values())


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("mapping") / "node")
    made.load_rows("donors", [{"id": "D1", "sex": "male"}])
    made.load_rows("cell_lines", [LINE])
    yield made
    made.close()


def load(
    center: SmallCenter, dataset: str, content: str, mapping: str = "", *, dry_run: bool = False, skip_bad: bool = False
) -> ImportOutcome:
    file, path = center.folder / "file.csv", center.folder / "mapping.toml"
    file.write_text(textwrap.dedent(content).lstrip(), encoding="utf-8")
    path.write_text(textwrap.dedent(mapping), encoding="utf-8")
    options = ImportOptions(by="steward", mapping=load_mapping(path), dry_run=dry_run, skip_bad=skip_bad)
    return center.importer.run(dataset, file, options)


def refused(center: SmallCenter, dataset: str, content: str, mapping: str = "", **options: bool) -> FileRefused:
    before = center.generations.current(dataset)
    with pytest.raises(FileRefused) as caught:
        load(center, dataset, content, mapping, **options)
    assert center.generations.current(dataset) == before
    return caught.value


LOTS = """
    Los;Zelllinie;Bank;P;Zellen (cells);eingefroren;Zustand;Größe
    A-1;1;Master;12;1.500.000,5;31.01.2025;frei;3
    A-2;1;WCB;k.A.;2.000.000;01.02.2025;gesperrt;4
"""
TO_LOTS = """
    dataset = "lots"
    missing = ["k.A."]
    exclude = ["Größe"]
    [columns.id]
    from = ["Los", "Zelllinie"]
    join = "/"
    [columns.lot_no]
    from = "Los"
    pattern = '-(\\d+)$'
    [columns.cell_line_id]
    from = "Zelllinie"
    prefix = "L"
    [columns.bank_level]
    from = "Bank"
    values = { Master = "MCB" }
    [columns.passage_no]
    from = "P"
    [columns.cells_per_vial_1e6]
    from = "Zellen (cells)"
    decimal = ","
    unit = "cells"
    [columns.frozen_on]
    from = "eingefroren"
    date = "%d.%m.%Y"
    [columns.status]
    from = "Zustand"
    values = { frei = "released", gesperrt = "quarantine" }
"""


def test_a_mapping_renames_converts_and_recodes(center: SmallCenter) -> None:
    assert load(center, "lots", LOTS, TO_LOTS).generation is not None
    first, second = sorted(center.rows("lots"), key=lambda row: str(row["id"]))
    assert (first["id"], first["lot_no"], first["cell_line_id"], first["bank_level"]) == ("A-1/1", "1", "L1", "MCB")
    assert (first["passage_no"], first["cells_per_vial_1e6"]) == (12, 1.5000005)
    assert (str(first["frozen_on"]), first["status"]) == ("2025-01-31", "released")
    assert (second["passage_no"], second["cells_per_vial_1e6"], second["status"]) == (None, 2, "quarantine")


def test_a_dry_run_shows_the_first_rows_and_loads_nothing(center: SmallCenter) -> None:
    before = center.generations.current("lots")
    outcome = load(center, "lots", LOTS, TO_LOTS, dry_run=True)
    assert (outcome.rows, outcome.bad_rows, center.generations.current("lots")) == (2, 0, before)
    assert outcome.preview[0]["cells_per_vial_1e6"] == "1.5000005"
    assert outcome.preview[1]["status"] == "quarantine"


def test_what_the_mapping_does_not_know_is_reported_and_not_lost(center: SmallCenter) -> None:
    changed = LOTS.replace("gesperrt", "verloren").replace("01.02.2025", "2025/02/01").replace("A-2", "A2")
    outcome = load(center, "lots", changed, TO_LOTS)
    assert outcome.refused
    assert outcome.report is not None
    entries = [json.loads(line) for line in outcome.report.read_text().splitlines()]
    assert {(entry["line"], entry["field"], entry["value"]) for entry in entries} == {
        (3, "status", "verloren"),
        (3, "frozen_on", "2025/02/01"),
    }


@pytest.mark.parametrize(("site", "number"), [("LY", ""), ("", "2"), ("NA", "4"), ("LY", "k.A."), ("", "")])
def test_a_value_of_several_columns_is_missing_where_one_of_them_is(
    center: SmallCenter, site: str, number: str
) -> None:
    mapping = """
        missing = ["NA"]
        columns.id = { from = ["site", "nr"], join = "-", missing = ["k.A.", "LY-0"] }
    """
    outcome = load(
        center, "donors", f"site;nr;sex\nLY;1;male\n{site};{number};male\nLY;0;male\n", mapping, dry_run=True
    )
    assert [(problem.field, problem.reason, problem.rows) for problem in outcome.problems] == [("id", "is missing", 2)]
    assert [row["id"] for row in outcome.preview] == ["LY-1"]


def test_several_values_are_made_of_the_columns_that_have_one(center: SmallCenter) -> None:
    content = "id,sex,a,b,c\nD1,male,HP:0001300,NA,HP:0001337\nD2,male,NA,,\n"
    mapping = 'missing = ["NA"]\ncolumns.phenotype_terms = { from = ["a", "b", "c"], join = ";" }'
    outcome = load(center, "donors", content, mapping, dry_run=True)
    assert outcome.problems == ()
    assert [row.get("phenotype_terms") for row in outcome.preview] == ["HP:0001300;HP:0001337", None]


@pytest.mark.parametrize(
    ("value", "form", "day"),
    [
        ("05.03.2024", "%d.%m.%Y", "2024-03-05"),
        ("5.3.2024", "%d.%m.%Y", "2024-03-05"),
        ("05.03.24", "%d.%m.%y", "2024-03-05"),
        ("2024-03-05", "%d.%m.%Y", "2024-03-05"),
        ("20240305", "%Y%m%d", "2024-03-05"),
        ("05.03.24", "%d.%m.%Y", None),
        ("05.03.024", "%d.%m.%Y", None),
        ("05.03.0024", "%d.%m.%Y", None),
        ("05.03.1824", "%d.%m.%Y", None),
        ("241112", "%Y%m%d", None),
        ("050324", "%d%m%Y", None),
        ("05.03.24 10:30", "%d.%m.%Y %H:%M", None),
    ],
)
def test_a_year_is_read_only_where_it_has_as_many_digits_as_the_mapping_says(
    center: SmallCenter, value: str, form: str, day: str | None
) -> None:
    content = f"id;cell_line_id;lot_no;bank_level;status;frozen_on\nB1;L1;1;MCB;released;{value}\n"
    outcome = load(
        center, "lots", content, f'columns.frozen_on = {{ from = "frozen_on", date = "{form}" }}', dry_run=True
    )
    assert [row["frozen_on"] for row in outcome.preview] == [day] * (day is not None)
    assert [problem.field for problem in outcome.problems] == ["frozen_on"] * (day is None)


@pytest.mark.parametrize(
    ("pattern", "value", "kept"),
    [
        ("P(\\d+)", "P12", "12"),
        ("\\d+", "P12", "12"),
        ("(?:P|p)\\d+", "P12", "P12"),
        ("(?i)p(\\d+)", "P12", "12"),
        ("(?P<no>\\d+)", "P12", "12"),
        ("\\(\\d+\\)", "x(12)", "(12)"),
        ("[(]\\d+[)]", "x(12)", "(12)"),
        ("P(\\d+)", "twelve", "twelve"),
        ("[a-z]+(\\d*)", "twelve", "twelve"),
    ],
)
def test_no_pattern_makes_a_value_missing(center: SmallCenter, pattern: str, value: str, kept: str) -> None:
    content = f"id;cell_line_id;lot_no;bank_level;status\nB1;L1;{value};MCB;released\n"
    mapping = f"columns.lot_no = {{ from = 'lot_no', pattern = '{pattern}' }}"
    assert [row["lot_no"] for row in load(center, "lots", content, mapping, dry_run=True).preview] == [kept]


@pytest.mark.parametrize(
    ("form", "lacks"),
    [
        ("%d.%m.", "no year,"),
        ("%m/%Y", "no day,"),
        ("%Y", "no month and no day,"),
        ("%d.%m.%%Y", "no year,"),
        ("dd.mm.yyyy", "no year and no month and no day,"),
    ],
)
def test_a_form_of_dates_that_tells_no_whole_day_is_refused(center: SmallCenter, form: str, lacks: str) -> None:
    content = "id;cell_line_id;lot_no;bank_level;status;frozen_on\nB1;L1;1;MCB;released;05.03.\n"
    error = refused(center, "lots", content, f'columns.frozen_on = {{ from = "frozen_on", date = "{form}" }}')
    assert f"columns.frozen_on.date: '{form}' names {lacks}" in error.public
    assert (error.code, "Value error" in error.public) == ("import.mapping", False)


@pytest.mark.parametrize(("value", "form"), [("2024-065", "%Y-%j"), ("5 Mar 24 10:15", "%-d %b %y %H:%M")])
def test_a_form_of_dates_may_name_a_whole_day_in_other_words(center: SmallCenter, value: str, form: str) -> None:
    content = f"id;cell_line_id;lot_no;bank_level;status;frozen_on\nB1;L1;1;MCB;released;{value}\n"
    mapping = f'columns.frozen_on = {{ from = "frozen_on", date = "{form}" }}'
    assert [row["frozen_on"] for row in load(center, "lots", content, mapping, dry_run=True).preview] == ["2024-03-05"]


@pytest.mark.parametrize(
    ("days", "drafted"),
    [
        (["05.03.2024", "31.12.2024"], 'date = "%d.%m.%Y"'),
        (["05.03.24", "31.12.24"], '# date = "%d.%m.%y"  # ? years have two digits'),
        (["241112", "241231"], '# date = "%y%m%d"  # ? years have two digits'),
        (["20241112", "20241231"], 'date = "%Y%m%d"'),
        (["05.03.24", "31.12.2024"], '# date = "%d.%m.%Y"  # ? how days are written here was not found'),
    ],
)
def test_a_draft_asks_whether_years_of_two_digits_are_meant(center: SmallCenter, days: list[str], drafted: str) -> None:
    file = center.folder / "days.csv"
    file.write_text("id;frozen_on\n" + "".join(f"B{number};{day}\n" for number, day in enumerate(days)))
    lines = draft_text(file, DICTIONARY, dataset="lots", mapping=Mapping(), named=None).splitlines()
    assert next(line for line in lines if "date = " in line).startswith(drafted)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('dataset = "lots"', 'dataset = "donors"'), "is for donors, not for lots"),
        (("[columns.status]", "[columns.state]"), "Is it status?"),
        (('from = "Bank"', 'from = "Bnk"'), "reads a column 'Bnk'"),
        (('unit = "cells"', 'unit = "mg"'), "no way from 'mg'"),
        (('from = "P"', 'from = "P"\nconstant = 3'), "one of from, constant"),
        (('exclude = ["Größe"]', 'exclude = ["P", "Größe"]'), "excludes the column 'P'"),
        (('exclude = ["Größe"]', ""), "a column 'Größe'"),
        (('from = "P"', 'frm = "P"'), "columns.passage_no.frm: there is no such setting; the nearest is from."),
        (("[columns.passage_no]", "[column.passage_no]"), "column: there is no such setting; the nearest is columns."),
        (('exclude = ["Größe"]', 'zzz = ["Größe"]'), "known are dataset, format, encoding"),
        (('from = "P"', 'from = "p"'), "reads a column 'p' that file.csv has not. Is it 'P'?"),
        (('from = "P"', 'from = "P"\npart = 2'), "add split"),
        (
            ('from = "P"', 'from = "P"\npattern = "p(\\\\d+"'),
            "columns.passage_no.pattern: 'p(\\\\d+' is not understood",
        ),
        (('date = "%d.%m.%Y"', 'date = "%d.%m.%Y%Q"'), "date: '%d.%m.%Y%Q' is not understood"),
        (('from = "P"', "from = "), "is no TOML"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(center: SmallCenter, change: tuple[str, str], says: str) -> None:
    error = refused(center, "lots", LOTS, TO_LOTS.replace(*change))
    assert says in error.public


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("Date of Birth", "a date of birth"),
        ("Geburtsdatum", "a date of birth"),
        ("date_de_naissance", "a date of birth"),
        ("seinengappi", "a date of birth"),
        ("BRTHDTC", "a date of birth"),
        ("firstName", "a person's name"),
        ("Nachname", "a person's name"),
        ("Prénom", "a person's name"),
        ("shimei", "a person's name"),
        ("E-Mail", "an e-mail address"),
        ("courriel", "an e-mail address"),
        ("MRN", "a medical record number"),
        ("Patientennummer", "a medical record number"),
        ("karute bangou", "a medical record number"),
        ("Telefonnummer", "a telephone number"),
        ("denwa bangou", "a telephone number"),
        ("Straße", "a postal address"),
    ],
)
def test_a_column_that_tells_of_persons_stops_the_import(center: SmallCenter, column: str, kind: str) -> None:
    error = refused(center, "donors", f"id,sex,{column}\nD1,male,x\n")
    assert error.code == "import.identifying"
    assert f"{column!r} looks like {kind}" in error.public
    assert refused(center, "donors", f"{column},sex\nD1,male\n", f'columns.id.from = "{column}"').code == error.code
    assert load(center, "donors", f"id,sex,{column}\nD1,male,x\n", f'exclude = ["{column}"]', dry_run=True).rows == 1


@pytest.mark.parametrize(
    "name", ["IP_Name", "gene_name", "protein_name", "cell_line_name", "sex", "id", "batch", "telomere"]
)
def test_columns_of_the_field_are_no_persons(name: str) -> None:
    assert identifying(name) is None


def test_every_field_of_the_dictionary_gets_past_the_guard_by_its_own_name() -> None:
    names = {field.name for dataset in DICTIONARY.datasets for field in dataset.fields}
    assert {name: told for name in names - {"name"} if (told := identifying(name))} == {}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("anna.meyer@example.org", "an e-mail address"),
        ("+49 30 1234567", "a telephone number"),
        ("(212) 555-0134", "a telephone number"),
        ("123-45-6789", "a social security number"),
        ("MRN 0012345", "a medical record number"),
        ("Frau Müller", "a person's name"),
        ("born 31.01.1970", "a date of birth"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_value_that_tells_of_a_person_stops_the_import(
    center: SmallCenter, value: str, kind: str, skip_bad: bool
) -> None:
    content = f"id,cell_line_id,lot_no,bank_level,status\nB1,L1,1,MCB,released\nB2,L1,{value},MCB,released\n"
    error = refused(center, "lots", content, skip_bad=skip_bad)
    assert f"lot_no holds what looks like {kind}" in error.public
    assert value not in error.public


@pytest.mark.parametrize("value", ["2025-01-31", "12345678", "LOT 03-1234", "P12+3", "10-10.1.1", "B-2024-0001"])
def test_lot_numbers_are_no_telephone_numbers(center: SmallCenter, value: str) -> None:
    content = f"id,cell_line_id,lot_no,bank_level,status\nB1,L1,{value},MCB,released\n"
    assert load(center, "lots", content, dry_run=True).bad_rows == 0


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [
        (98.6, "°F", "Cel", 37.0),
        (77.15, "K", "Cel", -196.0),
        (90, "minutes", "h", 1.5),
        (2, "weeks", "d", 14),
        (1_500_000, "cells", "10*6", 1.5),
        (0.25, "fraction", "%", 25),
        (500, "µL", "mL", 0.5),
        (5, "EU/mL", "[EU]/mL", 5),
        (18, "months", "a", 1.5),
        (1461, "days", "a", 4),
    ],
)
def test_units_are_converted(value: float, unit: str, wanted: str, expected: float) -> None:
    found = conversion(unit, wanted)
    assert found is not None
    assert value * found.factor + found.offset == pytest.approx(expected)


@given(
    st.sampled_from(["Cel", "K", "[degF]", "s", "h", "d", "mL", "L", "mg", "g", "%", "1", "10*6", "{cells}"]), st.data()
)
def test_a_unit_and_back_is_the_same(unit: str, data: st.DataObject) -> None:
    others = [other for other in ("K", "h", "mL", "kg", "1", "10*3") if conversion(unit, other)]
    value = data.draw(st.floats(-1e6, 1e6))
    for other in others:
        there, back = conversion(unit, other), conversion(other, unit)
        assert there is not None
        assert back is not None
        between = value * there.factor + there.offset
        assert between * back.factor + back.offset == pytest.approx(value, rel=1e-9, abs=1e-6)


def test_units_that_have_no_way_to_each_other_are_not_converted() -> None:
    assert conversion("mg", "mL") is None
    assert conversion("shoe", "d") is None
    assert ucum("parsec") is None


@given(st.integers(0, 130))
def test_an_age_lies_in_its_range(years: int) -> None:
    low, _, high = age_range(years).rstrip("+").partition("-")
    assert int(low) <= years <= int(high or 200)


@pytest.mark.parametrize(
    ("age", "steps", "kept"),
    [
        ("44", "", "40-44"),
        ("44.9", "", "40-44"),
        ("0", "", "0-4"),
        ("90", "", "90+"),
        ("125", "", "90+"),
        ("44,5", 'decimal = ","', "40-44"),
        ("18", 'unit = "months"', "0-4"),
        ("600", 'unit = "weeks"', "10-14"),
        ("16436,25", 'unit = "days"\ndecimal = ","', "45-49"),
        ("k.A.", 'missing = ["k.A."]', None),
        ("?", 'values = { "?" = "unknown" }', "unknown"),
    ],
)
def test_an_age_is_kept_as_a_range_whatever_its_unit(
    center: SmallCenter, age: str, steps: str, kept: str | None
) -> None:
    mapping = f'[columns.age_range_y]\nfrom = "age"\nages = true\n{steps}\n'
    outcome = load(center, "donors", f"id;sex;age\nD1;male;{age}\n", mapping, dry_run=True)
    assert (outcome.problems, [row.get("age_range_y") for row in outcome.preview]) == ((), [kept])


def test_all_steps_of_a_column_together_are_short_enough_to_be_planned(center: SmallCenter) -> None:
    mapping = Mapping.model_validate(
        {
            "missing": ["NA"],
            "columns": {
                "age_range_y": {
                    **{
                        "from": ["age", "of"],
                        "join": " ",
                        "missing": ["k.A."],
                        "pattern": "([^ ]+)",
                        "values": {"?": "unknown"},
                    },
                    **{"decimal": ",", "unit": "days", "ages": True},
                }
            },
        }
    )
    field = DICTIONARY.dataset("donors").field("age_range_y")
    made = expression(mapping.columns["age_range_y"], field, mapping.missing, Written({}, {}))
    assert len(made) < 100_000
    given = "(VALUES ('16.436,25', 'x'), ('?', 'x'), ('NA', 'x'), ('1.5', 'x'), ('5 y', 'x')) AS given(age, of)"
    with duckdb.connect() as connection:
        found = [value for (value,) in connection.execute(f"SELECT {made} FROM {given}").fetchall()]
    assert found == ["45-49", "unknown", None, "1.5\x01\x01", "0-4"]


@pytest.mark.parametrize(
    "age", ["45 y", "unknown", "44,5", "40-44", "nan", "inf", "-inf", "1e400", "-1", "125.5", "999", "4_5", "+-4"]
)
def test_what_is_no_age_is_a_bad_row_and_not_missing(center: SmallCenter, age: str) -> None:
    mapping = 'columns.age_range_y = { from = "age", ages = true }'
    outcome = load(center, "donors", f"id;sex;age\nD1;male;{age}\nD2;male;\n", mapping)
    assert outcome.refused
    assert outcome.report is not None
    (entry,) = map(json.loads, outcome.report.read_text().splitlines())
    reason = "is no age from 0 to 125 years"
    assert entry == {"line": 2, "field": "age_range_y", "reason": reason, "value": age}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("1,5", "1.5"),
        ("-1,5e-3", "-1.5e-3"),
        ("12", "12"),
        ("1e3", "1e3"),
        ("1.234", "1234"),
        ("1.234.567,8", "1234567.8"),
        ("+1.000", "+1000"),
        ("0,125", "0.125"),
    ],
)
def test_decimal_commas_become_points(written: str, kept: str) -> None:
    assert with_points(written) == kept


@pytest.mark.parametrize(
    "written", ["1,2,3", "1,234.5", ",5", "5,", "1.23,4", "a,b", "1.5 %", "1.2.3", "12.34.567", "1 5"]
)
def test_what_is_no_number_with_a_decimal_comma_stays_as_it_is(written: str) -> None:
    assert with_points(written) == written


def with_points(written: str) -> str:
    with duckdb.connect() as connection:
        (found,) = connection.execute(f"SELECT {with_point('x')} FROM (VALUES (?)) AS given(x)", [written]).fetchone()
    return str(found)


@pytest.mark.parametrize("written", ["1.5", "0.125", "-2.25", ".5", "1.5e3", "1.", "1234.567"])
def test_a_decimal_point_among_decimal_commas_is_a_bad_row(center: SmallCenter, written: str) -> None:
    outcome = load(center, "lots", LOTS.replace("2.000.000", written), TO_LOTS)
    assert outcome.refused
    assert outcome.report is not None
    (entry,) = map(json.loads, outcome.report.read_text().splitlines())
    reason = "has a point that groups no thousands, where the mapping says that decimals have commas"
    assert entry == {"line": 3, "field": "cells_per_vial_1e6", "reason": reason, "value": written}


@pytest.mark.parametrize(
    ("numbers", "drafted"),
    [
        (["1,5", "2"], ['decimal = ","']),
        (["1,234", "1,25"], ['decimal = ","']),
        (["1,234", "12,500", "7"], ['# decimal = ","  # ? do commas part decimals here, or thousands?']),
        (["1,234,567", "12,500"], ['# decimal = ","  # ? do commas part decimals here, or thousands?']),
        (["1.5", "2"], []),
    ],
)
def test_a_draft_asks_what_commas_before_three_digits_mean(
    center: SmallCenter, numbers: list[str], drafted: list[str]
) -> None:
    file = center.folder / "numbers.csv"
    file.write_text("id;cells_per_vial_1e6\n" + "".join(f"B{number};{value}\n" for number, value in enumerate(numbers)))
    lines = draft_text(file, DICTIONARY, dataset="lots", mapping=Mapping(), named=None).splitlines()
    found = [line for line in lines if "decimal = " in line]
    assert [line[: len(start)] for line, start in zip(found, drafted, strict=True)] == drafted


@pytest.mark.parametrize(
    ("name", "numbers", "drafted"),
    [
        ("cells_per_vial_1e6", ["1.234", "12.500", "7"], ['# decimal = ","  # ? is 1.234 here 1234']),
        ("cells_per_vial_1e6", ["1.234", "12.5"], []),
        ("cells_per_vial_1e6", ["1.234", "0.125"], []),
        ("cells_per_vial_1e6", ["1.234", "7,5"], ['decimal = ","']),
        ("vials_made", ["1.000", "7"], ['# decimal = ","  # ? is 1.000 here 1000']),
        ("vials_made", ["1000", "7"], []),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "typed.jsonl", "typed.parquet"])
def test_a_draft_asks_what_points_before_three_digits_mean(
    center: SmallCenter, name: str, numbers: list[str], drafted: list[str], kind: str
) -> None:
    file = center.folder / f"points.{kind}"
    rows = [{"id": f"B{number}", name: value} for number, value in enumerate(numbers)]
    if "typed" in kind:
        if any("," in number for number in numbers):
            pytest.skip("a number in a file has no comma")
        rows, drafted = [{**row, name: float(row[name])} for row in rows], []
    if "json" in kind:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif "parquet" in kind:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        file.write_text(f"id;{name}\n" + "".join(f"{row['id']};{row[name]}\n" for row in rows))
    lines = draft_text(file, DICTIONARY, dataset="lots", mapping=Mapping(), named=None).splitlines()
    found = [line for line in lines if "decimal = " in line]
    assert [line[: len(start)] for line, start in zip(found, drafted, strict=True)] == drafted


@pytest.mark.parametrize(
    ("cells", "drafted"),
    [
        (["1,5", "2,25", "0"], ['decimal = ","']),
        (["1.234", "12.500", "NA"], ['# decimal = ","  # ? is 1.234 here 1234']),
        (["1.234", "12.5", "0"], []),
    ],
)
def test_a_draft_of_a_matrix_asks_what_its_numbers_mean(
    center: SmallCenter, cells: list[str], drafted: list[str]
) -> None:
    file = center.folder / "matrix.tsv"
    rows = [["UniProt", "A", "B", "C"], *([f"P{number:05d}", *[cell] * 3] for number, cell in enumerate(cells))]
    file.write_text("".join("\t".join(row) + "\n" for row in rows))
    text = draft_text(file, DICTIONARY, dataset="", mapping=Mapping(), named=None)
    found = [line for line in text.splitlines() if "decimal = " in line]
    assert [line[: len(start)] for line, start in zip(found, drafted, strict=True)] == drafted
    made = center.folder / "matrix.toml"
    made.write_text(text)
    assert load_mapping(made).dataset == "protein_abundance"
    assert ("intensity" in load_mapping(made).columns) == bool(drafted)


@pytest.mark.parametrize(
    ("written", "mapping", "kept"),
    [
        ("1.000", "", None),
        ("-12.000", "", None),
        ("1000.000", "", "1000.000"),
        ("7.0", "", "7.0"),
        ("1.000", 'columns.vials_made = { from = "vials_made", decimal = "," }', "1000"),
    ],
)
def test_a_whole_number_that_may_be_a_thousand_is_a_bad_row(
    center: SmallCenter, written: str, mapping: str, kept: str | None
) -> None:
    content = f"id;cell_line_id;lot_no;bank_level;status;vials_made\nB1;L1;1;MCB;released;{written}\n"
    outcome = load(center, "lots", content, mapping, dry_run=True)
    assert [row["vials_made"] for row in outcome.preview] == [kept] * (kept is not None)
    assert any("ones or thousands" in problem.reason for problem in outcome.problems) == (kept is None)


def test_decimals_of_a_database_are_whole_numbers_where_they_are(center: SmallCenter) -> None:
    lots = {"id": "B1", "cell_line_id": "L1", "lot_no": "1", "bank_level": "MCB", "status": "released"}
    file = center.folder / "decimals.parquet"
    table = pyarrow.Table.from_pylist(
        [{**lots, "vials_made": Decimal("10.000"), "cells_per_vial_1e6": Decimal("1.50")}]
    )
    pyarrow.parquet.write_table(table, file)
    outcome = center.importer.run("lots", file, ImportOptions(by="steward", dry_run=True))
    (row,) = outcome.preview
    assert (row["vials_made"], row["cells_per_vial_1e6"]) == ("10", "1.5")


def test_an_age_in_a_unit_that_is_none_of_time_is_refused(center: SmallCenter) -> None:
    mapping = 'columns.age_range_y = { from = "age", ages = true, unit = "kg" }'
    assert "no way from 'kg'" in refused(center, "donors", "id;sex;age\nD1;male;44\n", mapping).public


def test_a_draft_guesses_names_units_codes_and_dates(center: SmallCenter) -> None:
    file = center.folder / "lots.csv"
    file.write_text(textwrap.dedent(LOTS).lstrip().replace("Zellen (cells)", "Cells per vial (cells)"))
    text = draft_text(file, DICTIONARY, dataset="lots", mapping=Mapping(), named=None)
    for said in (
        'missing = ["k.A."]',
        '"Größe",  # no field looks like it',
        'from = "Zelllinie"',
        'unit = "cells"',
        'decimal = ","',
        'date = "%d.%m.%Y"',
        '"Master" = "MCB"',
        '"gesperrt" = "?"',
        "Required, and no column looks like it: Identifier of the lot",
    ):
        assert said in text
    path = center.folder / "drafted.toml"
    path.write_text(text, encoding="utf-8")
    assert load_mapping(path).dataset == "lots"


def test_a_draft_excludes_what_tells_of_persons_and_guesses_the_dataset(center: SmallCenter) -> None:
    file = center.folder / "people.csv"
    file.write_text("donor_id,Geschlecht,Nachname,Diagnose\nD1,w,Meyer,ALS\nD2,m,Weber,\n")
    text = draft_text(file, DICTIONARY, mapping=Mapping(), dataset="donors", named=None)
    path = center.folder / "drafted.toml"
    path.write_text(text, encoding="utf-8")
    mapping = load_mapping(path)
    assert "Nachname" in mapping.exclude
    assert mapping.columns["sex"].values == {"m": "male", "w": "female"}
    assert mapping.columns["primary_disease_term"].values == {"ALS": "?"}
    lines = center.folder / "lines.csv"
    lines.write_text("id,donor_id,type,grade,hpscreg_name,rrid\nL1,D1,hiPSC,research,UKKi001-A,CVCL_1234\n")
    assert 'dataset = "cell_lines"' in draft_text(lines, DICTIONARY, mapping=Mapping(), named=None)


def test_a_draft_of_a_whole_file_can_be_imported_as_it_is(center: SmallCenter) -> None:
    file = center.folder / "donors.csv"
    file.write_text("ID,Gender,Country,E-Mail\nD1,F,DE,a@b.de\nD2,M,NA,c@d.de\n")
    path = center.folder / "drafted.toml"
    path.write_text(draft_text(file, DICTIONARY, mapping=Mapping(), dataset="donors", named=None), encoding="utf-8")
    options = ImportOptions(by="steward", mapping=load_mapping(path), dry_run=True)
    outcome = center.importer.run("donors", file, options)
    assert outcome.bad_rows == 0
    assert [row.get("country_iso2") for row in outcome.preview] == ["DE", None]


FULL = """
import hashlib, resource, signal, sys
from pathlib import Path
from connexon_node.importing import staging
from tests.support.center import SmallCenter
center = SmallCenter(Path(sys.argv[1]))
staging._MEMORY = sys.argv[2]
path = center.write("cell_lines", [
    {"id": hashlib.md5(str(number).encode()).hexdigest(), "donor_id": "D1", "type": "iPSC", "grade": "research"}
    for number in range(int(sys.argv[3]))
])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
try:
    center.load("cell_lines", path)
except Exception as error:
    print(getattr(error, "code", repr(error)))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(len(center.rows("cell_lines")), center.count("cell_lines"))
center.close()
"""


@pytest.mark.parametrize(
    ("memory", "rows"), [("450MB", 40_000), ("80MB", 400_000)], ids=["when written", "when staged"]
)
def test_a_disk_that_fills_leaves_what_was_served(tmp_path: Path, memory: str, rows: int) -> None:
    made = SmallCenter(tmp_path / "node")
    made.load_rows("donors", [{"id": "D1", "sex": "male"}])
    made.load_rows(
        "consents",
        [
            {
                "id": "C1",
                "donor_id": "D1",
                "form_version": "1",
                "obtained_on": "2024-01-01",
                "status": "active",
                "scope": "research",
                "duo_permission": "DUO:0000042",
            }
        ],
    )
    made.load_rows("cell_lines", [{"id": "L1", "donor_id": "D1", "type": "iPSC", "grade": "research"}])
    made.close()
    said = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "node"), memory, str(rows)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.stdout.split() == ["import.disk_full", "1", "1"], said.stderr
    assert [path.name for path in (tmp_path / "node" / "data" / "cell_lines").iterdir()] == ["000001"]


def test_a_number_is_what_is_written_like_one() -> None:
    written = re.compile(r"[ \t\n]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n]*")
    shapes = [
        *itertools.product("019._eE+-x,\u0661\u00a0\t \x00\x01", repeat=4),
        *itertools.product("0.e+-_", repeat=6),
    ]
    values = ["".join(shape[:length]) for shape in shapes for length in range(1, len(shape) + 1)]
    values += ["inf", "-infinity", "NaN", "true", "0x10", "1e400", "1.5e-3"]
    with duckdb.connect() as connection:
        connection.register("given", pyarrow.table({"x": list(dict.fromkeys(values))}))
        taken = connection.execute(f"SELECT x FROM given WHERE NOT ({no_number(quoted('x'))})").fetchall()
    right = {value for value in values if written.fullmatch(value) and value != "1e400"}
    assert {value for (value,) in taken} == right


def test_a_text_that_is_no_number_is_not_converted(center: SmallCenter) -> None:
    outcome = load(center, "lots", LOTS.replace("2.000.000", "2_0"), TO_LOTS)
    assert [(problem.field, problem.rows) for problem in outcome.problems] == [("cells_per_vial_1e6", 1)]


def test_texts_are_trimmed_alike_however_plain_they_are() -> None:
    spaces = [" ", "\t", "\u00a0", "\u2003", "\u3000", "\u200b", "\x7f", "\x01"]
    cores = ["", "a", "é", "a b", "!", "~"]
    values = [None, *(before + core + after for before in ["", *spaces] for core in cores for after in ["", *spaces])]
    with duckdb.connect() as connection:
        connection.register("given", pyarrow.table({"x": values}))
        unlike = connection.execute(
            f"SELECT count(*) FROM given WHERE ({_trimmed(quoted('x'), 'x')}) IS DISTINCT FROM nullif(trim(x), '')"
        ).fetchall()
    assert unlike == [(0,)]
