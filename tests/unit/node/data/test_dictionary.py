from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connexon.errors import InvalidQuery, NotFound
from connexon_node.cli import app
from connexon_node.data.dictionary import (
    DICTIONARY,
    KEY,
    Dataset,
    Dictionary,
    Field,
    FieldType,
    Form,
    Sensitivity,
    documentation,
    patterns,
    relations,
)


def test_every_row_of_personal_data_leads_to_people_by_every_path() -> None:
    def steps(dataset: Dataset, above: tuple[Dataset, ...] = ()) -> int:
        assert dataset not in above
        if dataset.introduces_donors:
            return 0
        return 1 + max(steps(parent, (*above, dataset)) for parent in DICTIONARY.parents(dataset))

    found = {dataset.name: steps(dataset) for dataset in DICTIONARY.datasets if dataset.personal}
    assert (found["lots"], found["expression"], found["batch_steps"]) == (2, 6, 4)
    assert {"protocols", "control_runs", "trials", "specification_items"} == {
        "protocols",
        "control_runs",
        "trials",
        "specification_items",
    } - found.keys()


def test_keys_and_references_are_never_offered_to_researchers() -> None:
    for dataset in DICTIONARY.datasets:
        if KEY in dataset.names:
            assert dataset.field(KEY).required
            assert dataset.field(KEY).unique
        for field in dataset.fields:
            if field.name == KEY or field.references or field.name in ("hpscreg_name", "rrid", "biosample_id"):
                assert field.identifying


def test_what_identifies_people_is_restricted_and_never_grouped_by() -> None:
    for name in ("str_alleles", "hla_typings", "variants"):
        assert DICTIONARY.dataset(name).sensitivity is Sensitivity.RESTRICTED
    for dataset, field in (("hla_typings", "allele1"), ("variants", "pos"), ("variants", "hgvs_c")):
        assert not DICTIONARY.dataset(dataset).field(field).groupable
    assert DICTIONARY.dataset("str_alleles").field("allele").identifying
    assert re.fullmatch(DICTIONARY.dataset("methylation").field("probe_id").identifying_values, "rs1019916")


def test_titles_are_one_line_and_bounds_make_sense() -> None:
    for dataset in DICTIONARY.datasets:
        for title in (dataset.title, *(field.title for field in dataset.fields)):
            assert title
            assert "\n" not in title
            assert not title.endswith(".")
        for field in dataset.fields:
            if field.minimum is not None and field.maximum is not None:
                assert field.minimum < field.maximum
            assert not field.values or field.type is FieldType.TEXT


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(InvalidQuery) as caught:
        DICTIONARY.dataset("cell_lines").field("disease_termm")
    assert caught.value.code == "field.not_offered"
    assert "disease_term" in caught.value.public


def test_the_nearest_never_names_an_identifying_field() -> None:
    with pytest.raises(InvalidQuery) as caught:
        DICTIONARY.dataset("cell_lines").field("donor_idd")
    assert "donor_id " not in caught.value.public.replace("donor_idd", "")


def test_an_unknown_dataset_is_not_offered() -> None:
    with pytest.raises(NotFound) as caught:
        DICTIONARY.dataset("spaceships")
    assert caught.value.code == "dataset.not_offered"


def test_a_dictionary_that_contradicts_itself_is_refused() -> None:
    lots = DICTIONARY.dataset("lots")
    without_path = dataclasses.replace(lots, fields=tuple(f for f in lots.fields if f.name != "cell_line_id"))
    twice = dataclasses.replace(lots, fields=(*lots.fields, lots.fields[1]))
    no_ontology = dataclasses.replace(
        lots, fields=(*lots.fields, Field(name="cell_term", type=FieldType.TERM, title="Cell"))
    )
    for wrong in (without_path, twice, no_ontology):
        with pytest.raises(ValueError, match="lots"):
            Dictionary("test", tuple(wrong if one is lots else one for one in DICTIONARY.datasets))


@pytest.mark.parametrize("name", ["UKKi023-A", "BIONi010-C", "STBCi026-B-1", "WAe001-A"])
def test_registry_names_fit_both_patterns(name: str) -> None:
    assert re.fullmatch(patterns.HPSCREG_NAME.pattern, name)
    assert re.fullmatch(patterns.HPSCREG_NAME.usual, name)


def test_a_single_european_code_has_forty_characters() -> None:
    code = "DE" + "0000AB" + "0000000000001" + "E" + "0000001" + "A01" + "20261231"
    assert len(code) == 40
    assert re.fullmatch(patterns.SEC.pattern, code)
    assert not re.fullmatch(patterns.SEC.pattern, code[:-1])
    assert not re.fullmatch(patterns.SEC.pattern, code.replace("E0", "C0"))


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        (
            patterns.HGVS_C,
            "c.742C>T NM_000546.6:c.215del c.77_78insGA c.88+2T>G c.-14G>C c.*32A>G",
            "742C>T c.C742T c.",
        ),
        (
            patterns.HGVS_P,
            "p.Arg248Gln p.(Gly12Asp) p.Gln18Ter p.Arg97ProfsTer23 p.Lys23_Val25del p.= NP_000537.3:p.Arg175His",
            "p.R248Q R248Q p.Arg248 p.Xyz1Arg",
        ),
        (patterns.ISCN, "46,XX 47,XY,+12[5]/46,XY[15] 46,XX,dup(20)(q11.21q11.21)", "normal 46XX 46,XX/"),
        (patterns.STR_ALLELE, "12 9.3 X", "12,13 Z 9.0"),
        (patterns.HLA_ALLELE, "24:02 02:01:01 01:01:01:02N", "A*24:02 2 24:2"),
        (patterns.UNIPROT, "P04637 A0A024RBG1 Q9NPF5-2", "TP53 P0463"),
        (patterns.ENSEMBL, "ENSG00000111640 ENSMUSG00000057666", "ENST00000111640 ENSG00000111640.15"),
        (patterns.PROBE, "cg00000029 rs1019916", "cg29"),
    ],
)
def test_forms_take_the_common_and_refuse_the_wrong(form: Form, right: str, wrong: str) -> None:
    for text in right.split():
        assert re.fullmatch(form.pattern, text), text
    for text in wrong.split():
        assert not re.fullmatch(form.pattern, text), text


def test_the_reference_page_is_current() -> None:
    page_on_disk = Path(__file__).parents[4] / "docs" / "dictionary.md"
    assert page_on_disk.read_text(encoding="utf-8") == documentation.markdown(DICTIONARY), (
        "write it again:  connexon-node dictionary --markdown > docs/dictionary.md"
    )


def test_the_command_shows_datasets_fields_and_json() -> None:
    shown = CliRunner().invoke(app, ["dictionary"])
    assert all(dataset.name in shown.stdout for dataset in DICTIONARY.datasets)
    fields = CliRunner().invoke(app, ["dictionary", "samples"])
    assert "lot_id or run_id or timepoint_id" in " ".join(fields.stdout.split())
    document = json.loads(CliRunner().invoke(app, ["dictionary", "protocols", "--json"]).stdout)
    assert (document["version"], document["datasets"][0]["personal"]) == (DICTIONARY.version, False)


def test_ways_lead_where_references_and_donor_paths_lead() -> None:
    ways = {
        name: step.target.name for name, step in relations.steps(DICTIONARY, DICTIONARY.dataset("expression")).items()
    }
    assert ways == {
        "sample": "samples",
        "lot": "lots",
        "run": "differentiation_runs",
        "timepoint": "timepoints",
        "cell_line": "cell_lines",
        "donor": "donors",
    }
