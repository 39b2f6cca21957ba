"""The federation's floors: release.toml beside its policies, signed with the roster. A center may only be stricter."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connexon.errors import Misconfigured
from connexon_node.policy.store import FLOORS_FILE
from connexon_node.settings import PrivacySection, ReleaseSection


class PrivacyFloors(BaseModel):
    """What every center demands of differential privacy at least: budgets and questions at most so large."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    required: bool = Field(default=False, description="no center counts donors, or what is theirs, without noise")
    maximum_epsilon: float = Field(default=10.0, gt=0, le=10, description="of one question")
    maximum_delta: float = Field(default=1e-3, gt=0, le=1e-3, description="of one question")
    budget_epsilon: float = Field(default=1000.0, ge=0, le=1000, description="of a researcher, project and dataset")
    budget_delta: float = Field(default=1e-3, gt=0, le=1e-3, description="at which budget_epsilon holds")


class Floors(BaseModel):
    """What every center keeps to at least; a federation without the file asks for nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum_donors: int = Field(default=1, ge=1, description="no number of any center rests on fewer donors")
    round_to: int = Field(default=1, ge=1, description="every released count is rounded to this or more")
    privacy: PrivacyFloors = PrivacyFloors()


def floors(policy_files: Mapping[str, bytes]) -> Floors:
    """The floors in a roster's policy files. Raises Misconfigured where they are not right: nothing is answered."""
    content = policy_files.get(FLOORS_FILE)
    if content is None:
        return Floors()
    try:
        return Floors.model_validate(tomllib.loads(content.decode()))
    except (ValidationError, ValueError) as error:
        raise Misconfigured(
            f"The federation's {FLOORS_FILE} is not right: it holds minimum_donors and round_to, whole numbers from 1, "
            "and below [privacy] required, maximum_epsilon, maximum_delta, budget_epsilon and budget_delta.",
            code="policy.floors",
        ) from error


def stricter_privacy(section: PrivacySection, least: PrivacyFloors) -> PrivacySection:
    """A center's settings of differential privacy, held to the floors."""
    maximum = min(section.maximum_epsilon, least.maximum_epsilon)
    return section.model_copy(
        update={
            "required": section.required or least.required,
            "epsilon": min(section.epsilon, maximum),
            "delta": min(section.delta, least.maximum_delta),
            "maximum_epsilon": maximum,
            "budget_epsilon": min(section.budget_epsilon, least.budget_epsilon),
            "budget_delta": min(section.budget_delta, least.budget_delta),
        }
    )


def stricter(section: ReleaseSection, least: Floors) -> ReleaseSection:
    """A center's settings, raised to the floors."""
    return section.model_copy(
        update={
            "minimum_donors": max(section.minimum_donors, least.minimum_donors),
            "round_to": max(section.round_to, least.round_to),
        }
    )
