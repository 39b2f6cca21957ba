"""One simulated center, dataset by dataset, in the order in which they are to be imported."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import numpy
import pyarrow
import pyarrow.compute

from connexon_node.data.synthetic import bank, clinical, differentiation, omics, quality, tables
from connexon_node.data.synthetic.tables import Center, Integers

compute = pyarrow.compute

BANK = ("donors", "consents", "cell_lines", "lots")
"""What --only bank makes."""
ORDER = (
    *("donors", "consents", "protocols", "cell_lines", "lots", "vials", "str_profiles", "str_alleles", "hla_typings"),
    *("differentiation_runs", "timepoints", "samples", "karyotype_findings", "variants"),
    *("methylation", "protein_abundance", "expression"),
    *("specifications", "specification_items", "batches", "batch_steps", "materials", "deviations"),
    *("quality_tests", "control_runs", "proficiency_rounds", "proficiency_results", "shipments"),
    *("trials", "subjects", "treatments", "adverse_events", "outcomes", "survival"),
)
"""The order in which the files are to be imported."""
SCIENCE = (
    *("donors", "consents", "protocols", "cell_lines", "lots"),
    *("differentiation_runs", "timepoints", "samples", "protein_abundance"),
)
"""What --only science makes: the bank, and what models are trained on."""
Piece = tuple[str, Iterator[pyarrow.Table]]


class Scope(Enum):
    """How much of a center is made."""

    WHOLE = "whole"
    BANK = "bank"
    SCIENCE = "science"

    @property
    def datasets(self) -> tuple[str, ...]:
        """What is made, in the order in which it is to be imported."""
        return {Scope.WHOLE: ORDER, Scope.BANK: BANK, Scope.SCIENCE: SCIENCE}[self]


def pieces(center: str, donors: int, seed: int, *, features: int, scope: Scope) -> Iterator[Piece]:
    """Each dataset with its tables, to be taken one after the other."""
    waited = set(scope.datasets)
    for name, parts in _pieces(center, donors, seed, features=features, only_bank=scope is Scope.BANK):
        if name in waited:
            yield name, parts
            waited.discard(name)
        if not waited:
            return


def _pieces(center: str, donors: int, seed: int, *, features: int, only_bank: bool) -> Iterator[Piece]:
    place = Center.seeded(center, seed)
    donor_table, disease = tables.donors(place, donors)
    consent_table = tables.consents(place, donor_table, disease)
    lines, derived = bank.with_subclones(place, *tables.cell_lines(place, donor_table, disease))
    lots = tables.lots(place, lines, derived)
    yield from _made(donors=donor_table)
    if only_bank:
        yield from _made(consents=consent_table, cell_lines=lines, lots=lots)
        return
    people, agreed = clinical.subjects(place, max(12, donors // 8))
    yield from _made(consents=pyarrow.concat_tables([consent_table, agreed.cast(consent_table.schema)]))
    lots = bank.with_origin(place, lots)
    yield from _bank(place, lines, lots)
    yield from _science(place, lines, lots, features)
    yield from _practice(place, lots, people)


def _bank(place: Center, lines: pyarrow.Table, lots: pyarrow.Table) -> Iterator[Piece]:
    profiles, alleles = bank.str_profiles(place, lines)
    yield from _made(protocols=bank.protocols(place), cell_lines=lines, lots=lots, vials=bank.vials(place, lots))
    yield from _made(str_profiles=profiles, str_alleles=alleles, hla_typings=bank.hla_typings(place, lines))


def _science(place: Center, lines: pyarrow.Table, lots: pyarrow.Table, features: int) -> Iterator[Piece]:
    line_of_lot = _places(lots["cell_line_id"], lines["id"])
    disease = lines["disease_term"].combine_chunks().take(pyarrow.array(line_of_lot))
    runs, timepoints = differentiation.runs(place, lots, disease)
    samples = differentiation.samples(place, lots, runs)
    run_of_sample = _places(samples["run_id"], runs["id"])
    lot_of_run = _places(runs["lot_id"], lots["id"])
    lot = _places(samples["lot_id"], lots["id"])
    lot = numpy.where(lot >= 0, lot, numpy.append(lot_of_run, 0)[run_of_sample])
    diseases = disease.take(pyarrow.array(lot)).to_pylist()
    passage = lots["passage_no"].to_numpy()[lot]
    yield from _made(differentiation_runs=runs, timepoints=timepoints, samples=samples)
    yield from _made(
        karyotype_findings=differentiation.karyotype_findings(place, lots),
        variants=differentiation.variants(place, samples, diseases, passage),
    )
    yield "methylation", omics.methylation(place, samples, features)
    yield "protein_abundance", omics.protein_abundance(place, samples, diseases, features)
    yield "expression", omics.expression(place, samples, diseases, features)


def _practice(place: Center, lots: pyarrow.Table, people: pyarrow.Table) -> Iterator[Piece]:
    specifications, items = quality.specifications(place)
    batches, _ = quality.batches(place, lots)
    rounds, results = quality.proficiency(place)
    yield from _made(
        specifications=specifications,
        specification_items=items,
        batches=batches,
        batch_steps=quality.batch_steps(place, batches),
        materials=quality.materials(place, batches),
        deviations=quality.deviations(place, batches),
        quality_tests=quality.quality_tests(place, lots, batches),
        control_runs=quality.control_runs(place),
        proficiency_rounds=rounds,
        proficiency_results=results,
        shipments=quality.shipments(place, lots, batches),
    )
    yield from _made(
        trials=clinical.trials(place),
        subjects=people,
        treatments=clinical.treatments(place, people, batches),
        adverse_events=clinical.adverse_events(place, people),
        outcomes=clinical.outcomes(place, people),
        survival=clinical.survival(place, people),
    )


def _made(**made: pyarrow.Table) -> Iterator[Piece]:
    for name, table in made.items():
        yield name, iter([table])


def _places(keys: pyarrow.ChunkedArray, known: pyarrow.ChunkedArray) -> Integers:
    """The place of each key among the known, -1 where it is missing."""
    found = compute.index_in(keys.combine_chunks(), value_set=known.combine_chunks())
    places: Integers = compute.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(numpy.int64)
    return places
