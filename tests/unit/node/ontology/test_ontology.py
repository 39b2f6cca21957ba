"""Ontologies: read, compiled once, and asked up and down."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from connexon.errors import InvalidQuery, Misconfigured
from connexon_node import ontology
from connexon_node.ontology import INDEX, Ontologies

OBO = """format-version: 1.2
data-version: releases/2026-01-01
ontology: mondo

[Term]
id: MONDO:1
name: disease

[Term]
id: MONDO:2
name: nervous system disorder {source="x"}
is_a: MONDO:1 ! disease
alt_id: MONDO:22

[Term]
id: MONDO:3
name: Parkinson disease
is_a: MONDO:2 {is_inferred="true"} ! nervous system disorder

[Term]
id: MONDO:30
name: obsolete shaking palsy
is_obsolete: true
replaced_by: MONDO:3

[Term]
id: MONDO:31
name: obsolete humors
is_obsolete: true

[Term]
id: MONDO:32
name: obsolete split in two
is_obsolete: true
replaced_by: MONDO:2
replaced_by: MONDO:3

[Typedef]
id: part_of
is_a: overlaps
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mondo.obo").write_text(OBO)
    return tmp_path


def test_up_and_down_use_the_same_edges(folder: Path) -> None:
    known = Ontologies.open(folder)
    assert known.ancestors("MONDO:3") == {"MONDO:1", "MONDO:2", "MONDO:3"}
    assert known.descendants("MONDO:2") == {"MONDO:2", "MONDO:3"}
    assert known.label("MONDO:3") == "Parkinson disease"
    assert not known.knows("part_of")


def test_alternative_and_replaced_ids_stand_for_the_present_term(folder: Path) -> None:
    known = Ontologies.open(folder)
    assert known.resolve("MONDO:22") == "MONDO:2"
    assert known.resolve("MONDO:30") == "MONDO:3"
    assert known.descendants("MONDO:22") == known.descendants("MONDO:2") == {"MONDO:2", "MONDO:3"}
    assert known.knows("MONDO:30")


@pytest.mark.parametrize(
    ("term", "code"),
    [
        ("MONDO:31", "ontology.obsolete_term"),
        ("MONDO:32", "ontology.obsolete_term"),
        ("MONDO:999", "ontology.unknown_term"),
        ("CL:1", "ontology.unknown_term"),
        ("MONDO:Ω", "ontology.unknown_term"),
        ("", "ontology.unknown_term"),
    ],
)
def test_a_term_that_stands_for_nothing_is_refused(folder: Path, term: str, code: str) -> None:
    known = Ontologies.open(folder)
    assert not known.knows(term)
    with pytest.raises(InvalidQuery) as caught:
        known.ancestors(term)
    assert caught.value.code == code


def test_an_empty_folder_knows_nothing(tmp_path: Path) -> None:
    known = Ontologies.open(tmp_path)
    assert (len(known), known.versions, known.knows("MONDO:1"), known.version("MONDO")) == (0, {}, False, "")
    with pytest.raises(InvalidQuery, match="it has none of MONDO"):
        known.resolve("MONDO:1")
    assert Ontologies.open(tmp_path / "missing").files == ()


def test_the_version_is_the_files_own_or_a_digest(folder: Path) -> None:
    assert Ontologies.open(folder).version("MONDO") == "releases/2026-01-01"
    (folder / "cl.obo").write_text("[Term]\nid: CL:1\n\n[Term]\nid: CL:2\nis_a: UBERON:1\n")
    known = Ontologies.open(folder)
    assert known.version("CL").startswith("sha256:")
    assert known.version("UBERON") == ""


def test_the_index_is_made_once_and_made_anew_when_a_file_changes(folder: Path) -> None:
    known = Ontologies.open(folder)
    made = (folder / INDEX).stat().st_mtime_ns
    Ontologies.open(folder)
    assert (folder / INDEX).stat().st_mtime_ns == made
    assert not known.refresh()
    (folder / "mondo.obo").write_text(OBO.replace("releases/2026-01-01", "releases/2026-02-01"))
    assert known.refresh()
    assert known.version("MONDO") == "releases/2026-02-01"
    assert (folder / INDEX).stat().st_mtime_ns != made


@pytest.mark.parametrize("keep", [0, 8, 20, 200], ids=lambda keep: f"{keep} bytes")
def test_a_damaged_index_is_made_anew(folder: Path, keep: int) -> None:
    Ontologies.open(folder)
    (folder / INDEX).write_bytes((folder / INDEX).read_bytes()[:keep])
    assert Ontologies.open(folder).ancestors("MONDO:2") == {"MONDO:1", "MONDO:2"}


def test_a_cycle_is_refused_and_shown(folder: Path) -> None:
    (folder / "mondo.obo").write_text(OBO.replace("name: disease\n", "name: disease\nis_a: MONDO:3\n"))
    with pytest.raises(Misconfigured, match="MONDO:1 -> MONDO:3 -> MONDO:2 -> MONDO:1") as caught:
        Ontologies.open(folder)
    assert caught.value.code == "ontology.cycle"


def test_while_a_changed_file_is_wrong_what_was_known_stays(folder: Path) -> None:
    known = Ontologies.open(folder)
    (folder / "mondo.obo").write_text("this is no ontology")
    with pytest.raises(Misconfigured, match=r"mondo\.obo line 1"):
        known.refresh()
    assert known.knows("MONDO:3")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.obo", "[Term]\nname: nobody\n", "line 2: a [Term] must begin with its id"),
        ("a.obo", "[Term]\nid:\n", "line 2"),
        ("a.obo", "ontology: empty\n", "no terms in it"),
        ("a.tsv", "a\tb\n", "line 1: expected the columns"),
        ("a.tsv", "subject\tsubject_label\tparent\tparent_label\nMONDO:1\tx\n", "line 2: expected 4 columns"),
        ("a.obo", b"\xff\xfe\x00", "cannot be read as text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Misconfigured) as caught:
        Ontologies.open(tmp_path)
    assert said in caught.value.public
    assert caught.value.public.startswith(name)


def test_a_new_file_that_is_wrong_is_not_installed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    bad = tmp_path_factory.mktemp("bad") / "cl.obo"
    bad.write_text("[Term]\nid: MONDO:1\nis_a: MONDO:3\n")
    with pytest.raises(Misconfigured):
        ontology.install([bad], folder)
    assert Ontologies.open(folder).files == ("mondo.obo",)
    assert [path.name for path in folder.iterdir() if path.name != INDEX] == ["mondo.obo"]


def test_the_demonstration_knows_the_terms_of_the_examples() -> None:
    known = ontology.demonstration()
    assert "MONDO:0005071" in known.ancestors("MONDO:0008199")
    for term in ("CL:0000700", "HANCESTRO:0019", "DUO:0000042", "EFO:0008896"):
        assert known.label(term)


def test_tab_separated_edges_and_obo_agree_on_real_files(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy2(shared_data / "mondo" / "mondo_rare_isa.tsv", tmp_path)
    shutil.copy2(shared_data / "cl" / "general_cell_types_upper_slim.obo", tmp_path)
    known = Ontologies.open(tmp_path)
    assert "MONDO:0021095" in known.ancestors("MONDO:0008199")
    assert "CL:0000540" in known.descendants("CL:0002319")
    assert known.label("CL:0000540") == "neuron"


def _above(number: int, parents: dict[int, set[int]]) -> set[int]:
    return {number}.union(*(_above(parent, parents) for parent in parents[number]))


def test_closures_are_right_on_random_graphs(tmp_path: Path) -> None:
    for seed in range(5):
        draw = random.Random(seed)
        parents = {
            number: {draw.randrange(number) for _ in range(draw.randrange(3))} if number else set()
            for number in range(60)
        }
        lines = [f"[Term]\nid: X:{n}\n" + "".join(f"is_a: X:{p}\n" for p in above) for n, above in parents.items()]
        draw.shuffle(lines)
        (tmp_path / "x.obo").write_text("\n".join(lines))
        known = Ontologies.open(tmp_path)

        for number in parents:
            assert known.ancestors(f"X:{number}") == {f"X:{one}" for one in _above(number, parents)}
            below = {one for one in parents if number in _above(one, parents)}
            assert known.descendants(f"X:{number}") == {f"X:{one}" for one in below}


OWL = """<?xml version="1.0"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#"
     xmlns:owl="http://www.w3.org/2002/07/owl#" xmlns:obo="http://purl.obolibrary.org/obo/"
     xmlns:oboInOwl="http://www.geneontology.org/formats/oboInOwl#">
  <owl:Ontology rdf:about="http://www.ebi.ac.uk/efo/efo.owl"><owl:versionInfo>3.70</owl:versionInfo></owl:Ontology>
  <owl:Class rdf:about="http://www.ebi.ac.uk/efo/EFO_0000001"><rdfs:label>assay</rdfs:label></owl:Class>
  <owl:Class rdf:about="http://www.ebi.ac.uk/efo/EFO_0000002">
    <rdfs:subClassOf rdf:resource="http://www.ebi.ac.uk/efo/EFO_0000001"/>
    <rdfs:subClassOf><owl:Restriction/></rdfs:subClassOf>
    <oboInOwl:hasAlternativeId>EFO:0000022</oboInOwl:hasAlternativeId>
    <rdfs:label>RNA assay</rdfs:label>
  </owl:Class>
  <owl:Class rdf:about="http://www.ebi.ac.uk/efo/EFO_0000009">
    <owl:deprecated>true</owl:deprecated>
    <obo:IAO_0100001 rdf:resource="http://www.ebi.ac.uk/efo/EFO_0000002"/>
  </owl:Class>
</rdf:RDF>
"""


def test_owl_is_read_like_obo(tmp_path: Path) -> None:
    (tmp_path / "efo.owl").write_text(OWL)
    known = Ontologies.open(tmp_path)
    assert known.version("EFO") == "3.70"
    assert known.ancestors("EFO:0000002") == {"EFO:0000001", "EFO:0000002"}
    assert known.resolve("EFO:0000022") == known.resolve("EFO:0000009") == "EFO:0000002"
    assert known.label("EFO:0000002") == "RNA assay"


def test_owl_that_is_no_xml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "efo.owl").write_text(OWL.replace("</owl:Ontology>", "</oops>"))
    with pytest.raises(Misconfigured, match=r"efo\.owl line 5"):
        Ontologies.open(tmp_path)


def test_the_published_duo_is_read_with_its_misspelled_id_set_right(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy2(shared_data / "duo" / "duo-basic.owl", tmp_path)
    known = Ontologies.open(tmp_path)
    assert known.label("DUO:0000044") == "population origins or ancestry research prohibited"
    assert known.ancestors("DUO:0000007") >= {"DUO:0000006", "DUO:0000042", "DUO:0000001"}
    assert "2021-02-23" in known.version("DUO")
