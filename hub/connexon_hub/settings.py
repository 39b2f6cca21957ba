"""A hub's settings: hub.toml, with any of them overridden by CONNEXON_HUB__SECTION__NAME."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from connexon.clock import DAY, SECOND
from connexon.errors import Misconfigured
from connexon.service.setting_errors import in_words
from connexon_hub.folder import HubFolder


def _host_and_port(value: object) -> object:
    match = re.fullmatch(r"(.+):(\d{1,5})", value) if isinstance(value, str) else None
    if match is None or int(match[2]) > 65535 or not match[1].isprintable():
        raise ValueError("write an address as host:port")
    return value


Address = Annotated[str, BeforeValidator(_host_and_port)]
"""host:port; IPv6 hosts in brackets."""


@dataclass(frozen=True)
class Measure:
    """So many of one center within a time, ms."""

    most: int
    within_ms: int


class Section(BaseModel):
    """A part of the settings; a name that is not known is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FederationSection(Section):
    """Which federation, and whose rosters are believed; written by init."""

    name: str
    root_fingerprint: str = Field(description="SHA-256 of the root key, hexadecimal", pattern=r"^[0-9a-f]{64}$")


class AddressesSection(Section):
    """Where centers and researchers reach the hub, and where it listens."""

    public: Address = Field(description="of the public services, as invitations name it")
    link: Address = Field(description="of the link, as invitations name it")
    listen: Address = Field(description="what the public services bind to; port 0 takes any")
    link_listen: Address = Field(description="what the link binds to; port 0 takes any")


class HubSettings(BaseSettings):
    """All settings of a hub."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="CONNEXON_HUB__", env_nested_delimiter="__"
    )

    federation: FederationSection
    addresses: AddressesSection
    state_url: str = Field(default="", description="database of the operational state; empty: SQLite in the folder")
    link_certificate_seconds: int = Field(default=7 * 86_400, ge=1, description="life of a center's certificate")
    certificates_per_day: int = Field(
        default=50, ge=2, description="of one center in 24 hours, or in the life of one where that is shorter"
    )
    server_certificate_days: float = Field(default=30, gt=0, description="life of the hub's own certificate")
    answers_kept_days: float = Field(
        default=14, gt=0, description="afterwards an answer, or an ended query, is removed"
    )
    roster_days: float = Field(default=90, gt=0, description="how long a roster is believed")
    open_queries: int = Field(
        default=1_000, ge=1, description="of one researcher, not yet answered by every center they went to"
    )
    queries_per_day: int = Field(default=5_000, ge=1, description="of one researcher in 24 hours, closed ones too")
    runs_at_once: int = Field(default=2, ge=1, description="training runs under way; others wait for their turn")
    runs_per_researcher: int = Field(default=20, ge=1, description="of one researcher, not yet ended")

    @property
    def certificate_measure(self) -> Measure:
        """How many link certificates a center may be issued: far more than one that renews its own in time needs."""
        # In the life of one where that is less than a day: certificates of minutes are renewed all day.
        return Measure(self.certificates_per_day, min(DAY, self.link_certificate_seconds * SECOND))

    @property
    def root_fingerprint(self) -> bytes:
        """SHA-256 of the root key, 32 bytes."""
        return bytes.fromhex(self.federation.root_fingerprint)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file; nothing else."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def load(folder: HubFolder) -> HubSettings:
    """Read the settings of a hub; its `state_url` is never empty. Raises Misconfigured that names the setting."""

    class FromFolder(HubSettings):
        model_config = SettingsConfigDict(toml_file=folder.settings_file)

    try:
        found = FromFolder()
    except ValueError as error:
        raise Misconfigured(
            f"{folder.settings_file} is not right: {in_words(error, HubSettings)}", code="settings.invalid"
        ) from error
    return found if found.state_url else found.model_copy(update={"state_url": folder.default_state_url})


def to_toml(federation: FederationSection, addresses: AddressesSection, state_url: str) -> str:
    """The settings file that init writes: what it was told, and what else may be set."""
    quoted = json.dumps
    return f"""# A Connexon hub. Every setting may also come from the environment: CONNEXON_HUB__ADDRESSES__LISTEN=...
# The database of the operational state; empty means SQLite in this folder.
state_url = {quoted(state_url)}
# Life of a center's link certificate, seconds; it is renewed at two thirds of it.
# link_certificate_seconds = 604800
# Link certificates of one center in 24 hours, or in the life of one where that is shorter.
# certificates_per_day = 50
# Life of the hub's own certificate, days.
# server_certificate_days = 30
# Answers, and queries that have ended, are removed from the hub after so many days. Queries of training runs stay.
# answers_kept_days = 14
# A roster is believed for so many days; publish a new one before.
# roster_days = 90
# Queries of one researcher that may wait for answers at once.
# open_queries = 1000
# Queries of one researcher in 24 hours, also those that were answered or taken back. Each may have 256 KiB.
# queries_per_day = 5000
# Training runs under way at once; others wait for their turn.
# runs_at_once = 2
# Training runs of one researcher that have not ended, under way or waiting for centers or their turn.
# runs_per_researcher = 20

[federation]
name = {quoted(federation.name)}
# SHA-256 of the root key. Only rosters signed by that key are published.
root_fingerprint = {quoted(federation.root_fingerprint)}

[addresses]
# What invitations tell centers and researchers.
public = {quoted(addresses.public)}
link = {quoted(addresses.link)}
# What this machine binds to.
listen = {quoted(addresses.listen)}
link_listen = {quoted(addresses.link_listen)}
"""
