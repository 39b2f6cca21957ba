"""A node's settings: node.toml, with any of them overridden by CONNEXON_NODE__SECTION__NAME."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from connexon.errors import Misconfigured
from connexon.service.setting_errors import in_words
from connexon_node.folder import NodeFolder


class Section(BaseModel):
    """A part of the settings; a name that is not known is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HubSection(Section):
    """Where the hub is and whom to believe; written when joining."""

    federation: str
    center: str
    link_address: str
    public_address: str
    root_fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the root key, hexadecimal")


class ReleaseSection(Section):
    """What may leave."""

    minimum_donors: int = Field(default=5, ge=1, description="no number rests on fewer donors")
    round_to: int = Field(default=5, ge=1, description="released counts are multiples of it; 1 leaves them exact")
    rounding: Literal["nearest", "random"] = Field(
        default="nearest", description="random: up or down by a draw that is the same whenever it is asked again"
    )
    independent_cohorts: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="groups of donors that a project may have exact numbers of, for each donor; all projects three "
        "times that; above 0.3 answers can be solved for single donors",
    )


class PrivacySection(Section):
    """Numbers with noise: how close they are by default, and the account of persons that pays for them.

    Amounts are rho of zero-concentrated differential privacy about one donor, a year unless said otherwise. See
    connexon_node.privacy.account.
    """

    lifetime: float = Field(default=5.12, gt=0, le=100, description="of all years together")
    year: float = Field(default=1.28, gt=0, le=100, description="of everything together")
    tables: float = Field(default=0.46, ge=0, le=100, description="of first-ask tables")
    questions: float = Field(default=0.64, ge=0, le=100, description="of all researchers' questions together")
    researcher: float = Field(default=0.16, ge=0, le=100, description="of one researcher's questions")
    models: float = Field(default=0.18, ge=0, le=100, description="of statistics and training")
    within: int = Field(default=15, ge=1, le=1000, description="half-width of numbers where a question names none")
    delta: float = Field(default=1e-8, gt=0, le=1e-5, description="of a question about groups with open names")
    delta_of_year: float = Field(default=1e-6, gt=0, le=1e-4, description="of all of them")

    @model_validator(mode="after")
    def _fits(self) -> PrivacySection:
        if self.tables + self.questions + self.models > self.year * (1 + 1e-9):
            raise ValueError("tables, questions and models together are above year")
        if self.year > self.lifetime:
            raise ValueError("year is above lifetime")
        return self


class EditionSection(Section):
    """What first-ask tables know by name beside the network's lists; counts from the next edition on.

    INVARIANT: chosen without looking at the center's donors, or the list itself would tell of them.
    """

    diseases: tuple[Annotated[str, Field(pattern=r"^MONDO:\d{7}$")], ...] = Field(default=(), description="MONDO terms")
    ancestries: tuple[Annotated[str, Field(pattern=r"^HANCESTRO:\d{4,7}$")], ...] = Field(
        default=(), description="HANCESTRO terms"
    )


class TrainingSection(Section):
    """Training models with other centers: whether, on how many donors, and what it may use of this machine."""

    enabled: bool = Field(default=True, description="false: this center takes part in no training")
    minimum_donors: int = Field(default=20, ge=1, description="no exact update rests on fewer")
    noise: bool = Field(default=False, description="true: only with noise, whatever was granted")
    runs_per_project: int = Field(default=50, ge=0, description="with exact updates, of one edition")
    maximum_epsilon: float = Field(default=2.0, gt=0, le=10, description="the largest of one recipe")
    maximum_delta: float = Field(default=1e-6, gt=0, le=1e-3, description="the largest of one recipe")
    seconds: float = Field(default=600.0, gt=0, description="of one task")
    memory: str = Field(default="2GB", pattern=r"^\d+(MB|GB)$", description="of one task")
    concurrent_tasks: int = Field(default=1, ge=1, le=64)

    @property
    def memory_bytes(self) -> int:
        """`memory` in bytes."""
        return _bytes(self.memory)


class ApprovalsSection(Section):
    """Which questions wait for the steward whatever the donors' consents say."""

    restricted_datasets: bool = Field(default=True, description="each question about a restricted dataset")
    first_use_of_project: bool = Field(default=False, description="a project's questions until one was approved")


class EngineSection(Section):
    """Where queries run, and what they may use."""

    kind: Literal["duckdb", "spark"] = Field(default="duckdb", description="spark: the master of spark_master")
    spark_master: str = Field(
        default="",
        pattern=r"^(spark://[A-Za-z0-9.,:_-]+|local\[\d+\])?$",
        description="such as spark://host:7077; it and its workers see the node's data folder under the same path",
    )
    memory: str = Field(default="2GB", pattern=r"^\d+(MB|GB)$", description="of all running queries together")
    threads: int = Field(default=2, ge=1)
    seconds: float = Field(default=60.0, gt=0, description="of one query")
    concurrent_queries: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _has_master(self) -> EngineSection:
        if self.kind == "spark" and not self.spark_master:
            raise ValueError("kind is spark, so spark_master must name a master such as spark://host:7077")
        return self


class DataSection(Section):
    """Which old generations connexon-node gc leaves."""

    keep_generations: int = Field(default=3, ge=1, description="the newest of each dataset, always")
    keep_days: int = Field(default=30, ge=0, description="others go when they have been out of force this long")


class ImportSection(Section):
    """What the process that reads foreign files may use, and whether it must be unable to reach any other file."""

    require_sandbox: bool = Field(
        default=False, description="import nothing where the kernel lacks Landlock or seccomp filters"
    )
    memory: str = Field(default="2GB", pattern=r"^\d+(MB|GB)$", description="of reading one file")
    scratch: str = Field(default="200GB", pattern=r"^\d+(MB|GB)$", description="the largest file it may write")
    seconds: float = Field(default=7200.0, gt=0, description="of reading one file")

    @property
    def memory_bytes(self) -> int:
        """`memory` in bytes."""
        return _bytes(self.memory)

    @property
    def scratch_bytes(self) -> int:
        """`scratch` in bytes."""
        return _bytes(self.scratch)


IMPORTS = ImportSection()
"""What holds where nothing is set."""


def _bytes(written: str) -> int:
    return int(written[:-2]) * (10**6 if written.endswith("MB") else 10**9)


class NodeSettings(BaseSettings):
    """All settings of a node."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="CONNEXON_NODE__", env_nested_delimiter="__"
    )

    hub: HubSection
    state_url: str = Field(default="", description="database of the operational state; empty: SQLite in the folder")
    keep_days: int = Field(
        default=7, ge=1, description="answers and inbox are kept this long after their query expired; the audit always"
    )
    release: ReleaseSection = ReleaseSection()
    privacy: PrivacySection = PrivacySection()
    edition: EditionSection = EditionSection()
    training: TrainingSection = TrainingSection()
    approvals: ApprovalsSection = ApprovalsSection()
    engine: EngineSection = EngineSection()
    data: DataSection = DataSection()
    imports: ImportSection = IMPORTS

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


TEMPLATE = """\
# Settings of this node. Each can also be set in the environment, as CONNEXON_NODE__SECTION__NAME,
# for example CONNEXON_NODE__RELEASE__MINIMUM_DONORS=10. They count from the next start of connexon-node serve.

# The database of requests, consent and audit. Empty: SQLite in this folder.
# For PostgreSQL: state_url = "postgresql://connexon@localhost/connexon"
{state_url}

# Answers are kept this many days after their query expired. The audit log is kept for ever.
# keep_days = 7

# Written by connexon-node join. The root fingerprint decides whom this node believes; change it only by joining anew.
[hub]
federation = {federation}
center = {center}
link_address = {link_address}
public_address = {public_address}
root_fingerprint = {root_fingerprint}

# What may leave.
[release]
# No released number rests on fewer donors.
# minimum_donors = 5
# Released counts are multiples of it; 1 leaves them exact.
# round_to = 5
# Groups of donors that a project may have exact numbers of, for each donor; all projects together three times that.
# Above 0.3 answers can be solved for single donors.
# independent_cohorts = 0.1
# "nearest", or "random": up or down by a draw, the same whenever the same is asked again.
# rounding = "nearest"

# Private numbers, the default for all that rests on persons, have noise that hides every single donor. What they tell
# of one donor at most is charged to one account, whoever asks; nothing refills it. Amounts are rho: docs/privacy.md.
[privacy]
# Of all years together, and of one: at most so much, and at most a quarter of what is left of the lifetime.
# lifetime = 5.12
# year = 1.28
# Shares of the year: first-ask tables, all researchers' questions, one researcher's, and models.
# tables = 0.46
# questions = 0.64
# researcher = 0.16
# models = 0.18
# Numbers lie within so much of the exact ones, with 95 % probability, where a question does not say how close.
# within = 15
# Probability that the name of a group of one donor shows where names are not known beforehand: of a question, a year.
# delta = 1e-8
# delta_of_year = 1e-6

# First-ask tables of the next edition count these diseases and ancestries by name, beside the network's lists. Take
# what your center works on in public, not what its donors have: a list made from data would tell of them. MONDO and
# HANCESTRO terms, such as ["MONDO:0005180"].
[edition]
# diseases = []
# ancestries = []

# Models that are trained on the rows of many centers, which stay where they are; see connexon-node training.
[training]
# false: this center takes part in no training.
# enabled = true
# No exact update rests on fewer donors.
# minimum_donors = 20
# true: models are trained here only with noise, whatever was granted.
# noise = false
# Runs of one project with exact updates, of one edition of the data, where you granted them.
# runs_per_project = 50
# The largest epsilon and delta of one recipe.
# maximum_epsilon = 2.0
# maximum_delta = 1e-6
# One task's time and memory; so many tasks are worked on at once.
# seconds = 600.0
# memory = "2GB"
# concurrent_tasks = 1

# Which questions wait for your approval whatever the donors' consents say; see connexon-node requests.
[approvals]
# Each question about a restricted dataset.
# restricted_datasets = true
# A project's questions, until you have approved one of them. Questions that name no project always wait then.
# first_use_of_project = false

# What queries may use of this machine.
[engine]
# Of all running queries together.
# memory = "2GB"
# threads = 2
# One query's time.
# seconds = 60.0
# concurrent_queries = 4
# A center that outgrows one machine lets Spark answer (pip install 'connexon[spark]', Java 17). Master and workers
# must see this node's data folder under the same path; memory is then each worker's, threads are cores in all.
# Then kind is "spark", and spark_master such as "spark://host:7077".
# kind = "duckdb"
# spark_master = ""

# Files are read by a process that can reach nothing but the file and a scratch folder.
[imports]
# true: nothing is imported where the kernel cannot see to that (Landlock, Linux 5.13); connexon-node doctor tells.
# require_sandbox = false
# What reading one file may use: memory, the largest scratch file, time.
# memory = "2GB"
# scratch = "200GB"
# seconds = 7200.0

# Which old generations of the data connexon-node gc leaves.
[data]
# The newest of each dataset, always.
# keep_generations = 3
# Others go when they have been out of force this many days.
# keep_days = 30
"""


def template(hub: HubSection, state_url: str = "") -> str:
    """A new node.toml that teaches what can be set."""
    present = {name: quoted(value) for name, value in hub.model_dump().items()}
    return TEMPLATE.format(**present, state_url=f"{'' if state_url else '# '}state_url = {quoted(state_url)}")


def quoted(text: str) -> str:
    """A text as TOML writes it; JSON's form of a string is TOML's."""
    return json.dumps(text)


def load(folder: NodeFolder) -> NodeSettings:
    """Read the settings of a node; its `state_url` is never empty. Raises Misconfigured that names the setting."""

    class FromFolder(NodeSettings):
        model_config = SettingsConfigDict(toml_file=folder.settings_file)

    try:
        found = FromFolder()
    except ValueError as error:
        raise Misconfigured(
            f"{folder.settings_file} is not right: {in_words(error, NodeSettings)}", code="settings.invalid"
        ) from error
    return found if found.state_url else found.model_copy(update={"state_url": folder.default_state_url})
