"""One import, as a story: look at the file, stage it, check every row, find the donors, write, switch.

Nothing that serves is touched before the switch, which is one transaction (Generations.publish).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any as Connection

from connexon.clock import now_ms, to_datetime
from connexon.errors import Conflict, Unavailable
from connexon_node import sandbox
from connexon_node.consent.ledger import Ledger, RecordOutcome
from connexon_node.consent.profile import ConsentRecord
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.data.generations import Contents, Draft, Generation, Generations
from connexon_node.importing import duplicate_rows, fullness, report, sql
from connexon_node.importing.checks import Check, checks_of, with_refusals
from connexon_node.importing.consent_forms import CONSENTS, ConsentForms
from connexon_node.importing.distinct_values import EVERY, ROWS
from connexon_node.importing.mapping import PLAIN, Mapping, refusals, require_dataset
from connexon_node.importing.outcome import Loaded
from connexon_node.importing.pseudonymity import refuse_values
from connexon_node.importing.reader.process import Reader
from connexon_node.importing.references import DONOR, References
from connexon_node.importing.report import Problem
from connexon_node.importing.sources import FileFormat, Source, format_of
from connexon_node.importing.staging import Staging, quoted, text
from connexon_node.importing.unreadable import shown
from connexon_node.ontology import Ontologies
from connexon_node.settings import IMPORTS, ImportSection

PART = "part-000.parquet"
"""The file of a generation's rows."""
PREVIEWED = 5
"""Rows that a dry run shows."""
ROW_GROUP = 122_880
"""Rows read by one thread at a time."""
Progress = Callable[[str, float], None]
"""Hears what is being done and how much of all is done, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How to import. `retire_dependents` stops offering datasets whose rows would lose their donors.

    `allow_empty`: a file without a row to load may replace the dataset.
    `preview`: the outcome shows the first rows, as that of a dry run does.
    `encoding` (of text), `sheet` (of a workbook) and `assembly` (of variants) win over those of the mapping.
    """

    by: str
    skip_bad: bool = False
    dry_run: bool = False
    file_format: FileFormat | None = None
    retire_dependents: bool = False
    allow_empty: bool = False
    preview: bool = False
    mapping: Mapping = PLAIN
    encoding: str = ""
    sheet: str = ""
    assembly: str = ""

    @property
    def whole_mapping(self) -> Mapping:
        """The mapping, with what was said beside it."""
        said: dict[str, object] = {
            name: value for name, value in (("encoding", self.encoding), ("sheet", self.sheet)) if value
        }
        if self.assembly:
            said["vcf"] = self.mapping.vcf.model_copy(update={"assembly": self.assembly})
        return self.mapping.model_copy(update=said)


@dataclass(frozen=True, kw_only=True)
class ImportOutcome:
    """What became of an import. `generation` is None where nothing was loaded.

    `preview` holds the first right rows of a dry run, as the mapping made them; its `retired` are those that the
    import would stop offering.
    """

    dataset: str
    file: str
    rows: int
    bad_rows: int
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    report: Path | None = None
    dry_run: bool = False
    generation: Generation | None = None
    retired: tuple[str, ...] = ()
    consents: RecordOutcome | None = None
    preview: tuple[dict[str, str], ...] = ()

    @property
    def refused(self) -> bool:
        """Whether bad rows kept the file from being loaded."""
        return self.generation is None and self.bad_rows > 0 and not self.dry_run


class Importer:
    """Imports files into one node. Reports go into `report_folder`, the node's own."""

    def __init__(
        self,
        generations: Generations,
        ledger: Ledger,
        ontologies: Ontologies,
        dictionary: Dictionary,
        report_folder: Path,
        section: ImportSection = IMPORTS,
        replaced: frozenset[str] = frozenset(),
    ) -> None:
        """`replaced` are datasets that are imported together with this one, whose rows in force do not matter."""
        self._generations = generations
        self._ledger = ledger
        self._ontologies = ontologies
        self._dictionary = dictionary
        self._report_folder = report_folder
        self._section = section
        self._replaced = replaced

    def run(
        self, dataset_name: str, file: Path, options: ImportOptions, progress: Progress = lambda what, share: None
    ) -> ImportOutcome:
        """Import a file as the next generation of a dataset.

        Raises NotFound (no such dataset), FileRefused (the file as a whole), Conflict (another import, dependents, or
        no row instead of those in force), Unavailable (disk full, database). Bad rows are no exception: see
        ImportOutcome.refused.
        """
        dataset = self._dictionary.named(dataset_name)
        references = References(dataset, self._dictionary, self._generations, self._ontologies, trial=options.dry_run)
        with fullness.said(), self._generations.drafting(dataset.name) as draft:
            if not options.dry_run:
                references.require_parents()
            progress("Looking at the file", 0.0)
            mapping = options.whole_mapping
            require_dataset(mapping, dataset)
            kind = format_of(file, options.file_format or mapping.format)
            reader = Reader(draft.scratch, self._section, private=self._report_folder)
            with contextlib.closing(Staging(dataset, file, kind, reader, mapping)) as staging:
                progress("Reading", 0.05)
                source = staging.read()
                return self._load(_Run(dataset, source, draft, staging, references, options, progress))

    def _load(self, run: _Run) -> ImportOutcome:
        forms = ConsentForms(run.staging) if run.dataset.name == CONSENTS else None
        warnings, renamed = _check(run, forms)
        outcome = self._judged(run, warnings)
        if outcome.bad_rows and not run.options.skip_bad:
            return outcome
        if outcome.rows == outcome.bad_rows and not run.options.allow_empty:
            self._refuse_to_empty(run)
        if run.options.dry_run:
            retired = self._settle_dependents(run, run.references.foreseen())
            return replace(outcome, retired=retired, warnings=(*warnings, *_repeats(run)))
        run.progress("Finding donors", 0.5)
        joins, donor = run.references.join_donors(run.staging, self._ledger)
        run.progress("Writing", 0.6)
        loaded = Loaded(run.dataset, renamed, joins, donor)
        contents = self._write(run, loaded)
        warnings = (*warnings, *_repeats(run, loaded))
        retired = self._settle_dependents(run, "written")
        recorded = None
        if forms is not None:
            # The ledger first: should the switch fail, consent is up to date and the same file can come again.
            run.progress("Recording consent", 0.8)
            recorded = self._record(list(forms.records()), by=run.options.by, source=run.source.name)
        run.progress("Switching", 0.95)
        run.source.require_unchanged()
        generation = self._generations.publish(run.draft, contents, retire=retired)
        run.progress("Done", 1.0)
        return replace(outcome, warnings=warnings, generation=generation, retired=retired, consents=recorded)

    def _record(self, records: Sequence[ConsentRecord], *, by: str, source: str) -> RecordOutcome | None:
        recorded = self._ledger.record_many(records, by=by, source=source)
        self._ledger.expire(to_datetime(now_ms()).date())
        return recorded

    def _refuse_to_empty(self, run: _Run) -> None:
        """Raise Conflict where a file without a row to load would replace rows, or has records that make none."""
        current, file, dataset = self._generations.current(run.dataset.name), run.source.name, run.dataset.name
        if current is not None and current.rows:
            raise Conflict(
                f"{file} has no row to load, and {dataset} has {current.rows:,} in force. See that the file is "
                f"complete, or add --allow-empty: then {dataset} is empty from this import on.",
                code="import.no_rows",
            )
        if run.staging.fruitless:
            raise Conflict(
                f"{file} has records, but none of them gives a row of {dataset}. See that the mapping names the right "
                "samples, or add --allow-empty if that is how it is.",
                code="import.no_rows",
            )

    def _judged(self, run: _Run, warnings: tuple[Problem, ...]) -> ImportOutcome:
        run.connection.execute('CREATE TABLE bad AS SELECT "row" FROM blank UNION SELECT "row" FROM problems')
        ((bad,),) = run.connection.execute('SELECT count(DISTINCT "row") FROM problems').fetchall()
        problems = report.summed(run.staging)
        return ImportOutcome(
            dataset=run.dataset.name,
            file=run.source.name,
            rows=run.staging.rows,
            bad_rows=int(bad) + run.staging.malformed,
            problems=problems,
            warnings=warnings,
            report=report.write(run.staging, self._report_folder, run.dataset.name) if problems else None,
            dry_run=run.options.dry_run,
            preview=_preview(run) if run.options.dry_run or run.options.preview else (),
        )

    def _write(self, run: _Run, loaded: Loaded) -> Contents:
        """Write the right rows as Parquet, sorted so that filters skip what they do not want."""
        loaded.write_codes(run.staging, run.draft)
        run.connection.execute(f"CREATE VIEW loaded AS {loaded.rows()}")
        part, order = run.draft.folder / PART, ", ".join(map(quoted, loaded.order))
        run.connection.execute(
            f"COPY (SELECT * FROM loaded ORDER BY {order}) TO {text(str(part))} "
            f"(FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROW_GROUP})"
        )
        run.connection.execute("DROP VIEW loaded")
        run.connection.execute(f"CREATE VIEW written AS SELECT * FROM read_parquet({sql.file(part)})")
        ((rows, count, last),) = run.connection.execute(
            f"SELECT count(*), count(DISTINCT nullif({DONOR}, 0)), coalesce(max({DONOR}), 0) FROM written"
        ).fetchall()
        ((right,),) = run.connection.execute(
            'SELECT count(*) FROM staged WHERE rowid NOT IN (SELECT "row" FROM bad)'
        ).fetchall()
        if rows != right:
            raise Unavailable(
                f"{right} rows were to be written and {rows} were; nothing was loaded.", code="import.incomplete"
            )
        return Contents(
            rows=int(rows),
            donors=int(count),
            last_donor=int(last),
            dictionary_version=self._dictionary.version,
            source=run.source.name,
            source_sha256=run.source.sha256,
            imported_by=run.options.by,
        )

    def _settle_dependents(self, run: _Run, loaded: str) -> tuple[str, ...]:
        """The datasets to stop offering, since their rows' donors would no longer be right. Raises Conflict."""
        found = run.references.unsettled(run.staging, loaded)
        unsettled = {name: rows for name, rows in found.items() if name not in self._replaced}
        if unsettled and not run.options.retire_dependents:
            which = " and ".join(f"{rows} rows of {name}" for name, rows in unsettled.items() if rows)
            raise Conflict(
                f"{which} belong to {run.dataset.name} that this file leaves out or gives to another donor. Complete "
                "the file, or add --retire-dependents: then they are not offered until they are imported again.",
                code="import.dependents",
            )
        return tuple(unsettled)


@dataclass(frozen=True)
class _Run:
    """What the steps of one import share."""

    dataset: Dataset
    source: Source
    draft: Draft
    staging: Staging
    references: References
    options: ImportOptions
    progress: Progress

    @property
    def connection(self) -> Connection:
        return self.staging.connection


def _check(run: _Run, forms: ConsentForms | None) -> tuple[tuple[Problem, ...], dict[str, dict[str, str]]]:
    """Note what is wrong with every row. Returns the warnings, and terms written under older ids by field."""
    run.progress("Checking", 0.25)
    warnings = []
    checks = with_refusals(checks_of(run.dataset), refusals(run.options.whole_mapping))
    for check, count in _wrong(run, list(checks)):
        if count and check.warns:
            warnings.append(Problem(check.field, check.reason, count))
        elif count:
            run.connection.execute(
                f"INSERT INTO problems SELECT rowid, {text(check.field)}, {text(check.reason)}, "
                f"{shown(quoted(check.field))} FROM staged WHERE ({check.wrong}) "
                'AND rowid NOT IN (SELECT "row" FROM unread)'
            )
    if not run.source.ends_whole:
        warnings.append(Problem("", "the last line has no end: see that the file is complete", 1))
    warnings += _not_confined()
    renamed = run.references.find_unknown_terms(run.staging)
    if forms is not None:
        forms.find_unreadable()
    warnings += run.references.find_dangling(run.staging)
    warnings += [Problem("", note, count) for note, count in run.staging.notes]
    refuse_values(run.source.name, run.connection, run.dataset, run.staging.filled, run.staging.recurring)
    return tuple(warnings), renamed


def _not_confined() -> list[Problem]:
    lacking = sandbox.support().lacking
    told = f"the file was read where it could reach other files of this machine: the kernel has no {lacking}"
    return [Problem("", told, 1)] if lacking else []


def _wrong(run: _Run, checks: Sequence[Check]) -> list[tuple[Check, int]]:
    """How many rows each check finds wrong."""
    recurring = run.staging.recurring
    tables = [recurring.table(run.dataset.field(check.field)) if check.alone else EVERY for check in checks]
    counts: dict[Check, int] = {}
    for table in dict.fromkeys(tables):
        of_table = [check for check, own in zip(checks, tables, strict=True) if own == table]
        wrong = ", ".join(f"coalesce(sum({ROWS}) FILTER (WHERE {check.wrong}), 0)" for check in of_table)
        (found,) = run.connection.execute(f"SELECT {wrong} FROM {table}").fetchall()
        counts.update(zip(of_table, map(int, found), strict=True))
    return [(check, counts[check]) for check in checks]


def _repeats(run: _Run, loaded: Loaded | None = None) -> list[Problem]:
    """Warnings of equal rows. What was written is sorted, so that it mostly shows at once that there are none."""
    fields = duplicate_rows.compared(run.dataset, run.options.whole_mapping, run.staging.filled)
    if not fields:
        return []
    sorted_by_them = loaded is not None and {*loaded.order} <= {*fields, DONOR}
    if loaded and sorted_by_them and not duplicate_rows.neighbours_alike(run.draft.folder / PART, loaded.order):
        return []
    return duplicate_rows.repeated(run.staging, run.dataset, fields)


def _preview(run: _Run) -> tuple[dict[str, str], ...]:
    columns = ", ".join(quoted(name) for name in run.staging.filled)
    rows = run.connection.execute(
        f'SELECT {columns} FROM staged WHERE rowid NOT IN (SELECT "row" FROM bad) ORDER BY rowid LIMIT {PREVIEWED}'
    ).fetchall()
    return tuple(
        {name: value for name, value in zip(run.staging.filled, row, strict=True) if value is not None} for row in rows
    )
