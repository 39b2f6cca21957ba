"""Exact numbers about persons, settled on what is known outside: for granted counts, and for what models rest on.

minimum donors -> what is known outside (complement, differencing, margins, generations) -> rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from sqlalchemy import Connection

from connexon.analyses.train import Train
from connexon.service.database import Database
from connexon_node.data.dictionary import DONORS, Dataset, Dictionary
from connexon_node.pipeline.held_out import held_out
from connexon_node.pipeline.values import Cell, Computed
from connexon_node.release import rules
from connexon_node.release.decision import Decision
from connexon_node.release.differencing import EXACT, Settled, Settling
from connexon_node.release.donor_multiset import Counted
from connexon_node.release.ledger import ReleaseLedger
from connexon_node.release.measures import UnknownShape
from connexon_node.release.populations import Population, Populations
from connexon_node.settings import ReleaseSection

Key = tuple[object, ...]


class ExactNumbers:
    """Settles the cells of an answer. Not thread-safe: ReleaseControl's lock guards it."""

    def __init__(self, section: ReleaseSection, dictionary: Dictionary, database: Database) -> None:
        self.minimum = section.minimum_donors
        self.round_to = section.round_to
        self.ledger = ReleaseLedger(database, self.minimum)
        self._dictionary = dictionary
        self._secret = self.ledger.secret() if section.rounding == "random" else None
        self._populations = Populations(self.ledger.counted)

    def numbers(
        self,
        computed: Computed,
        dataset: Dataset,
        by: tuple[str, ...],
        cells: Sequence[Cell],
        decision: Decision,
        connection: Connection | None,
        *,
        donors: bool = False,
    ) -> dict[Key, Settled]:
        """The number that stands for each cell with enough donors; `donors` where distinct donors are counted."""
        kept = rules.enough_donors(cells, self.minimum)
        if not kept:
            return {}
        if self.minimum == 1:
            # Every single donor may show: there is nothing to hide by comparing.
            return {cell.key: Settled(nobody(cell), cell.records, repr(cell.key).encode(), why=EXACT) for cell in kept}
        if computed.population is None or any(cell.behind is None for cell in cells):
            raise UnknownShape
        population = (self._populations.once_each if donors else self._populations.of)(computed.population)
        settling = self._settling(population, decision, connection)
        domains = rules.domains_of(by, dataset, self._dictionary)
        sizes = [None if domain is None else len(domain) for domain in domains]
        settlement = settling.settle_table(population.counted, cells, sizes)
        decision.new[DONORS if donors else dataset.name] = settlement.new
        return dict(zip((cell.key for cell in kept), settlement.cells, strict=True))

    def donors(
        self, computed: Computed, cell: Cell, decision: Decision, connection: Connection | None, *, least: int
    ) -> int | None:
        """The donors behind rows, counted as those of the dataset of donors would be; None where fewer than `least`."""
        least = max(self.minimum, least)
        if cell.donors < least or _trained_on(computed, cell) < least:
            return None
        if self.minimum == 1:
            return self.rounded(Settled(nobody(cell), cell.donors, b"donors"))
        if computed.population is None or cell.behind is None:
            raise UnknownShape
        population, behind = self._populations.once_each(computed.population), numpy.unique(cell.behind)
        settling = self._settling(population, decision, connection)
        settlement = settling.settle_table(population.counted, [Cell((), behind.size, behind.size, behind)], [])
        decision.new[DONORS] = settlement.new
        (settled,) = settlement.cells
        return None if settled.withheld else self.rounded(settled)

    def reached(self, computed: Computed) -> int:
        """How many distinct donors a purpose reaches."""
        assert computed.population is not None
        return self._populations.once_each(computed.population).counted.donors

    def rounded(self, settled: Settled) -> int:
        """The number as it leaves."""
        if self._secret is not None:
            return rules.randomly_rounded(settled.value, self.round_to, secret=self._secret, seal=settled.seal)
        return rules.rounded(settled.value, self.round_to)

    def why(self, settled: Settled) -> str:
        """For the steward: what became of a number."""
        if self.round_to == 1:
            return settled.why
        rounded = f"rounded to a multiple of {self.round_to}"
        return rounded if settled.why == EXACT else f"{settled.why}, {rounded}"

    def _settling(self, population: Population, decision: Decision, connection: Connection | None) -> Settling:
        outside = self.ledger.known(connection)
        outside.cohorts.heaviest = max(outside.cohorts.heaviest, population.heaviest)
        decision.known = len(outside.cohorts.all)
        return Settling(outside, self.ledger.counted, population.heaviest)


def of_donors(cell: Cell) -> Cell:
    """A group counted in distinct donors."""
    return Cell(cell.key, cell.donors, cell.donors, None if cell.behind is None else numpy.unique(cell.behind))


def nobody(of: Cell) -> Counted:
    """A cohort that is compared with nothing."""
    empty = numpy.empty(0, dtype=numpy.int32)
    return Counted(empty, of.donors, numpy.empty(0, dtype=numpy.int64))


def _trained_on(computed: Computed, cell: Cell) -> int:
    """The donors whose rows a model is trained on: those that are not kept apart to evaluate it."""
    analysis = computed.cohort.permit.asked.question.analysis
    if not isinstance(analysis, Train) or not analysis.recipe.held_out or cell.behind is None:
        return cell.donors
    donors = numpy.unique(cell.behind)
    return int((~held_out(donors, analysis.recipe.held_out, analysis.recipe.seed)).sum())
