"""Whether this node can do what a recipe asks: by its settings, and by the libraries it has."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from connexon.analyses.train import Train
from connexon.errors import Refused
from connexon.learning.recipe import BoostedTrees, Model, Perceptron, TrainingPrivacy
from connexon.query.question import Question
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.privacy.contributions import require_own_rows
from connexon_node.privacy.limits import require_within
from connexon_node.settings import TrainingSection


class CannotTrain(Refused):
    """This node takes part in no such training."""

    code = "training.not_offered"


@dataclass(frozen=True)
class Able:
    """What this node can train."""

    section: Callable[[], TrainingSection]
    """What is in force."""
    warm: Callable[[], None] = lambda: None
    """Called when something is to be trained, so that what it needs can be loaded meanwhile."""

    def require(self, question: Question) -> None:
        """Raise CannotTrain with what is lacking, or OtherDonors where a center's noise would hide too little."""
        if not isinstance(question.analysis, Train):
            return
        if not self.section().enabled:
            raise CannotTrain("This center takes part in no training.")
        lacking = lacks("flwr", *packages_of(question.analysis.recipe.model))
        if lacking:
            raise CannotTrain(f"This center's node lacks {lacking[0]}, which this model needs.")
        privacy = question.analysis.recipe.privacy
        self._require_private(privacy)
        if privacy is not None:
            require_own_rows(DICTIONARY, question)
        self.warm()

    def _require_private(self, asked: TrainingPrivacy | None) -> None:
        section = self.section()
        if asked is not None:
            require_within(section, asked.epsilon, asked.delta)
        if section.noise and asked is None:
            raise CannotTrain(
                "This center lets nothing out without noise, whatever was granted: leave out  privacy: exact.",
                code="privacy.required",
            )


def lacks(*packages: str) -> list[str]:
    """Those that are not installed."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def packages_of(model: Model) -> tuple[str, ...]:
    """What a model needs beside Flower, by the names they are imported under."""
    match model:
        case Perceptron():
            return ("torch",)
        case BoostedTrees():
            return ("xgboost",)
        case _:
            return ()
