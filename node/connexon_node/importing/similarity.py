"""Which field a center's column most likely is, and what its codes most likely mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from connexon_node.data.dictionary import Dataset, Field, FieldType
from connexon_node.importing import units
from connexon_node.importing.checks import FALSE, TRUE
from connexon_node.importing.pseudonymity import plain

LIKE = 0.74
"""Likeness, from 0 to 1, from which a column is taken for a field."""
_SYNONYMS = {
    "sex": ("gender", "geschlecht", "sexe", "seibetsu"),
    "primary_disease_term": ("disease", "diagnosis", "diagnose", "diagnostic", "krankheit", "maladie", "shikkan"),
    "disease_term": ("disease", "diagnosis", "diagnose", "diagnostic", "krankheit", "maladie"),
    "age_range_y": ("age_range", "age_group", "altersgruppe"),
    "country_iso2": ("country", "land", "pays"),
    "passage_no": ("passage", "passage_number", "p", "passages", "ip_passage_number"),
    "lot_no": ("lot", "batch", "charge", "lot_number", "charge_nr"),
    "cell_line_id": ("cell_line", "line", "line_id", "zelllinie", "lignee"),
    "donor_id": ("donor", "spender", "donneur", "donor_code"),
    "frozen_on": ("frozen", "freeze_date", "date_frozen", "eingefroren", "freezing_date"),
    "expiry_on": ("expiry", "expiry_date", "expires", "haltbar_bis"),
    "vials_made": ("vials", "no_of_vials", "number_of_vials", "vials_frozen"),
    "cells_per_vial_1e6": ("cells_per_vial", "cells_vial"),
    "hpscreg_name": ("hpscreg", "hpscreg_id"),
    "rrid": ("cellosaurus", "cvcl"),
    "bank_level": ("bank", "level", "bank_type", "bankebene"),
    "status": ("state", "zustand", "etat"),
    "duo_permission": ("duo", "consent_code"),
    "obtained_on": ("consent_date", "date_of_consent", "einwilligungsdatum"),
}
_MEANINGS = {
    **dict.fromkeys(("f", "w", "female", "weiblich", "femme", "feminin", "woman", "josei"), "female"),
    **dict.fromkeys(("m", "male", "mannlich", "homme", "masculin", "man", "dansei"), "male"),
    **dict.fromkeys(("y", "yes", "ja", "oui", "true", "1", "hai"), "yes"),
    **dict.fromkeys(("n", "no", "nein", "non", "false", "0", "iie"), "no"),
    **dict.fromkeys(("u", "unk", "unknown", "unbekannt", "inconnu", "not known", "fumei"), "unknown"),
    "ips": "iPSC",
    "ipsc": "iPSC",
    "hipsc": "iPSC",
    "esc": "ESC",
    "hesc": "ESC",
    "master": "MCB",
    "master cell bank": "MCB",
    "working": "WCB",
    "working cell bank": "WCB",
}


def unit_in(column: str) -> str:
    """The unit that a column's name ends in, such as `mg` of `Dose (mg)`; empty where it names none."""
    found = re.search(r"[(\[]\s*([^()\[\]]+?)\s*[)\]]\s*$", column) or re.search(r"(?:\s|_)in_?\s*(\S+)$", column)
    return found[1] if found and units.ucum(found[1]) else ""


def matched(columns: Sequence[str], dataset: Dataset) -> dict[str, str]:
    """The column that each field most likely is, best pairs first; fields and columns without a match are left out."""
    head = _common_head(columns)
    pairs = sorted(
        (
            (likeness(column, field, head), -place, column, field.name)
            for place, column in enumerate(columns)
            for field in dataset.fields
        ),
        reverse=True,
    )
    found: dict[str, str] = {}
    for score, _place, column, name in pairs:
        if score >= LIKE and name not in found and column not in found.values():
            found[name] = column
    return found


def likeness(column: str, field: Field, head: str = "") -> float:
    """How much a column's name, without the head that most columns share, looks like a field's, from 0 to 1."""
    name = (plain(re.sub(r"[(\[][^()\[\]]*[)\]]\s*$", "", column)) or plain(column)).removeprefix(head)
    if name == field.name:
        return 1.0
    if name in _SYNONYMS.get(field.name, ()):
        return 0.95
    if name.replace("_", "") == field.name.replace("_", ""):
        return 0.9
    return 0.9 * difflib.SequenceMatcher(None, name, field.name).ratio()


def _common_head(columns: Sequence[str]) -> str:
    """The first word of nearly all columns, such as ip_ of ip_passage_number; empty where there is none."""
    heads = [plain(column).partition("_")[0] + "_" for column in columns]
    often = max(heads, key=heads.count, default="")
    return often if len(columns) > 3 and heads.count(often) > 0.8 * len(columns) else ""


def nearest_dataset(columns: Sequence[str], datasets: Iterable[Dataset]) -> Dataset:
    """The dataset that most of the columns are of; required fields that are not there count against it."""

    head = _common_head(columns)

    def score(dataset: Dataset) -> float:
        found = matched(columns, dataset)
        lacking = sum(1 for field in dataset.fields if field.required and field.name not in found)
        return sum(likeness(column, dataset.field(name), head) for name, column in found.items()) - 0.5 * lacking

    return max(datasets, key=score)


def meanings(values: Iterable[str], field: Field) -> Mapping[str, str]:
    """What the center's codes most likely mean; '?' where nobody but the center can tell. Known values are left out."""
    if field.type is FieldType.TERM:
        known = re.compile(rf"({'|'.join(field.ontologies)}):\S+")
        return {value: "?" for value in values if not known.fullmatch(value)}
    if field.type is FieldType.BOOLEAN:
        return {value: _MEANINGS.get(plain(value), "?") for value in values if value.lower() not in TRUE + FALSE}
    if not field.values:
        return {}
    return {value: _meaning(value, field.values) for value in values if value not in field.values}


def _meaning(value: str, allowed: Sequence[str]) -> str:
    by_plain = {plain(one): one for one in allowed}
    told = _MEANINGS.get(plain(value).replace("_", " "), "")
    if told in allowed:
        return told
    near = difflib.get_close_matches(plain(value), list(by_plain), n=1, cutoff=0.8)
    return by_plain[near[0]] if near else "?"
