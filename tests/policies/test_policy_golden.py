"""The 25 published matchings of consents and requests, judged with the real MONDO file."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from connexon.identity.roster import OrganisationKind
from connexon.query import purpose as purposes
from connexon.query.question import Purpose
from connexon_node.consent.evaluation import Verdict
from connexon_node.consent.profile import ConsentProfile
from connexon_node.ontology import Ontologies
from tests.support.rules import asking, judged, requester, shipped_rules

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "duo_matching.csv"
RESEARCH = {
    "POA": purposes.ANCESTRY,
    "HMB": purposes.HEALTH,
    "clinical care": purposes.CLINICAL_CARE,
    "methods development": purposes.METHODS,
    "phenotype-only study": purposes.HEALTH,
}


def _rows() -> list[dict[str, str]]:
    if not GOLDEN.is_file():
        return []
    with GOLDEN.open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def mondo(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ontologies:
    folder = tmp_path_factory.mktemp("mondo")
    shutil.copy2(shared_data / "mondo" / "mondo_rare_isa.tsv", folder)
    return Ontologies.open(folder)


def _consent(terms: str) -> ConsentProfile:
    permission, *modifiers = terms.replace("(no DUO term)", "").split("+")
    return ConsentProfile.parse(permission, modifiers)


def _purpose(text: str, *, commercial: bool) -> Purpose:
    words, _, disease = text.rpartition(" for ") if " for MONDO" in text else (text, "", "")
    if words.startswith("MONDO:"):
        return Purpose(research=(purposes.DISEASE,), disease=words, commercial_use=commercial, project="study")
    return Purpose(research=(RESEARCH[words],), disease=disease, commercial_use=commercial, project="study")


@pytest.mark.skipif(not GOLDEN.is_file(), reason="The golden table is not beside the project (../shared/golden).")
def test_the_table_is_whole() -> None:
    assert len(_rows()) == 25


@pytest.mark.parametrize("row", _rows(), ids=lambda row: f"{row['id']} {row['why']}")
def test_a_published_matching_comes_out_as_published(row: dict[str, str], mondo: Ontologies) -> None:
    said = row["requester"].split(";")
    named = dict(re.findall(r"(\w+)=([^;]+)", row["requester"]))
    who = requester(
        OrganisationKind.COMMERCIAL if "forprofit" in said else OrganisationKind.NON_PROFIT,
        country=named.get("country", "FR"),
        approvals={"study": named["approved"]} if "approved" in named else None,
    )
    request = asking(
        _purpose(row["purpose"], commercial="commercial" in said),
        who,
        ontologies=mondo,
        on=named.get("now", "2026-02-01"),
    )
    (judgement,) = judged(request, _consent(row["dataset_terms"]), ontologies=mondo)
    allowed, _, obligation = row["expected"].partition("+")
    assert judgement.verdict is (Verdict.PERMIT if allowed == "allow" else Verdict.DENY)
    assert bool(judgement.duties) == bool(obligation)
    assert all(rule in shipped_rules().rules for rule in judgement.rules)
