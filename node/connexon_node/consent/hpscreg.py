"""hPSCreg and EBiSC consent flags, mapped to DUO as a draft that a steward confirms.

Field names as in EBiSC's cell line models. The map is a proposal. Missing and unknown never widen: where a flag that
could forbid is not known, the draft restricts, and where it cannot be expressed, the draft permits nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from connexon_node.consent import profile as duo

_YES = {"yes", "y", "true", "1"}
_NO = {"no", "n", "false", "0"}
_MONDO = re.compile(r"MONDO:\d{7}")
DONOR_FIELDS = ("donor_id", "donor", "biosamples_donor_id")
"""Where a file names the donor; the first that is there counts."""


@dataclass
class Draft:
    """A consent as the flags suggest it. `notes` tell the steward what was assumed and what is missing.

    `permission` empty permits nothing. `may_withdraw` says that the donor kept the right to stop the use.
    """

    permission: str = ""
    modifiers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    may_withdraw: bool = False


def draft(flags: Mapping[str, str], *, country: str) -> Draft:
    """Map one donor's flags. `country` (ISO 3166-1 alpha-2) is where data must stay that may not go worldwide."""
    said = _Flags(flags)
    made = Draft()
    for step in _STEPS:
        step(said, made, country)
    if any(note.startswith(_BLOCKED) for note in made.notes):
        made.permission = ""
    return made


_BLOCKED = "permits nothing: "


class _Flags:
    """The flags of one line: yes, no, or None for missing and unknown."""

    def __init__(self, flags: Mapping[str, str]) -> None:
        self._flags = {name.strip().lower(): (value or "").strip() for name, value in flags.items()}

    def __getitem__(self, name: str) -> bool | None:
        value = self.text(name).lower()
        return True if value in _YES else False if value in _NO else None

    def text(self, name: str) -> str:
        return self._flags.get(name, "")


def _consent(said: _Flags, made: Draft, _country: str) -> None:
    if not said["donor_consent"]:
        made.notes.append(_BLOCKED + "donor_consent is not yes")
    for name in ("no_pressure_statement", "no_inducement_statement"):
        if not said[name]:
            made.notes.append(f"{_BLOCKED}{name} is not yes")


def _research(said: _Flags, made: Draft, _country: str) -> None:
    project = said["consent_pertains_specific_research_project"]
    future = said["consent_permits_future_research"]
    areas = said.text("future_research_permitted_areas")
    if future:
        _areas(areas, made)
    elif project:
        made.permission = duo.GENERAL
        made.notes.append(_BLOCKED + "it pertains to one project: set DUO:0000027=PROJECT and the permission by hand")
    else:
        made.notes.append(_BLOCKED + "neither future research nor a project is permitted, as far as is known")
    if future and project is not False:
        made.notes.append("whether it pertains to one project only is not excluded: check the form")


def _areas(areas: str, made: Draft) -> None:
    # Free text, beside a yes to future research: where none is written, the form names no areas.
    diseases = sorted(set(_MONDO.findall(areas)))
    if diseases:
        made.permission = f"{duo.DISEASE_SPECIFIC}={'|'.join(diseases)}"
    elif not areas or areas.lower() in ("any", "all", "none", "no restriction"):
        made.permission = duo.GENERAL
        made.notes.append("general research (DUO:0000042) is assumed; DUO:0000006 is the narrower choice")
    else:
        made.notes.append(f"{_BLOCKED}the permitted areas {areas!r} are not MONDO terms: set the permission by hand")


def _clinical(said: _Flags, made: Draft, _country: str) -> None:
    if said["consent_permits_clinical_treatment"]:
        made.modifiers.append(duo.CLINICAL_CARE)


def _organisations(said: _Flags, made: Draft, _country: str) -> None:
    prefix = "consent_permits_research_by_"
    for kind in ("academic_institution", "org", "non_profit_company"):
        if not said[prefix + kind]:
            made.notes.append(f"{_BLOCKED}{prefix}{kind} is not yes, for which DUO has no term")
    companies = bool(said[prefix + "for_profit_company"])
    commercial = (
        bool(said["consent_permits_development_of_commercial_products"])
        and said["consent_expressly_prevents_commercial_development"] is False
        and said["consent_expressly_prevents_financial_gain"] is False
    )
    if not companies and not commercial:
        made.modifiers.append(duo.NON_PROFIT_NON_COMMERCIAL)
    elif not companies:
        made.modifiers.append(duo.NON_PROFIT_ORGANISATION)
    elif not commercial:
        made.modifiers.append(duo.NON_COMMERCIAL)


def _worldwide(said: _Flags, made: Draft, country: str) -> None:
    if said["consent_prevents_availability_to_worldwide_research"] is not False:
        made.modifiers.append(f"{duo.GEOGRAPHY}=ISO:{country}")


def _genetics(said: _Flags, made: Draft, _country: str) -> None:
    if not said["consent_permits_genetic_testing"]:
        made.modifiers.append(duo.NO_GENETIC_TESTING)


def _constraints(said: _Flags, made: Draft, _country: str) -> None:
    further = said["further_constraints_on_use"]
    if further is not False:
        described = said.text("further_constraints_on_use_desc") or "not known"
        made.notes.append(f"{_BLOCKED}there may be further constraints: {described}")
    # Free text: where none is written, there are none.
    if said.text("third_party_obligations") and said["third_party_obligations"] is not False:
        made.notes.append(f"{_BLOCKED}third party obligations: {said.text('third_party_obligations')}")


def _withdrawal(said: _Flags, made: Draft, _country: str) -> None:
    made.may_withdraw = any(
        said[name]
        for name in (
            "consent_permits_stop_of_derived_material_use",
            "consent_permits_stop_of_delivery_of_information_and_data",
        )
    )
    if made.may_withdraw:
        made.notes.append("the donor may stop the use: record it with consent withdraw")


_STEPS: tuple[Callable[[_Flags, Draft, str], None], ...] = (
    _consent,
    _research,
    _clinical,
    _organisations,
    _worldwide,
    _genetics,
    _constraints,
    _withdrawal,
)
