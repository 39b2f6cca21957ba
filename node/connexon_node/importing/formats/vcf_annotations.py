"""Annotations of variants: which of VEP's or SnpEff's consequences of an allele is the variant's, and its HGVS.

VEP lists the consequences of all transcripts and regulatory features near a variant, in no order of weight. The one
that the file marks is taken (PICK, then MANE, then CANONICAL); else the heaviest that has a gene. A neighbour that is
but upstream or downstream of the variant is not its gene, unless the file picks it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from connexon_node.data.dictionary import patterns
from connexon_node.importing.sql import text

_NEIGHBOUR = r"(upstream|downstream)_gene_variant|intergenic_(region|variant)"
_WEIGHTS = {"HIGH": 4, "MODERATE": 3, "LOW": 2, "MODIFIER": 1}
_MARKS = ("pick", "mane_select", "mane", "canonical")
UNMARKED = (
    "records have consequences of several transcripts and the file marks none (PICK, MANE, CANONICAL): the heaviest "
    "that has a gene was taken"
)
NO_CODING = "alleles have no hgvs_c: what the file says is no change of coding DNA that can be kept, such as n."
NO_PROTEIN = "alleles have no hgvs_p: what the file says is no change of protein that can be kept"


@dataclass(frozen=True)
class Annotation:
    """An INFO key, and the positions of what its entries tell, from 1; 0 where they do not."""

    key: str
    places: dict[str, int]

    def part(self, name: str, entry: str = "e") -> str:
        """SQL of one part of an entry; the empty text where there is none."""
        place = self.places.get(name, 0)
        return f"split_part({entry}, '|', {place})" if place else "''"

    @property
    def marks(self) -> bool:
        """Whether the file can mark one of several consequences."""
        return any(name in self.places for name in _MARKS)


def found(header: str) -> list[Annotation]:
    """The annotations that a header declares with allele, gene and HGVS: SnpEff's ANN or VEP's CSQ."""
    told = []
    for key, names in (
        (
            "ANN",
            {"allele": "allele", "gene_name": "gene", "hgvs.c": "hgvs_c", "hgvs.p": "hgvs_p", "annotation": "what"},
        ),
        ("CSQ", {"allele": "allele", "symbol": "gene", "hgvsc": "hgvs_c", "hgvsp": "hgvs_p", "consequence": "what"}),
    ):
        described = re.search(rf"##INFO=<ID={key},[^\n]*Description=\"([^\"]*)\"", header)
        if not described:
            continue
        listed = re.sub(r"^.*?(Format|annotations?)\s*:", "", described[1], flags=re.IGNORECASE)
        columns = [name.strip(" '\"").lower() for name in listed.split("|")]
        names |= {"annotation_impact": "impact", "impact": "impact", **{mark: mark for mark in _MARKS}}
        places = {ours: columns.index(theirs) + 1 for theirs, ours in names.items() if theirs in columns}
        if {"allele", "gene", "hgvs_c", "hgvs_p"} <= places.keys():
            told.append(Annotation(key, places))
    return told


def entry(annotation: Annotation) -> str:
    """SQL of the annotation that is of the allele; of several, the variant's own."""
    key = annotation.key
    # VEP writes insertions and deletions without the base before them, and nothing as '-'.
    fits = f"{annotation.part('allele')} IN (alt, coalesce(nullif(substr(alt, 2), ''), '-'))"
    fitting = f"list_filter(string_split({key}, ','), lambda e: {fits})"
    ranked = (
        f"list_transform({fitting}, lambda e, place: "
        f"format('{{:06d}}{{:05d}}', {_weight(annotation)}, 99999 - least(place, 99999)) || e)"
    )
    single = f"CASE WHEN {annotation.part('allele', key)} = alt THEN {key} ELSE {fitting}[1] END"
    heaviest = f"substr(list_max({ranked}), 12)"
    return f"CASE WHEN {key} = '' THEN NULL WHEN NOT contains({key}, ',') THEN {single} ELSE {heaviest} END"


def _weight(annotation: Annotation) -> str:
    impacts = " ".join(f"WHEN {text(name)} THEN {weight}" for name, weight in _WEIGHTS.items())
    mane = f"({annotation.part('mane_select')} || {annotation.part('mane')}) <> ''"
    steps = (
        (10_000, f"{annotation.part('pick')} = '1'"),
        (4_000, f"{annotation.part('gene')} <> ''"),
        (2_000, f"NOT {_is_neighbour(annotation, 'e')}"),
        (1_000, mane),
        (500, f"{annotation.part('canonical')} = 'YES'"),
    )
    marks = " + ".join(f"CASE WHEN {holds} THEN {weight} ELSE 0 END" for weight, holds in steps)
    return f"{marks} + CASE {annotation.part('impact')} {impacts} ELSE 0 END * 10"


def _is_neighbour(annotation: Annotation, entry: str) -> str:
    return f"regexp_full_match({annotation.part('what', entry)}, {text(_NEIGHBOUR)})"


def told(annotation: Annotation) -> tuple[str, str, str]:
    """SQL of gene, HGVS of coding DNA and of protein, as the entry says them."""
    entry = f"{annotation.key}_entry"
    picked = f"{annotation.part('pick', entry)} = '1'"
    gene = f"CASE WHEN {picked} OR NOT {_is_neighbour(annotation, entry)} THEN {_said(annotation, 'gene')} END"
    return gene, _said(annotation, "hgvs_c"), _said(annotation, "hgvs_p")


def _said(annotation: Annotation, name: str) -> str:
    return f"nullif(replace({annotation.part(name, f'{annotation.key}_entry')}, '%3D', '='), '')"


def coding(said: str) -> str:
    """SQL of a change of coding DNA in the form of the dictionary; nothing where it cannot have it."""
    # SnpEff writes what is deleted before what is inserted: HGVS 20.05 has delins alone.
    plain = f"regexp_replace({said}, 'del[ACGTN]+ins([ACGTN]+)$', 'delins\\1')"
    return f"CASE WHEN regexp_full_match({plain}, {text(patterns.HGVS_C.pattern)}) THEN {plain} END"


def protein(said: str) -> str:
    """SQL of a change of protein in the form of the dictionary; nothing where it has another."""
    return f"CASE WHEN regexp_full_match({said}, {text(patterns.HGVS_P.pattern)}) THEN {said} END"
