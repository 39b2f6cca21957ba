"""Private numbers from an edition's first-ask tables: paid for once, when it was opened, then free, the same for all.

Which questions these are is decided by `connexon_node.editions.told`, from words alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from connexon.analyses.count import Count
from connexon.conditions.filters import Scalar
from connexon.query.question import Question
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.data.dictionary import Dictionary
from connexon_node.editions import Edition, Editions
from connexon_node.editions.told import Told, told
from connexon_node.pipeline.values import Computed
from connexon_node.privacy.first_ask import Special, answer
from connexon_node.privacy.first_ask.dimensions import Value
from connexon_node.release.private import in_order
from connexon_node.release.wire import add_cell

OTHER = "other"
"""The key of the group of all values that no public list has."""
Key = tuple[Scalar | None, ...]


@dataclass(frozen=True)
class FirstAsk:
    """What the tables of the edition in force tell. Thread-safe."""

    editions: Editions | None
    dictionary: Dictionary

    def told(self, computed: Computed) -> Told | None:
        """How the tables answer the question of what was computed; None where they do not."""
        edition = self.editions.latest() if self.editions is not None else None
        if edition is None or edition.number != computed.edition:
            return None
        return self._told(edition, computed.cohort.permit.asked.question)

    def numbers(self, asked: Told) -> dict[Key, int]:
        """The numbers of donors by group, signed, to the nearest whole number."""
        return {
            tuple(_written(value) for value in cell.key): cell.count
            for cell in answer(asked.tables.estimates, asked.asked)
        }

    def price(self, asked: Told, wire: answer_pb2.Price) -> None:
        """Write what the answer costs into it: nothing."""
        wire.half_width, wire.kind = asked.half_width, query_pb2.NUMBER_KIND_PRIVATE

    def write(self, asked: Told, computed: Computed, wire: answer_pb2.Answer) -> dict[Key, int]:
        """Write the numbers into an answer; returns them by key."""
        analysis = computed.cohort.permit.asked.question.analysis
        assert isinstance(analysis, Count)
        wire.status = answer_pb2.ANSWER_STATUS_RELEASED
        self.state(asked, computed.edition, wire.protection)
        wire.count.by.extend(analysis.by)
        wire.protection.unit = query_pb2.COUNT_UNIT_DONORS
        numbers = self.numbers(asked)
        for key in in_order(numbers):
            add_cell(wire.count, key, numbers[key])
        return numbers

    def state(self, asked: Told, edition: int, wire: answer_pb2.Protection) -> None:
        """Write what was done to the numbers, with the largest noise of any of them."""
        wire.kind, wire.edition = query_pb2.NUMBER_KIND_PRIVATE, edition
        state(asked, wire.noise)

    def of_dataset(self, computed: Computed, dataset: str) -> Told | None:
        """How the tables tell the number of donors with a row of a dataset, to who describes; None where they do not.

        A description is of the data of now, and its numbers are of the edition in force.
        """
        edition = self.editions.latest() if self.editions is not None else None
        if edition is None:
            return None
        described = computed.cohort.permit.asked.question
        return self._told(edition, _counting(described, dataset))

    def edition(self) -> int:
        """The number of the edition in force; 0 where there is none."""
        edition = self.editions.latest() if self.editions is not None else None
        return edition.number if edition is not None else 0

    def _told(self, edition: Edition, question: Question) -> Told | None:
        assert self.editions is not None
        return told(self.editions.tables(edition), edition.generations, self.dictionary, question)


def state(asked: Told, wire: answer_pb2.Noise) -> None:
    """The noise in a table's numbers, as the largest of them has it. What it has cost is what all tables have."""
    wire.rho, wire.charged = asked.tables.rho, 0.0
    wire.scale, wire.half_width, wire.contributions = math.sqrt(asked.variance), asked.half_width, 1


def _counting(described: Question, dataset: str) -> Question:
    """The question how many donors have a row of a dataset, for the purpose that a description is for."""
    return replace(described, dataset=dataset, filter=None, analysis=Count(), within=None, price_only=False)


def _written(value: Value) -> Scalar | None:
    return OTHER if value is Special.OTHER else value
