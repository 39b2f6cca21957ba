"""A small center on disk: real database, ledger, ontologies, importer and engine, without network or policy."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet
from sqlalchemy import Connection

from connexon.analyses.count import Count
from connexon.analyses.spec import Analysis, Kind, Unit
from connexon.clock import END, MINUTE, now_ms
from connexon.conditions.filters import Filter
from connexon.identity.credential import Researcher
from connexon.query.question import Purpose, Question
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.data.generations import Generations
from connexon_node.data.synthetic import Scope, write_sample
from connexon_node.editions import Edition, Editions
from connexon_node.engine import DuckEngine
from connexon_node.importing import Importer, ImportOptions, ImportOutcome
from connexon_node.ontology import DEMO, Ontologies
from connexon_node.pipeline.values import CellTable, Cohort, Computed, Permit, Work
from connexon_node.release import ReleaseControl
from connexon_node.release.grants import ANY, Grant
from connexon_node.settings import EngineSection, ReleaseSection
from connexon_node.state import open_state


class DataOfNow(Editions):
    """An edition that is always the data of now and has no tables: for tests of what editions do not change."""

    def __init__(self, database: Database, generations: Generations) -> None:
        super().__init__(database)
        self._generations = generations

    def latest(self) -> Edition:
        numbers = {name: one.number for name, one in self._generations.all_current().items()}
        return Edition(1, 0, "steward", "", numbers)

    def tables(self, edition: Edition) -> None:
        return None


class SmallCenter:
    """One center in a folder. Close it when done."""

    def __init__(
        self,
        folder: Path,
        *,
        ontologies: bool | Path = True,
        limits: EngineSection | None = None,
        url: str = "",
        editions: Callable[[Database], Editions] | None = None,
    ) -> None:
        """Without `editions`, private numbers are of the data of now."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "none").mkdir(exist_ok=True)
        self.database = open_state(url or f"sqlite:///{folder / 'state.db'}")
        self.generations = Generations(self.database, folder / "data")
        self.ledger = Ledger(self.database)
        known = DEMO if ontologies is True else ontologies or folder / "none"
        self.ontologies = Ontologies.open(known)
        self.importer = Importer(self.generations, self.ledger, self.ontologies, DICTIONARY, folder)
        self.editions = DataOfNow(self.database, self.generations) if editions is None else editions(self.database)
        self.engine = DuckEngine(
            self.generations,
            self.ledger,
            self.ontologies,
            DICTIONARY,
            limits or EngineSection(memory="500MB"),
            self.editions,
        )

    def close(self) -> None:
        self.engine.close()
        self.database.close()

    def write(self, dataset: str, rows: Sequence[Mapping[str, object]]) -> Path:
        """A CSV file with these rows; columns are all that occur."""
        path = self.folder / f"{dataset}.csv"
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        return path

    def load(self, dataset: str, file: Path, *, skip_bad: bool = False, retire: bool = False) -> ImportOutcome:
        options = ImportOptions(by="steward", skip_bad=skip_bad, retire_dependents=retire)
        return self.importer.run(dataset, file, options)

    def load_rows(self, dataset: str, rows: Sequence[Mapping[str, object]], **options: bool) -> ImportOutcome:
        outcome = self.load(dataset, self.write(dataset, rows), **options)
        assert outcome.generation is not None, outcome.problems
        return outcome

    def load_sample(self, donors: int, seed: int = 7, *, scope: Scope = Scope.BANK) -> None:
        folder = self.folder / "sample"
        files = write_sample(folder, center="lyon", donors=donors, seed=seed, features=20, scope=scope)
        for dataset, file in files.items():
            assert self.load(dataset, file).generation is not None

    def cohort(self, profiles: frozenset[int] | None = None, question: Question | None = None) -> Cohort:
        """Those whose profile is among `profiles`; None: everybody with a consent in force."""
        permitted = frozenset(self.ledger.profiles()) if profiles is None else profiles
        return Cohort(permit=permit(question or ask("donors")), profiles=permitted, epoch=self.ledger.epoch())

    def compute(self, question: Question, cohort: Cohort | None = None, work: Work | None = None) -> Computed:
        return self.engine.run(question, cohort or self.cohort(), work or Work(deadline_ms=now_ms() + MINUTE))

    def count(self, dataset: str, where: Filter | None = None, cohort: Cohort | None = None) -> int:
        """The exact number of records of a dataset."""
        shape = self.compute(ask(dataset, where), cohort).shape
        assert isinstance(shape, CellTable)
        return shape.cells[0].records

    def rows(self, dataset: str) -> list[dict[str, object]]:
        """All rows of the generation in force, as they lie on disk."""
        generation = self.generations.current(dataset)
        assert generation is not None
        return [row for part in generation.parts for row in pyarrow.parquet.read_table(part).to_pylist()]


def ask(dataset: str, where: Filter | None = None, analysis: Analysis | None = None) -> Question:
    """A question for health research, to lyon."""
    return Question(
        query_id=str(uuid.uuid4()),
        federation="alliance",
        centers=(),
        issued_at_ms=now_ms(),
        expires_at_ms=now_ms() + MINUTE,
        purpose=Purpose(research=("DUO:0000037",)),
        dataset=dataset,
        filter=where,
        analysis=exactly() if analysis is None else analysis,
    )


def exactly(*by: str) -> Count:
    """Records, exact: what the engine computes is then what a granted answer tells."""
    return Count(by, Unit.RECORDS, Kind.GRANTED)


def everything_granted(asked: Asked, datasets: frozenset[str], connection: Connection | None = None) -> Grant:
    """A steward's grant that covers every question."""
    return Grant("g-1", "*", ANY, frozenset({ANY}), "a test", "steward", 0, END)


def granted(section: ReleaseSection, database: Database) -> ReleaseControl:
    """The release step of a center that grants exact numbers to everybody."""
    return ReleaseControl(section, DICTIONARY, database, covering=everything_granted)


def permit(question: Question) -> Permit:
    """A permit as policy would give it."""
    researcher = object.__new__(Researcher)  # release and engine never look at who asked
    return Permit(Asked(question, researcher, b"\7" * 32), rule="research-may-count", policy_version="abc123")
