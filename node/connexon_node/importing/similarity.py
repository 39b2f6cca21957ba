"""Which field a center's column most likely is, and what its codes most likely mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from connexon_node.data.dictionary import KEY, Dataset, Field, FieldType, patterns
from connexon_node.importing import units
from connexon_node.importing.checks import FALSE, TRUE
from connexon_node.importing.pseudonymity import plain
from connexon_node.importing.words import COUNTRIES, DUO, IDS, MEANINGS, NO_DISEASE, STAFF, SYNONYMS

LIKE = 0.74
"""Likeness, from 0 to 1, from which a column is taken for a field."""
_TELLING = {
    form.pattern: re.compile(form.usual or form.pattern)
    for form in (patterns.HPSCREG_NAME, patterns.RRID, patterns.BIOSAMPLE, patterns.SEC)
}
"""Forms that nothing else has, so that a column with such values is told by them, whatever it is called."""


def unit_in(column: str) -> str:
    """The unit that a column's name ends in, such as `mg` of `Dose (mg)`; empty where it names none."""
    found = re.search(r"[(\[]\s*([^()\[\]]+?)\s*[)\]]\s*$", column) or re.search(r"(?:\s|_)in_?\s*(\S+)$", column)
    return found[1] if found and units.ucum(found[1]) else ""


@dataclass(frozen=True)
class Guess:
    """A column that a field most likely is, how likely from 0 to 1, and why in words."""

    column: str
    score: float
    why: str


def guessed(
    columns: Sequence[str], dataset: Dataset, values: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Guess]:
    """The column that each field most likely is, best pairs first; fields and columns without a match are left out."""
    head = _common_head(columns)
    pairs = []
    for place, column in enumerate(columns):
        for order, field in enumerate(dataset.fields):
            score, why = _likeness(column, field, dataset, head)
            if _told_by_values(field, (values or {}).get(column, ())):
                score, why = 0.97, f"its values look like {field.form.what if field.form else field.name}"
            if score >= LIKE:
                pairs.append((-score, place, order, field.name, column, why))
    found: dict[str, Guess] = {}
    taken = set()
    for negative, _place, _order, name, column, why in sorted(pairs):
        if name not in found and column not in taken:
            found[name] = Guess(column, -negative, why)
            taken.add(column)
    return found


def matched(columns: Sequence[str], dataset: Dataset) -> dict[str, str]:
    """As `guessed`, the columns alone."""
    return {name: guess.column for name, guess in guessed(columns, dataset).items()}


def _told_by_values(field: Field, values: Sequence[str]) -> bool:
    form = _TELLING.get(field.form.pattern) if field.form else None
    some = values[:200]
    return form is not None and len(some) > 0 and sum(1 for one in some if form.fullmatch(one)) >= 0.8 * len(some)


def _likeness(column: str, field: Field, dataset: Dataset, head: str = "") -> tuple[float, str]:
    """How much a column's name, without the head that most columns share, looks like a field's, and why."""
    name = (plain(re.sub(r"[(\[][^()\[\]]*[)\]]\s*$", "", column)) or plain(column)).removeprefix(head)
    name = re.sub(r"_(in_)?(years|jahren|jahre|ans)$", "", name)
    if name == field.name:
        return 1.0, ""
    synonyms = IDS.get(dataset.name, ()) if field.name == KEY else SYNONYMS.get(field.name, ())
    if name in synonyms:
        # Of a field that several names fit, the first listed is the best.
        return 0.95 - 0.0005 * synonyms.index(name), f"{column!r} is a name for it"
    if name.replace("_", "") == field.name.replace("_", ""):
        return 0.9, ""
    if field.name == KEY:
        return 0.0, ""
    return 0.9 * difflib.SequenceMatcher(None, name, field.name).ratio(), f"{column!r} looks like {field.name}"


def _common_head(columns: Sequence[str]) -> str:
    """The first word of nearly all columns, such as ip_ of ip_passage_number; empty where there is none."""
    heads = [plain(column).partition("_")[0] + "_" for column in columns]
    often = max(heads, key=heads.count, default="")
    return often if len(columns) > 3 and heads.count(often) > 0.8 * len(columns) else ""


def nearest_dataset(columns: Sequence[str], datasets: Iterable[Dataset]) -> Dataset:
    """The dataset that most of the columns are of; required fields that are not there count against it."""

    def score(dataset: Dataset) -> float:
        found = guessed(columns, dataset)
        lacking = sum(1 for field in dataset.fields if field.required and field.name not in found)
        return sum(guess.score for guess in found.values()) - 0.5 * lacking

    return max(datasets, key=score)


def meanings(
    values: Iterable[str], field: Field, labels: Mapping[str, Mapping[str, str]] | None = None
) -> Mapping[str, str]:
    """What the center's codes most likely mean; '?' where nobody but the center can tell. Known values are left out.

    `labels` are, by ontology, the terms of labels as `label_key` writes them.
    """
    if field.type is FieldType.TERM:
        known = re.compile(rf"({'|'.join(field.ontologies)}):\S+")
        return {value: _term(value, field, labels or {}) for value in values if not known.fullmatch(value)}
    if field.type is FieldType.BOOLEAN:
        told = {value: MEANINGS.get(plain(value), "?") for value in values if value.lower() not in TRUE + FALSE}
        return {value: meaning if meaning in ("yes", "no") else "?" for value, meaning in told.items()}
    if field.form == patterns.COUNTRY:
        return {
            value: COUNTRIES.get(plain(value), value.upper() if re.fullmatch("[a-z]{2}", value) else "?")
            for value in values
            if not re.fullmatch("[A-Z]{2}", value) or value == "UK"
        }
    if not field.values:
        return {}
    return {value: _meaning(value, field.values) for value in values if value not in field.values}


def is_staff(column: str) -> bool:
    """Whether a column's name says that it holds who did something: they are persons too."""
    return plain(column) in STAFF


def label_key(label: str) -> str:
    """A label in small letters, without marks, possessives and plurals, by which it is looked up."""
    words = plain(re.sub(r"['’´`]s?\b", "", label)).split("_")
    return " ".join(
        word[:-1] if len(word) > 4 and word.endswith("s") and not word.endswith("ss") else word for word in words
    )


def _term(value: str, field: Field, labels: Mapping[str, Mapping[str, str]]) -> str:
    written = re.fullmatch(r"([A-Za-z]+)[_: ](\d{7})", value)
    if written and written[1].upper() in field.ontologies:
        return f"{written[1].upper()}:{written[2]}"
    if "DUO" in field.ontologies and plain(value) in DUO:
        return DUO[plain(value)]
    if field.name.endswith("disease_term") and plain(value) in NO_DISEASE:
        return ""
    return next((found for one in field.ontologies if (found := labels.get(one, {}).get(label_key(value)))), "?")


def _meaning(value: str, allowed: Sequence[str]) -> str:
    by_plain = {plain(one): one for one in allowed}
    told = MEANINGS.get(plain(value), "")
    if told in allowed:
        return told
    near = difflib.get_close_matches(plain(value), list(by_plain), n=1, cutoff=0.8)
    return by_plain[near[0]] if near else "?"
