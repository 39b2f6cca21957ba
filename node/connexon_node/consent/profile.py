"""A consent as the field writes it: one DUO permission, modifiers with values, form version and scope.

Donors refer to consent profiles, so that there are about a hundred of them and not a million. Terms: Data Use
Ontology (EBISPOT/DUO, CC BY 4.0).
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from connexon.errors import InvalidQuery
from connexon.query import purpose
from connexon_node.ontology.regions import read_place

NO_RESTRICTION = "DUO:0000004"
HEALTH = "DUO:0000006"
DISEASE_SPECIFIC = "DUO:0000007"
ANCESTRY_ONLY = "DUO:0000011"
GENERAL = "DUO:0000042"
PERMISSIONS = {
    NO_RESTRICTION: "no restriction",
    GENERAL: "general research",
    HEALTH: "health or biomedical research",
    DISEASE_SPECIFIC: "disease specific research",
    ANCESTRY_ONLY: "population origins or ancestry research only",
}

RESEARCH_TYPE = "DUO:0000012"
NO_METHODS = "DUO:0000015"
GENETIC_ONLY = "DUO:0000016"
NON_PROFIT_NON_COMMERCIAL = "DUO:0000018"
PUBLICATION = "DUO:0000019"
COLLABORATION = "DUO:0000020"
ETHICS_APPROVAL = "DUO:0000021"
GEOGRAPHY = "DUO:0000022"
MORATORIUM = "DUO:0000024"
TIME_LIMIT = "DUO:0000025"
USERS = "DUO:0000026"
PROJECTS = "DUO:0000027"
INSTITUTIONS = "DUO:0000028"
RETURN_DATA = "DUO:0000029"
CLINICAL_CARE = "DUO:0000043"
NO_ANCESTRY = "DUO:0000044"
NON_PROFIT_ORGANISATION = "DUO:0000045"
NON_COMMERCIAL = "DUO:0000046"
NO_GENETIC_TESTING = "CONNEXON:no_genetic_testing"
"""No DUO term says it; hPSCreg's consent_permits_genetic_testing = no does."""

OBSOLETE = {
    "DUO:0000002": "one of the permissions",
    "DUO:0000003": "one of the permissions",
    "DUO:0000005": "DUO:0000042 with the modifier DUO:0000043",
    "DUO:0000014": "the modifier DUO:0000012 with a value",
}


class ValueKind(Enum):
    """What a modifier's value must be."""

    NONE = "no value"
    OPTIONAL_TEXT = "a name, or nothing"
    RESEARCH = "a kind of research, such as sex, age-group or population"
    PLACE = "a country such as ISO:DE, or a region such as REGION:EU or M49:150 (Europe)"
    DATE = "a date such as 2027-01-01"
    MONTHS = "a whole number of months"
    NAMES = "a name; separate several with |"


MODIFIERS: dict[str, tuple[str, ValueKind]] = {
    RESEARCH_TYPE: ("research specific", ValueKind.RESEARCH),
    NO_METHODS: ("no general methods research", ValueKind.NONE),
    GENETIC_ONLY: ("genetic studies only", ValueKind.NONE),
    NON_PROFIT_NON_COMMERCIAL: ("non-profit organisation and non-commercial use", ValueKind.NONE),
    PUBLICATION: ("publication required", ValueKind.NONE),
    COLLABORATION: ("collaboration required", ValueKind.OPTIONAL_TEXT),
    ETHICS_APPROVAL: ("ethics approval required", ValueKind.NONE),
    GEOGRAPHY: ("geographical restriction", ValueKind.PLACE),
    MORATORIUM: ("publication moratorium", ValueKind.DATE),
    TIME_LIMIT: ("time limit", ValueKind.MONTHS),
    USERS: ("user specific", ValueKind.NAMES),
    PROJECTS: ("project specific", ValueKind.NAMES),
    INSTITUTIONS: ("institution specific", ValueKind.NAMES),
    RETURN_DATA: ("return of data", ValueKind.NONE),
    CLINICAL_CARE: ("clinical care", ValueKind.NONE),
    NO_ANCESTRY: ("no ancestry research", ValueKind.NONE),
    NON_PROFIT_ORGANISATION: ("non-profit organisations only", ValueKind.NONE),
    NON_COMMERCIAL: ("non-commercial use only", ValueKind.NONE),
    NO_GENETIC_TESTING: ("no genetic testing", ValueKind.NONE),
}
"""Every modifier: its name and what its value must be."""

_MONDO = re.compile(r"MONDO:\d{7}\Z")
_DUO_EIGHT_DIGITS = re.compile(r"DUO:0(\d{7})\Z")
_LEGACY_RESEARCH = {"RS-G": purpose.SEX, "RS-PD": purpose.AGE_GROUP, "RS-POP": purpose.POPULATION}
_MAXIMUM_TEXT = 200


class Scope(Enum):
    """What the consent form covers."""

    RESEARCH = "research"
    CLINICAL = "clinical"
    BOTH = "both"


@dataclass(frozen=True, order=True)
class Modifier:
    """One DUO modifier with its value, in the form this file's `modifier` brings it to."""

    term: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.term}={self.value}" if self.value else self.term


@dataclass(frozen=True)
class ConsentProfile:
    """What a donor agreed to. `permission` empty means that it is not known, and nothing is permitted."""

    permission: str
    diseases: frozenset[str] = frozenset()
    modifiers: frozenset[Modifier] = frozenset()
    form_version: str = ""
    scope: Scope = Scope.RESEARCH

    @classmethod
    def parse(
        cls, permission: str, modifiers: Iterable[str] = (), *, form_version: str = "", scope: str = ""
    ) -> ConsentProfile:
        """Read a profile from text: DUO:0000042, or DUO:0000007=MONDO:0005180; modifiers such as DUO:0000025=12.

        An empty permission is kept and permits nothing. Without a scope, clinical care among the modifiers means
        both, else research. Raises InvalidQuery that names the term.
        """
        term, _, value = permission.strip().partition("=")
        diseases = set(_names(value))
        read = []
        for text in modifiers:
            other, _, other_value = text.strip().partition("=")
            if other == DISEASE_SPECIFIC:
                diseases.update(_names(other_value))
            elif other:
                read.append(modifier(other, other_value))
        _check_permission(term, diseases)
        default = Scope.BOTH if any(one.term == CLINICAL_CARE for one in read) else Scope.RESEARCH
        return cls(
            permission=term,
            diseases=frozenset(diseases),
            modifiers=frozenset(read),
            form_version=_text(form_version, "form version"),
            scope=_scope(scope) if scope.strip() else default,
        )

    def to_json(self) -> str:
        """The one way to write this profile down; equal profiles give equal text."""
        return json.dumps(
            {
                "permission": self.permission,
                "diseases": sorted(self.diseases),
                "modifiers": [[one.term, one.value] for one in sorted(self.modifiers)],
                "form_version": self.form_version,
                "scope": self.scope.value,
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> ConsentProfile:
        """The inverse of to_json."""
        read = json.loads(text)
        return cls(
            permission=read["permission"],
            diseases=frozenset(read["diseases"]),
            modifiers=frozenset(Modifier(term, value) for term, value in read["modifiers"]),
            form_version=read["form_version"],
            scope=Scope(read["scope"]),
        )

    def __str__(self) -> str:
        permission = self.permission or "unknown"
        if self.diseases:
            permission += "=" + "|".join(sorted(self.diseases))
        return " + ".join([permission, *(str(one) for one in sorted(self.modifiers))])

    def describe(self) -> str:
        """The profile in words."""
        words = PERMISSIONS.get(self.permission, "unknown, which permits nothing")
        if self.diseases:
            words += " on " + ", ".join(sorted(self.diseases))
        for one in sorted(self.modifiers):
            name = MODIFIERS[one.term][0] if one.term in MODIFIERS else one.term
            words += f"; {name} {one.value}".rstrip()
        return words


@dataclass(frozen=True)
class ConsentRecord:
    """One consent of one donor as it comes from a form or a file.

    `withdrawn_on` set means withdrawn from that day on, `expires_on` that it no longer counts from that day on;
    `expired` means that the form's own term is over. None of them permits anything once it has come.
    """

    donor_id: str
    profile: ConsentProfile
    obtained_on: datetime.date
    withdrawn_on: datetime.date | None = None
    expired: bool = False
    expires_on: datetime.date | None = None


def modifier(term: str, value: str = "") -> Modifier:
    """Check a modifier and bring its value to the one form it is compared in. Raises InvalidQuery."""
    misspelled = _DUO_EIGHT_DIGITS.match(term)  # the OWL file writes one term with eight digits
    term = f"DUO:{misspelled[1]}" if misspelled else term
    if term in OBSOLETE:
        raise InvalidQuery(f"{term} is obsolete in DUO; use {OBSOLETE[term]}.", code="consent.term_obsolete")
    if term not in MODIFIERS:
        raise InvalidQuery(f"{term!r} is not a DUO modifier that is known here.", code="consent.unknown_modifier")
    name, kind = MODIFIERS[term]
    value = value.strip()
    if kind is ValueKind.NONE and value:
        raise InvalidQuery(f"{term} ({name}) takes no value.", code="consent.modifier_value")
    read = _READERS[kind](value)
    if read is None or not (read or kind in (ValueKind.NONE, ValueKind.OPTIONAL_TEXT)):
        raise InvalidQuery(
            f"{term} ({name}) needs {kind.value}; {value!r} is none."
            if value
            else f"{term} ({name}) needs {kind.value}.",
            code="consent.modifier_value",
        )
    return Modifier(term, read)


def _check_permission(term: str, diseases: set[str]) -> None:
    if term in OBSOLETE:
        raise InvalidQuery(f"{term} is obsolete in DUO; use {OBSOLETE[term]}.", code="consent.term_obsolete")
    if term and term not in PERMISSIONS:
        known = ", ".join(PERMISSIONS)
        raise InvalidQuery(f"{term!r} is not a DUO permission; use one of {known}.", code="consent.unknown_permission")
    if term == DISEASE_SPECIFIC and not diseases:
        raise InvalidQuery(
            f"{term} (disease specific) needs the disease, for example {term}=MONDO:0005180.",
            code="consent.disease_missing",
        )
    if diseases and term != DISEASE_SPECIFIC:
        raise InvalidQuery(f"Only {DISEASE_SPECIFIC} takes a disease.", code="consent.permission_value")
    for disease in diseases:
        if not _MONDO.match(disease):
            raise InvalidQuery(
                f"{disease!r} is not a MONDO term such as MONDO:0005180.", code="consent.disease_invalid"
            )


def _names(value: str) -> list[str]:
    return [name for name in (piece.strip() for piece in value.split("|")) if name]


def _text(value: str, what: str) -> str:
    value = value.strip()
    if len(value) > _MAXIMUM_TEXT or not value.isprintable():
        raise InvalidQuery(
            f"The {what} must be one line of at most {_MAXIMUM_TEXT} characters.", code="consent.text_invalid"
        )
    return value


def _scope(text: str) -> Scope:
    try:
        return Scope(text.strip())
    except ValueError as error:
        known = ", ".join(scope.value for scope in Scope)
        raise InvalidQuery(f"{text!r} is not a scope; use one of {known}.", code="consent.scope") from error


def _research(value: str) -> str | None:
    term = _LEGACY_RESEARCH.get(value) or purpose.WORDS.get(value, value)
    return term if term in purpose.TERMS else None


def _place(value: str) -> str | None:
    places = [read_place(name) for name in _names(value)]
    return None if None in places else "|".join(sorted({place for place in places if place}))


def _date(value: str) -> str | None:
    try:
        return datetime.date.fromisoformat(value).isoformat()
    except ValueError:
        return None


def _months(value: str) -> str | None:
    return str(int(value)) if re.fullmatch(r"0*[1-9]\d{0,3}", value) else None


_READERS: dict[ValueKind, Callable[[str], str | None]] = {
    ValueKind.NONE: lambda value: value,
    ValueKind.OPTIONAL_TEXT: lambda value: _text(value, "value"),
    ValueKind.RESEARCH: _research,
    ValueKind.PLACE: _place,
    ValueKind.DATE: _date,
    ValueKind.MONTHS: _months,
    ValueKind.NAMES: lambda value: "|".join(sorted(set(_names(_text(value, "value"))))),
}
