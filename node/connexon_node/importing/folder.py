"""A folder of files as one import: what each holds, in which order they are loaded, and all of them or none.

What a file holds is said by the mapping beside it (`lots.xlsx` and `lots.toml`; where one file holds several datasets,
`vials.donors.toml`, `vials.lots.toml` and so on), else by its name (`lots.csv`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
from numpy.typing import NDArray

from connexon.clock import now_ms, to_datetime
from connexon.service.database import Database
from connexon_node.consent.batch import numbers_in
from connexon_node.consent.ledger import Ledger, RecordOutcome
from connexon_node.consent.profile import ConsentRecord
from connexon_node.data.dictionary import Dictionary
from connexon_node.data.generations import Generations
from connexon_node.data.several import several
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.loading import Importer, ImportOptions, ImportOutcome
from connexon_node.importing.mapping import PLAIN, Mapping
from connexon_node.importing.mapping import load as load_mapping
from connexon_node.importing.sources import format_of, stamp_of
from connexon_node.ontology import Ontologies
from connexon_node.settings import IMPORTS, ImportSection

_FIRST_TRIAL_NUMBER = 2_000_000_000
"""Donors that are new in a trial are numbered from here downwards, and none of it is kept."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One dataset to load, from a file with its mapping."""

    dataset: str
    file: Path
    mapping: Mapping


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What became of a folder. `committed`: all of it is in force; else nothing is."""

    outcomes: tuple[ImportOutcome, ...]
    committed: bool


def planned(folder: Path, dictionary: Dictionary) -> tuple[tuple[Planned, ...], tuple[str, ...]]:
    """What the files of a folder hold, in the order in which they are to be loaded, and the names of files left alone.

    Raises FileRefused where it cannot be told what a file holds, or two hold the same.
    """
    there = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    mappings = {path.name.removesuffix(".toml"): path for path in there if path.suffix.lower() == ".toml"}
    plans, left, used = list[Planned](), list[str](), set[str]()
    for path in there:
        if path.suffix.lower() == ".toml":
            continue
        try:
            format_of(path, None)
        except FileRefused:
            left.append(path.name)
            continue
        stem = path.name.split(".")[0] if path.suffix in (".gz", ".bgz") else path.stem
        own = [name for name in mappings if name == stem or name.startswith(f"{stem}.")]
        used.update(own)
        plans += [_mapped(path, mappings[name], dictionary) for name in own] or [_named(path, stem, dictionary)]
    left += [path.name for name, path in mappings.items() if name not in used]
    _require_once(plans)
    if not plans:
        raise FileRefused(f"{folder} holds no file that can be loaded.", code="import.no_file")
    return tuple(sorted(plans, key=lambda one: _place(one.dataset, dictionary))), tuple(left)


def load_folder(
    plans: Sequence[Planned],
    options: ImportOptions,
    *,
    generations: Generations,
    ledger: Ledger,
    ontologies: Ontologies,
    dictionary: Dictionary,
    report_folder: Path,
    section: ImportSection = IMPORTS,
    progress: Callable[[str, str, float], None] = lambda dataset, what, share: None,
) -> Loaded:
    """Load all, or none where one has bad rows (unless skip_bad) or the run is dry.

    Raises what Importer.run raises, for the first file that is refused; then nothing is loaded.
    """
    outcomes = []
    stamps = {plan.file: stamp_of(plan.file) for plan in plans}
    with several(generations) as together:
        importer = _TogetherImporter(
            together,
            _TrialLedger(generations.database) if options.dry_run else ledger,
            ontologies,
            dictionary,
            report_folder,
            section,
            frozenset(plan.dataset for plan in plans),
        )
        for plan in plans:
            told = replace(options, mapping=plan.mapping, dry_run=False, preview=options.dry_run)

            def hear(what: str, share: float, name: str = plan.dataset) -> None:
                progress(name, what, share)

            outcomes.append(importer.run(plan.dataset, plan.file, told, hear))
            if outcomes[-1].refused:
                if options.dry_run:
                    outcomes[-1] = replace(outcomes[-1], dry_run=True)
                break
        whole = len(outcomes) == len(plans) and not any(one.refused for one in outcomes)
        if not whole or options.dry_run:
            shown = (replace(one, generation=None, dry_run=options.dry_run, consents=None) for one in outcomes)
            return Loaded(outcomes=tuple(shown), committed=False)
        for file, stamp in stamps.items():
            if stamp_of(file) != stamp:
                raise FileRefused(f"{file.name} changed while it was read; nothing was loaded.", code="import.changed")
        # The ledger first: should the switch fail, consent is up to date and the same files can come again.
        recorded = importer.record(ledger)
        made = {one.dataset: one for one in together.commit()}
    done = (
        replace(one, generation=made[one.dataset], consents=recorded if one.dataset == "consents" else None)
        for one in outcomes
    )
    return Loaded(outcomes=tuple(done), committed=True)


class _TogetherImporter(Importer):
    """Keeps consents until everything is known to be right."""

    _held: tuple[Sequence[ConsentRecord], str, str] | None = None

    def _record(self, records: Sequence[ConsentRecord], *, by: str, source: str) -> RecordOutcome | None:
        self._held = (records, by, source)
        return None

    def record(self, ledger: Ledger) -> RecordOutcome | None:
        """Record the consents that were kept."""
        if self._held is None:
            return None
        records, by, source = self._held
        recorded = ledger.record_many(records, by=by, source=source)
        ledger.expire(to_datetime(now_ms()).date())
        return recorded


class _TrialLedger(Ledger):
    """Numbers new donors for as long as a trial lasts, and writes nothing."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._trial_database = database
        self._new: dict[str, int] = {}

    def number_donors(self, donor_ids: Sequence[str]) -> NDArray[numpy.int32]:
        """The numbers of donors that have one; others are numbered for the trial."""
        with self._trial_database.reading() as connection:
            known = numbers_in(connection, donor_ids) if donor_ids else {}
        for donor in donor_ids:
            if donor not in known:
                known[donor] = self._new.setdefault(donor, _FIRST_TRIAL_NUMBER - len(self._new))
        return numpy.array([known[donor] for donor in donor_ids], dtype=numpy.int32)


def _mapped(file: Path, path: Path, dictionary: Dictionary) -> Planned:
    mapping = load_mapping(path)
    dataset = mapping.dataset or path.name.removesuffix(".toml").rpartition(".")[2]
    if dataset not in {one.name for one in dictionary.datasets}:
        raise FileRefused(
            f'{path.name} does not say what {file.name} holds: write dataset = "..." in it; connexon-node dictionary '
            "lists the datasets.",
            code="import.mapping",
        )
    return Planned(dataset=dataset, file=file, mapping=mapping)


def _named(file: Path, stem: str, dictionary: Dictionary) -> Planned:
    if stem not in {one.name for one in dictionary.datasets}:
        raise FileRefused(
            f"What {file.name} holds is not known: draft a mapping with  connexon-node map {file.name} "
            f"--out {stem}.toml  and mend it, or name the file as its dataset, such as lots.csv.",
            code="import.unknown_dataset",
        )
    return Planned(dataset=stem, file=file, mapping=PLAIN)


def _require_once(plans: Sequence[Planned]) -> None:
    seen: dict[str, Planned] = {}
    for plan in plans:
        other = seen.setdefault(plan.dataset, plan)
        if other is not plan:
            raise FileRefused(
                f"{other.file.name} and {plan.file.name} both hold {plan.dataset}, which a file replaces as a whole: "
                "put their rows into one file, or exclude one.",
                code="import.twice",
            )


def _place(dataset: str, dictionary: Dictionary) -> tuple[int, int]:
    """Datasets after those that they point to."""
    names = [other.name for other in dictionary.datasets]
    return len(dictionary.reached[dataset] - {dataset}), names.index(dataset)
