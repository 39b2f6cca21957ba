"""Granted numbers: exact, by the steward's decision, under every rule that can be kept where nothing is noisy.

grant -> parts of the condition that count (decided where rows are read) -> minimum donors and what is known outside
(exact_numbers.py) -> cohorts that may still be told (cohorts_used.py) -> rounding -> what may be said of the rest.

INVARIANT: decide on exact numbers first, round last. The other way round, rounding would let small cells by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection

from connexon.analyses.count import Count
from connexon.analyses.spec import Unit
from connexon.analyses.train import Train
from connexon.analyses.wire_kinds import unit_to_wire
from connexon.errors import Refused
from connexon.query.signed import Asked
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.data.dictionary import Dataset, Dictionary, relations
from connexon_node.pipeline.values import Cell, CellTable, Computed, ReleaseMoved
from connexon_node.privacy.contributions import require_own_rows
from connexon_node.release import rules
from connexon_node.release.cohorts_used import CohortsUsed, Use, holder_of
from connexon_node.release.decision import Decision, Judged
from connexon_node.release.differencing import Settled
from connexon_node.release.exact_numbers import ExactNumbers, Key, of_donors
from connexon_node.release.grants import Grant
from connexon_node.release.wire import add_cell

Covering = Callable[[Asked, frozenset[str], Connection | None], Grant | None]
"""Finds the grant by which a question that looks into these datasets may be answered exactly, if there is one."""


class NotGranted(Refused):
    """Exact numbers were asked for that the steward has not granted."""

    code = "release.not_granted"


class GrantedRelease:
    """Decides exact counts of what rests on persons. Not thread-safe: ReleaseControl's lock guards it."""

    def __init__(
        self, exact: ExactNumbers, dictionary: Dictionary, covering: Covering | None, used: CohortsUsed
    ) -> None:
        """`covering`: None where the federation forbids granting."""
        self._exact = exact
        self._dictionary = dictionary
        self._covering = covering
        self._used = used

    def grant_for(self, computed: Computed, connection: Connection | None = None) -> Grant:
        """The steward's grant for a question, in force now. Raises NotGranted."""
        asked = computed.cohort.permit.asked
        looked_into = relations.touched(self._dictionary, asked.question)
        datasets = frozenset(one.name for one in looked_into if one.personal)
        grant = self._covering(asked, datasets, connection) if self._covering is not None else None
        if grant is None and isinstance(asked.question.analysis, Train):
            raise NotGranted(
                "This center has not granted exact training on this to you and your project; its steward may. Leave "
                "out  privacy: exact  and each center adds noise to what leaves."
            )
        if grant is None:
            raise NotGranted(
                "This center has not granted exact numbers about this to you and your project; its steward may. "
                "Ask without exact for numbers with noise."
            )
        return grant

    def require_in_force(self, connection: Connection, computed: Computed) -> None:
        """Within the sealing transaction: raise ReleaseMoved where the grant has ended or was withdrawn meanwhile."""
        try:
            self.grant_for(computed, connection)
        except NotGranted as error:
            # Decided again, it is a refusal that is sealed like any other.
            raise ReleaseMoved("The grant of exact numbers has ended or was withdrawn meanwhile.") from error

    def use_up(self, connection: Connection, computed: Computed, final: Decision) -> None:
        """Within the sealing transaction: write down what was told. Raises ReleaseMoved where that is not left."""
        if final.use is not None:
            self._used.write(connection, final.use, computed.cohort.permit.asked.question.query_id)

    def decide(
        self,
        computed: Computed,
        table: CellTable,
        dataset: Dataset,
        decision: Decision,
        connection: Connection | None,
    ) -> None:
        """Write into a decision what leaves. Raises NotGranted, CohortsSpent, OtherDonors or ReleaseMoved."""
        asked = computed.cohort.permit.asked
        decision.grant = self.grant_for(computed, connection)
        self.state(decision.answer.protection, decision.grant)
        self._require_parts(computed)
        # Parts and cohorts are about the donors whose rows are counted: others must not decide.
        require_own_rows(self._dictionary, asked.question)
        assert isinstance(asked.question.analysis, Count)
        donors = asked.question.analysis.unit is Unit.DONORS
        cells = rules.in_order(table.cells)
        if donors:
            cells = tuple(map(of_donors, cells))
        numbers = self._exact.numbers(computed, dataset, table.by, cells, decision, connection, donors=donors)
        self._judge(cells, numbers, decision)
        if all(one.number is None for one in decision.judged):
            decision.withhold()
            return
        decision.use = self._use(computed, decision.grant, numbers)
        if decision.use is not None:
            self._used.require(decision.use, connection)
        self._write(table.by, dataset, decision, donors=donors)

    def state(self, protection: answer_pb2.Protection, grant: Grant) -> None:
        """Say in an answer that its numbers are exact, by which decision and rules."""
        protection.kind, protection.grant = query_pb2.NUMBER_KIND_GRANTED, grant.id
        protection.minimum_donors, protection.rounded_to = self._exact.minimum, self._exact.round_to

    def _require_parts(self, computed: Computed) -> None:
        asked = computed.cohort.permit.asked.question
        if asked.filter is not None and computed.parts < self._exact.minimum:
            raise ReleaseMoved("The minimum number of donors was raised while this was computed.")

    def _judge(self, cells: Sequence[Cell], numbers: Mapping[Key, Settled], decision: Decision) -> None:
        for cell in cells:
            settled = numbers.get(cell.key)
            if settled is None or settled.withheld:
                why = "too few donors" if settled is None else settled.why
                decision.judged.append(Judged(cell, None, why))
            else:
                decision.judged.append(Judged(cell, self._exact.rounded(settled), self._exact.why(settled)))

    def _use(self, computed: Computed, grant: Grant, numbers: Mapping[Key, Settled]) -> Use | None:
        if self._exact.minimum == 1:
            return None
        new = sum(not one.fixed and not one.withheld for one in numbers.values())
        return Use(holder_of(grant), new, self._exact.reached(computed))

    def _write(self, by: tuple[str, ...], dataset: Dataset, decision: Decision, *, donors: bool) -> None:
        answer = decision.answer
        answer.protection.unit = unit_to_wire(Unit.DONORS if donors else Unit.RECORDS)
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.count.by.extend(by)
        shown = [one.cell for one in decision.judged if one.number is not None]
        answer.count.groups_withheld = bool(by) and not rules.all_groups_shown(
            shown, rules.domains_of(by, dataset, self._dictionary)
        )
        for one in decision.judged:
            if one.number is not None:
                add_cell(answer.count, one.cell.key, one.number)
