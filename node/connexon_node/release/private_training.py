"""Training with noise: all that leaves of it rests on the account, which pays for a whole run when a center takes part.

INVARIANT: nothing exact decides here: not whether the center takes part, nor how many donors it counts for, nor which
columns there are, nor whether a task is answered. What is refused is refused by words, and by the account.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from sqlalchemy import Connection

from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.learning.recipe import Recipe
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon.v1 import answer_pb2, query_pb2
from connexon.zcdp import epsilon_of
from connexon_node.data.dictionary import Dictionary
from connexon_node.pipeline.values import Computed, Participation, ReleaseMoved
from connexon_node.privacy import Account, BudgetSpent, Charge, Share
from connexon_node.privacy.contributions import require_own_rows
from connexon_node.privacy.noise import half_width
from connexon_node.privacy.training import TrainingPrice
from connexon_node.release.price import stratum_of
from connexon_node.release.private import UnknownEdition

Pay = Callable[[Connection], None]


class PrivateTraining:
    """Decides enrolments with noise, and their price. Thread-safe: it holds nothing but settings."""

    def __init__(self, account: Account, dictionary: Dictionary, database: Database) -> None:
        self._account = account
        self._dictionary = dictionary
        self._database = database

    def price(self, asked: Asked, begun: answer_pb2.Answer) -> None:
        """Write what a run would cost into an answer. Raises Refused where it could not be trained at all."""
        self._require_possible(asked)
        charge, wire = self._charge(asked), begun.price
        with self._database.reading() as connection:
            own = self._account.of_researcher(connection, asked.researcher.id, stratum=charge.stratum)
            models = self._account.of_models(connection, stratum=charge.stratum)
        wire.rho = wire.charge = charge.rho
        wire.half_width = half_width(TrainingPrice.of(recipe_of(asked.question)).counting.scale)
        wire.kind = query_pb2.NUMBER_KIND_PRIVATE
        wire.left_of_researcher, wire.left_of_center = min(own.left, models.left), models.left
        begun.status = answer_pb2.ANSWER_STATUS_RELEASED

    def enrol(self, computed: Computed, shape: Participation, begun: answer_pb2.Answer) -> Pay:
        """Take part, whatever rows there are. Returns what pays for the run within the sealing transaction.

        Raises BudgetSpent, ScaleMissing, or OtherDonors where one donor's noise would not be enough.
        """
        asked = computed.cohort.permit.asked
        if computed.edition < 1:
            raise UnknownEdition("Training with noise is of an edition of the center's data, and this is of none.")
        self._require_possible(asked)
        charge, price = self._charge(asked), TrainingPrice.of(recipe_of(asked.question))
        with self._database.reading() as connection:
            self._require(connection, charge, recipe_of(asked.question))
        (donors,) = price.counting.added([shape.cell.donors])
        begun.status = answer_pb2.ANSWER_STATUS_RELEASED
        begun.enrolment.donors = max(1, donors)
        protection = begun.protection
        protection.kind, protection.edition = query_pb2.NUMBER_KIND_PRIVATE, computed.edition
        noise = protection.noise
        noise.scale, noise.half_width = price.counting.scale, half_width(price.counting.scale)
        noise.rho, noise.charged, noise.contributions = price.donors, charge.rho, 1
        return functools.partial(self._pay, charge=charge, query_id=asked.question.query_id)

    def _pay(self, connection: Connection, *, charge: Charge, query_id: str) -> None:
        try:
            self._account.charge(connection, charge, query_id=query_id, at_ms=now_ms())
        except BudgetSpent as spent:
            # Decided again, it is a refusal that is sealed like any other.
            raise ReleaseMoved("Another answer has been charged to the account meanwhile.") from spent

    def _require_possible(self, asked: Asked) -> None:
        # Loaded when it is needed: most of what loads this module trains nothing.
        from connexon_node.analyses.scales import told_beforehand

        require_own_rows(self._dictionary, asked.question)
        told_beforehand(asked.question, self._dictionary)

    def _require(self, connection: Connection, charge: Charge, recipe: Recipe) -> None:
        try:
            self._account.require(connection, charge)
        except BudgetSpent as spent:
            own = self._account.of_researcher(connection, charge.researcher, stratum=charge.stratum)
            left = min(own.left, self._account.of_models(connection, stratum=charge.stratum).left)
            assert recipe.privacy is not None
            within = epsilon_of(left, recipe.privacy.delta)
            raise BudgetSpent(
                f"This training costs {charge.rho:.4f} of the center's privacy account, and {left:.4f} is left to you "
                f"for models this year: epsilon {within:.2g} at most at the same delta. Ask with less, or wait for the "
                "next year of the account."
            ) from spent

    def _charge(self, asked: Asked) -> Charge:
        question = asked.question
        return Charge(
            Share.MODELS,
            TrainingPrice.of(recipe_of(asked.question)).rho,
            researcher=asked.researcher.id,
            project=question.purpose.project,
            stratum=stratum_of(question.filter, self._dictionary.dataset(question.dataset), self._dictionary),
        )


def recipe_of(question: Question) -> Recipe:
    """The recipe of a question that asks for training."""
    assert isinstance(question.analysis, Train)
    return question.analysis.recipe
