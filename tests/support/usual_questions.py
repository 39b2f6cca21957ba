"""Thirty questions that researchers usually ask about a bank: what usefulness is measured by."""

from __future__ import annotations

from connexon.query.question import Question
from tests.support.editions import EditionCenter

FROM_TABLES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("donors", "", ()),
    ("donors", "", ("sex",)),
    ("donors", "", ("sex", "age_range_y")),
    ("donors", "", ("primary_disease_term",)),
    ("donors", "", ("country_iso2",)),
    ("donors", "primary_disease_term = 'MONDO:0005180'", ("sex",)),
    ("donors", "primary_disease_term = 'MONDO:0005180' and has cell_lines (type = 'iPSC')", ()),
    ("cell_lines", "", ("type",)),
    ("cell_lines", "grade = 'clinical'", ()),
    ("cell_lines", "availability = 'available'", ("donor.primary_disease_term",)),
    ("lots", "status = 'released'", ("donor.primary_disease_term",)),
    ("differentiation_runs", "success = true", ("donor.primary_disease_term",)),
)
"""What first-ask tables answer."""
CHARGED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("donors", "age_range_y in ('60-64', '65-69', '70-74')", ("primary_disease_term",)),
    ("cell_lines", "type = 'iPSC' and xeno_free = true and grade = 'clinical'", ()),
    ("cell_lines", "type = 'iPSC' and xeno_free = true", ("donor.sex",)),
    ("cell_lines", "", ("grade",)),
    ("cell_lines", "", ("reprogramming_method",)),
    ("cell_lines", "", ("status", "availability")),
    ("cell_lines", "type = 'iPSC'", ("genetic_modification",)),
    ("cell_lines", "", ("donor.country_iso2",)),
    ("lots", "", ("bank_level",)),
    ("lots", "", ("bank_level", "status")),
    ("lots", "bank_level = 'MCB' and status = 'released'", ("donor.sex",)),
    ("differentiation_runs", "", ("success",)),
    ("differentiation_runs", "success = true", ("donor.sex",)),
    ("karyotype_findings", "", ("significance",)),
    ("quality_tests", "", ("verdict",)),
    ("quality_tests", "verdict = 'fail'", ()),
    ("shipments", "", ("condition",)),
    ("adverse_events", "serious = true", ("related",)),
)
"""What is counted anew, within 8."""
WITHIN = 8


def usual_questions(center: EditionCenter, *, within: int | None = WITHIN) -> list[Question]:
    """All thirty, in this order."""
    free = [center.question(dataset, where, *by) for dataset, where, by in FROM_TABLES]
    return free + [center.question(dataset, where, *by, within=within) for dataset, where, by in CHARGED]
