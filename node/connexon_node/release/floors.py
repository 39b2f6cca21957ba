"""The federation's floors: release.toml beside its policies, signed with the roster. A center may only be stricter."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connexon.errors import Misconfigured
from connexon_node.policy.store import FLOORS_FILE
from connexon_node.settings import PrivacySection, ReleaseSection, TrainingSection


class PrivacyFloors(BaseModel):
    """What every center keeps to at least: accounts and recipes at most so large, and whether exact numbers may be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grants: bool = Field(default=True, description="centers may grant exact numbers to projects")
    lifetime: float = Field(default=100.0, gt=0, le=100, description="rho of all years together")
    year: float = Field(default=100.0, gt=0, le=100, description="rho of one year")
    training_noise: bool = Field(default=False, description="models are trained only with the centers' own noise")
    maximum_epsilon: float = Field(default=10.0, gt=0, le=10, description="of one recipe")
    maximum_delta: float = Field(default=1e-3, gt=0, le=1e-3, description="of one recipe")


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
            "and below [privacy] grants, lifetime, year, training_noise, maximum_epsilon and maximum_delta.",
            code="policy.floors",
        ) from error


def stricter_privacy(section: PrivacySection, least: PrivacyFloors) -> PrivacySection:
    """A center's account, held to the floors: its shares go down in proportion."""
    year = min(section.year, least.year, least.lifetime)
    names = ("tables", "questions", "researcher", "models")
    shares = {name: getattr(section, name) * (year / section.year) for name in names}
    return section.model_copy(update={"lifetime": min(section.lifetime, least.lifetime), "year": year, **shares})


def stricter_training(section: TrainingSection, least: PrivacyFloors) -> TrainingSection:
    """A center's settings of training, held to the floors."""
    return section.model_copy(
        update={
            "noise": section.noise or least.training_noise,
            "maximum_epsilon": min(section.maximum_epsilon, least.maximum_epsilon),
            "maximum_delta": min(section.maximum_delta, least.maximum_delta),
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
