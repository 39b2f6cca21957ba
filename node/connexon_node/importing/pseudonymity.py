"""The guard against people's identities: columns and values that name a person stop the import.

A steward can leave a column out by naming it under `exclude` in the mapping file; nothing else gets past the guard.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import Any as Connection

from connexon_node.data.dictionary import Dataset, Field, FieldType
from connexon_node.data.dictionary.patterns import NO_PSEUDONYM, PSEUDONYM
from connexon_node.importing.distinct_values import Recurring
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.sql import quoted, text

# Words of column names after `plain`: English, German, French, and Japanese in Latin letters.
_NAMES = {
    "a date of birth": (
        r"dob|d_o_b|(date_of_)?birth(_?(date|day))?|birth_?date(_.*)?|brthdtc|brth_?dt|geb(urts)?_?(datum|tag|dat)|"
        r"geb|date_(de_)?naissance|naissance|ddn|ne_le|seinengappi|tanjou?bi|umare"
    ),
    "a person's name": (
        r"name|((first|last|middle|given|family|full|maiden|birth|patients?|donors?|subjects?|participants?|person|"
        r"client|mother|father|legal|sur|fore)_?names?)|(names?_of_(the_)?(patient|donor|subject).*)|surname|forename|"
        r"initials|vor_?name|nach_?name|familien_?name|geburts_?name|patienten_?name|spender_?name|"
        r"(nom|prenoms?)(_(de_)?(famille|naissance|jeune_fille|patiente?|usuel|donneu(r|se)))?|"
        r"shimei|namae|onamae|sei_?mei|myou?ji|kanja_?(mei|shimei)"
    ),
    "an e-mail address": r"(.*_)?e_?mail(_.*)?|mail_?(address|adresse)|courriel|meru_?adoresu|meeru",
    "a medical record number": (
        r"mrn|medical_?record(_.*)?|(patient|hospital|chart|case|nhs|nhs_patient|insurance|health_card|social_security|"
        r"passport|national_id)_?(number|no|nr|num|id_number)|ssn|nhs_?(number|no)|patienten_?(nummer|nr|id)|"
        r"fall_?(nummer|nr)|(kranken)?versicherten_?(nummer|nr)|krankenakte.*|aktenzeichen|"
        r"num(ero)?_(de_)?(dossier|patient|secu(rite_sociale)?)|nir|ipp|karute_?(bangou?|no)|kanja_?(bangou?|id|no)|"
        r"hokensh?ou?_?bangou?|mai_?nanba|my_?number"
    ),
    "a telephone number": (
        r"(.*_)?(tele)?phone(_.*)?|tel|tel_?(no|nr|number|nummer)|telefon(_?nummer)?|mobile(_.*)?|cell_?phone|handy(_?nr)?|"
        r"fax|portable|denwa(_?bangou?)?|keitai(_.*)?"
    ),
    "a postal address": (
        r"(home_|street_|postal_)?address(_.*)?|street|zip(_?code)?|post_?code|postal_code|anschrift|adresse|"
        r"strasse|plz|postleitzahl|code_postal|rue|juu?sho|yuu?bin_?bangou?"
    ),
}
_BY_NAME = {kind: re.compile(pattern) for kind, pattern in _NAMES.items()}

# RE2, of the whole value; `examples` show what a dictionary's form would have to admit.
_VALUES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "an e-mail address",
        r".*[A-Za-z0-9_%+-]@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}.*",
        ("anna@example.org",),
    ),
    (
        "a telephone number",
        r"(tel\.?:? ?)?(\+\d{1,3}[ ./()-]{0,2}(\d[ ./()-]{0,2}){7,13}|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}|"
        r"0\d{2,4}[ /-]\d{2,4}[ /-]\d{3,5}|0\d-\d{4}-\d{4})",
        ("+49 30 1234567", "212-555-0134", "03-1234-5678"),
    ),
    ("a social security number", r"\d{3}-\d{2}-\d{4}", ("123-45-6789",)),
    (
        "a medical record number",
        r"(?i)(mrn|medical record( (no|number))?)[ :.#-]*\d{4,}.*",
        ("MRN 123456", "MRN123456"),
    ),
    (
        "a person's name",
        r"(Dr|Mr|Mrs|Ms|Miss|Herr|Frau|Mme|Mlle|Madame|Monsieur)\.? ?[A-Z][a-zäöüéèß'-]+( .*)?",
        ("Mrs Anna Smith", "Frau Müller"),
    ),
    (
        "a date of birth",
        r"(?i)(born|birth|dob|geb(oren)?|n[ée]e? le)[ .:]*\d{1,4}[./ -]\d{1,2}[./ -]\d{1,4}.*",
        ("DOB 1970-01-31", "born 31.01.1970"),
    ),
)


def plain(name: str) -> str:
    """A column name in small Latin letters, its words joined by underscores."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", name.replace("ß", "ss")) if not unicodedata.combining(c))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", letters)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def identifying(name: str) -> str | None:
    """What a column of this name would tell about a person; None where nothing."""
    return next((kind for kind, pattern in _BY_NAME.items() if pattern.fullmatch(plain(name))), None)


def refuse_names(file: str, names: Iterable[str], dataset: Dataset) -> None:
    """Raise FileRefused naming every column that by its name holds people's identities."""
    found = {name: kind for name in names if name not in dataset.names and (kind := identifying(name))}
    if found:
        raise _refused(file, [f"column {name[:60]!r} looks like {kind}" for name, kind in found.items()])


def refuse_values(
    file: str, connection: Connection, dataset: Dataset, present: Collection[str], recurring: Recurring
) -> None:
    """Raise FileRefused naming every field of table `staged` in which values look like people's identities.

    Fields whose form rules such values out are looked at only where a value did not fit its form.
    """
    sought: dict[str, list[tuple[Field, str, str]]] = {}
    for field in dataset.fields:
        for kind, pattern in (*_open(field), *_of_people(dataset, field)) if field.name in present else ():
            sought.setdefault(recurring.table(field), []).append((field, kind, pattern))
    found: dict[str, str] = {}
    for table, kinds in sought.items():
        # Texts, not parameters: at the first parameter DuckDB loads modules, which takes longer than most imports.
        conditions = ", ".join(
            f"bool_or(regexp_full_match({quoted(field.name)}, {text(pattern)}))" for field, _kind, pattern in kinds
        )
        (hits,) = connection.execute(f"SELECT {conditions} FROM {table}").fetchall()
        found.update({field.name: kind for (field, kind, _pattern), hit in zip(kinds, hits, strict=True) if hit})
    for kind, pattern, _examples in _VALUES:
        rows = connection.execute(
            f'SELECT DISTINCT field FROM problems WHERE regexp_full_match("value", {text(pattern)})'
        ).fetchall()
        found.update({name: kind for (name,) in rows if name and dataset.field(name).type is FieldType.TEXT})
    if found:
        what = [f"{field} holds what looks like {kind}" for field, kind in sorted(found.items())]
        raise _refused(file, what, people=any(_of_people(dataset, dataset.field(name)) for name in found))


def _of_people(dataset: Dataset, field: Field) -> tuple[tuple[str, str], ...]:
    """The kinds, with their patterns, that a field must not hold since its values stand for people."""
    return NO_PSEUDONYM if dataset.introduces_donors and field.form == PSEUDONYM else ()


def _open(field: Field) -> list[tuple[str, str]]:
    """The kinds, with their patterns, that the dictionary does not rule out in a field."""
    if field.type is not FieldType.TEXT or field.values or field.references:
        return []
    form = field.form
    return [
        (kind, pattern)
        for kind, pattern, examples in _VALUES
        if form is None or any(re.fullmatch(form.pattern, example) for example in examples)
    ]


def _refused(file: str, found: list[str], *, people: bool = False) -> FileRefused:
    mend = "Take it out of the file, or leave the column out by naming it under exclude in a mapping file."
    if people:
        mend = "Give every person a pseudonym that tells nothing of them, such as D-0001, in all files."
    return FileRefused(
        f"{file} is not pseudonymous: {'; '.join(found)}. {mend} Nothing was imported.",
        code="import.identifying",
    )
