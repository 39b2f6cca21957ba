"""The federation's floors: release.toml beside its policies, signed with the roster. A center may only be stricter."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connexon.errors import Misconfigured
from connexon_node.policy.store import FLOORS_FILE
from connexon_node.settings import ReleaseSection


class Floors(BaseModel):
    """What every center keeps to at least; a federation without the file asks for nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum_donors: int = Field(default=1, ge=1, description="no number of any center rests on fewer donors")
    round_to: int = Field(default=1, ge=1, description="every released count is rounded to this or more")


def floors(policy_files: Mapping[str, bytes]) -> Floors:
    """The floors in a roster's policy files. Raises Misconfigured where they are not right: nothing is answered."""
    content = policy_files.get(FLOORS_FILE)
    if content is None:
        return Floors()
    try:
        return Floors.model_validate(tomllib.loads(content.decode()))
    except (ValidationError, ValueError) as error:
        raise Misconfigured(
            f"The federation's {FLOORS_FILE} is not right: it holds minimum_donors and round_to, whole numbers from 1.",
            code="policy.floors",
        ) from error


def stricter(section: ReleaseSection, least: Floors) -> ReleaseSection:
    """A center's settings, raised to the floors."""
    return section.model_copy(
        update={
            "minimum_donors": max(section.minimum_donors, least.minimum_donors),
            "round_to": max(section.round_to, least.round_to),
        }
    )
