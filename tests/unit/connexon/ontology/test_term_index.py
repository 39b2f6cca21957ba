"""Terms found by the words that people use."""

from __future__ import annotations

from pathlib import Path

import pytest

from connexon.ontology.named import NamedTerm
from connexon.ontology.term_index import TermIndex

TERMS = (
    NamedTerm("MONDO:0005180", "Parkinson disease", ("Parkinson's disease", "paralysis agitans")),
    NamedTerm("MONDO:0008199", "late-onset Parkinson disease"),
    NamedTerm("MONDO:0004976", "amyotrophic lateral sclerosis", ("Lou Gehrig disease",)),
    NamedTerm("MONDO:0018958", "Sjögren syndrome"),
)


@pytest.fixture
def index(tmp_path: Path) -> TermIndex:
    index = TermIndex(tmp_path / "terms.sqlite")
    assert index.find("parkinson") == []
    index.add(TERMS, source="catalog of lyon", version="1", own=False)
    return index


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("parkinson", "MONDO:0005180"),
        ("PARKINSON’S", "MONDO:0005180"),
        ("parkinsn", "MONDO:0005180"),
        ("agitans", "MONDO:0005180"),
        ("MONDO:0004976", "MONDO:0004976"),
        ("lou gehrig", "MONDO:0004976"),
        ("sjogren", "MONDO:0018958"),
    ],
)
def test_a_term_is_found_by_label_synonym_id_and_misspelling(index: TermIndex, words: str, found: str) -> None:
    assert index.find(words)[0].id == found


def test_what_fits_nothing_finds_nothing(index: TermIndex) -> None:
    assert index.find("xyzzyq") == index.find("   ") == []


def test_only_a_whole_name_calls_a_term(index: TermIndex) -> None:
    assert [hit.id for hit in index.called("parkinson’s Disease")] == ["MONDO:0005180"]
    assert index.called("parkinson") == []


def test_the_ontologys_own_file_goes_before_what_a_center_tells(index: TermIndex) -> None:
    index.add([NamedTerm("MONDO:0005180", "Parkinson disease (own)")], source="MONDO", version="2", own=True)
    index.add(TERMS, source="catalog of kyoto", version="1", own=False)
    assert index.labels(["MONDO:0005180", "MONDO:0004976", "MONDO:9"]) == {
        "MONDO:0005180": "Parkinson disease (own)",
        "MONDO:0004976": "amyotrophic lateral sclerosis",
    }
