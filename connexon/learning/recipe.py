"""A recipe: what a model is trained on and how, as frozen values. Data, never code; see recipe.proto for each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connexon.identity.keys import CenterId

if TYPE_CHECKING:
    from connexon.conditions.filters import Filter, Scalar

ROUND_SECONDS = 600.0
MAXIMUM_CATEGORIES = 100
"""Of one column; each is an input."""
Range = tuple[float, float]
"""Between what numbers usually lie, low and high, by what the researcher knows and not by the data."""


@dataclass(frozen=True)
class TargetClass:
    """One class: its name and the values of the field that mean it; None is a field that is missing."""

    name: str
    values: tuple[Scalar | None, ...]


@dataclass(frozen=True)
class Target:
    """The field that is predicted; without classes it is a number, which usually lies in `range`."""

    field: str
    classes: tuple[TargetClass, ...] = ()
    range: Range | None = None


@dataclass(frozen=True)
class FieldFeature:
    """A field of the row: a number or boolean as it is, a text or term one-hot.

    A number is scaled by `range`, a text or term has these `values`; without, they are told by the dictionary, or where
    updates are exact by the centers' rows.
    """

    field: str
    range: Range | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureSet:
    """One input for each key: the mean of `value` over the rows of another dataset that point to this row.

    `range` as in FieldFeature, of every input; with `log2` after it was taken.
    """

    dataset: str
    key: str
    keys: tuple[str, ...]
    value: str
    filter: Filter | None = None
    log2: bool = False
    range: Range | None = None


Feature = FieldFeature | FeatureSet


@dataclass(frozen=True)
class LocalWork:
    """What a center does with its rows in a round; batch 0 is all of them."""

    learning_rate: float
    epochs: int = 1
    batch: int = 0


@dataclass(frozen=True)
class Linear:
    """Least squares; `l2` / 2 times the squared coefficients is added to the mean loss."""

    work: LocalWork
    l2: float = 0.0


@dataclass(frozen=True)
class Logistic:
    """Two classes; the second one's probability is predicted."""

    work: LocalWork
    l2: float = 0.0


@dataclass(frozen=True)
class Multinomial:
    """Two or more classes, softmax."""

    work: LocalWork
    l2: float = 0.0


@dataclass(frozen=True)
class Perceptron:
    """Hidden layers of rectified linear units."""

    hidden: tuple[int, ...]
    work: LocalWork
    l2: float = 0.0


@dataclass(frozen=True)
class BoostedTrees:
    """Gradient-boosted trees; each center adds `trees_per_round`."""

    trees_per_round: int = 1
    depth: int = 4
    learning_rate: float = 0.3
    l2: float = 1.0


Model = Linear | Logistic | Multinomial | Perceptron | BoostedTrees


@dataclass(frozen=True)
class Strategy:
    """A strategy that Flower ships, by class name, with its numeric options."""

    name: str = "FedAvg"
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stopping:
    """Stop when `metric` has not improved by `minimum_change` for `patience` rounds."""

    metric: str
    patience: int
    minimum_change: float = 0.0


@dataclass(frozen=True)
class TrainingPrivacy:
    """Differential privacy of all that leaves a center for a run, per donor; each center adds the noise.

    `clip` bounds the Euclidean length of one donor's part in an update. The usual cost is a little more than a
    quarter of what a center sets aside for models in a year.
    """

    epsilon: float = 1.5
    delta: float = 1e-6
    clip: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """One model to be trained. The rows are the records of the question's dataset that its filter selects.

    Without `privacy` updates are exact: a center gives them only where its steward granted them.
    """

    name: str
    target: Target
    features: tuple[Feature, ...]
    model: Model
    rounds: int
    strategy: Strategy = Strategy()
    held_out: float = 0.0
    stopping: Stopping | None = None
    privacy: TrainingPrivacy | None = TrainingPrivacy()
    held_out_centers: tuple[CenterId, ...] = ()
    minimum_centers: int = 2
    round_seconds: float = ROUND_SECONDS
    seed: int = 0

    def kept_apart_at(self, center: CenterId) -> float:
        """The share of a center's donors on whom the model is evaluated and not trained; 0: it is on all of them."""
        return 0.0 if center in self.held_out_centers else self.held_out

    @property
    def classifies(self) -> bool:
        """Whether classes are predicted, not a number."""
        return bool(self.target.classes)


KINDS: dict[type[Model], str] = {
    Linear: "linear",
    Logistic: "logistic",
    Multinomial: "multinomial",
    Perceptron: "perceptron",
    BoostedTrees: "boosted_trees",
}
"""What models are called in recipes and documents."""
