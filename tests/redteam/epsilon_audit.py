"""Audits of epsilon: what attackers guess in many simulated worlds, beside what the account says they can at most.

In half of the worlds the target has the secret. Noise is drawn by the release step's own functions, a world at each key
of one table; prices, bounds of donors and the account are the real ones. After Jagielski, Ullman and Oprea (2020,
arXiv:2006.07709) and Steinke, Nasr and Jagielski (2023, arXiv:2305.08846).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist

import numpy
from numpy.typing import NDArray

from connexon.analyses.count import Count
from connexon.analyses.spec import Analysis
from connexon.conditions.filters import Filter
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query import signed
from connexon.query.signed import Asked
from connexon.zcdp import best_guess
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.pipeline.values import Shape
from connexon_node.privacy import BudgetSpent, epsilon_of
from connexon_node.privacy.draws import Draw
from connexon_node.privacy.noise import Noise
from connexon_node.release.measures import Key, Measured, Numbers, measured
from connexon_node.release.price import Price, noisy_table_of, price_of
from connexon_node.release.private import PrivateRelease
from connexon_node.settings import PrivacySection
from connexon_node.state import open_state
from tests.support.federation import new_federation

WORLDS = 10_000
"""With the secret, and as many without."""
CHANCE = 1e-4 / 100
"""By which one audit may fail though all is well: a suite of a hundred does once in 10,000 runs."""
DELTA = 1e-5
_THRESHOLDS = 25
_FEDERATION = new_federation()
_ROSTER = _FEDERATION.roster()
Scores = NDArray[numpy.float64]
Sides = tuple[Scores, Scores]
"""Without the secret and with it, a number for each world."""


def lower(successes: int, tries: int, chance: float = CHANCE) -> float:
    """The smallest probability that would give so many successes with at least this chance (Chernoff and Hoeffding)."""
    share, low, high = successes / tries, 0.0, successes / tries
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tries * _divergence(share, middle) > math.log(1 / chance) else (low, middle)
    return low


def upper(successes: int, tries: int, chance: float = CHANCE) -> float:
    """The largest such probability."""
    return 1 - lower(tries - successes, tries, chance)


def _divergence(share: float, chance: float) -> float:
    parts = ((share, chance), (1 - share, 1 - chance))
    return sum(one * math.log(one / other) if other > 0 else math.inf for one, other in parts if one > 0)


@dataclass(frozen=True)
class Finding:
    """What an attack reached: `least_guess` and `least_epsilon` are lower bounds, beside what the account allows."""

    name: str
    rho: float
    guess: float
    least_guess: float
    allowed_guess: float
    least_epsilon: float
    allowed_epsilon: float

    @property
    def least_rho(self) -> float:
        """The rho that allows the least guess."""
        return 2 * NormalDist().inv_cdf(max(0.5, self.least_guess)) ** 2

    @property
    def holds(self) -> bool:
        """Whether the attack stayed within what the account says."""
        return self.least_guess <= self.allowed_guess and self.least_epsilon <= self.allowed_epsilon

    def __str__(self) -> str:
        return (
            f"{self.name}: guess {self.guess:.3f} (at least {self.least_guess:.3f}) of {self.allowed_guess:.3f}, "
            f"rho at least {self.least_rho:.3f} of {self.rho:.3f}, epsilon at least {self.least_epsilon:.2f} of "
            f"{self.allowed_epsilon:.2f}"
        )


def audited(name: str, scores: Sides, middle: float, *, rho: float) -> Finding:
    """`middle` is the score above which the attacker says that the target has the secret; fixed before any draw."""
    without, having = scores
    right = int((without < middle).sum() + (having >= middle).sum())
    tries = without.size + having.size
    return Finding(
        name,
        rho,
        right / tries,
        lower(right, tries),
        best_guess(rho),
        _least_epsilon(without - middle, having - middle),
        epsilon_of(rho, DELTA),
    )


def _least_epsilon(without: Scores, having: Scores) -> float:
    """The largest epsilon at DELTA that the worlds rule out, by thresholds fixed by the spread of all scores."""
    chance = CHANCE / (4 * _THRESHOLDS)
    reach = 4 * float(numpy.concatenate([without, having]).std())
    found = 0.0
    for threshold in numpy.linspace(-reach, reach, _THRESHOLDS):
        for said, wrongly in (
            (int((having >= threshold).sum()), int((without >= threshold).sum())),
            (int((without < threshold).sum()), int((having < threshold).sum())),
        ):
            true, false = lower(said, having.size, chance), upper(wrongly, having.size, chance)
            if true > DELTA:
                found = max(found, math.log((true - DELTA) / false))
    return found


@dataclass
class Attacker:
    """Researchers together, who ask until the account is spent. `release` may be one that attacks win against."""

    release: PrivateRelease
    section: PrivacySection
    spent: float = 0.0
    _asked: dict[str, Asked] = field(default_factory=dict)

    @classmethod
    def at(
        cls, folder: Path, *, section: PrivacySection | None = None, release: type[PrivateRelease] = PrivateRelease
    ) -> Attacker:
        """Before a center whose account is untouched."""
        section = section or PrivacySection()
        database = open_state(f"sqlite:///{folder / uuid.uuid4().hex}.db")
        return cls(release(section, DICTIONARY, database), section)

    def question(
        self,
        analysis: Analysis | None = None,
        *,
        dataset: str = "donors",
        where: Filter | None = None,
        within: int = 8,
        who: str = "ada",
    ) -> Asked:
        """A verified question."""
        asker = _FEDERATION.researcher("lyon", who)
        made = asker.question(["kyoto"], analysis or Count(), dataset=dataset, where=where)
        return signed.verify_query(asker.sign(replace(made, within=within)), _ROSTER, NOTHING_REVOKED)

    def price(self, asked: Asked) -> Price:
        """What the real price says."""
        return price_of(asked.question, DICTIONARY, self.section)

    def pay(self, asked: Asked) -> bool:
        """Whether the account covers the question, and then it is charged."""
        price = self.price(asked)
        noise = price.noise()
        assert noise is not None
        try:
            with self.release._database.writing() as connection:
                charge = self.release._charge(asked, price, noise.rho)
                self.release.account.charge(connection, charge, query_id=asked.question.query_id)
        except BudgetSpent:
            return False
        self.spent += noise.rho
        return True

    def until_spent(
        self,
        analysis: Analysis | None = None,
        *,
        dataset: str = "donors",
        where: Filter | None = None,
        researchers: Sequence[str] = tuple(map("r{}".format, range(9))),
        widths: Sequence[int] = (3, 8),
    ) -> Iterator[Asked]:
        """Questions of these researchers, as close as can be paid, until nobody can ask any more."""
        for who in researchers:
            for within in widths:
                asked = self.question(analysis, dataset=dataset, where=where, within=within, who=who)
                while self.pay(asked):
                    yield asked

    def drawn(self, asked: Asked, without: Numbers, having: Numbers, *, steps: Numbers = (1,)) -> list[Sides]:
        """One group in every world, without the secret and with it: each of its numbers, with noise."""
        noise = self.price(asked).noise()
        assert noise is not None
        draw = self.drawing(asked, noise, without, having, steps=steps)
        return [sides(draw.numbers, place) for place in range(len(steps))]

    def drawing(self, asked: Asked, noise: Noise, without: Numbers, having: Numbers, *, steps: Numbers = (1,)) -> Draw:
        """The same as a draw, with this noise.

        The worlds stand for groups with open names, whatever the question; price and noise are the question's.
        """
        groups: dict[Key, Numbers] = {
            (f"{side}{world:06d}",): exact for side, exact in (("a", without), ("b", having)) for world in range(WORLDS)
        }
        table = Measured(("country_iso2",), steps, groups, {}, ())
        question = replace(asked.question, dataset="donors")
        return self.release._drawn(b"", question, table, self.price(asked), noise)

    def exact(self, asked: Asked, shape: Shape) -> Mapping[Key, Numbers]:
        """The numbers that noise would be added to: the real bounds of what a donor contributes."""
        price = self.price(asked)
        return measured(shape, noisy_table_of(asked.question, DICTIONARY), price.contributions).groups


def sides(numbers: Mapping[Key, int], place: int = 0) -> Sides:
    """The numbers of all worlds."""
    without, having = (
        numpy.array([numbers[(f"{side}{world:06d}", place)] for world in range(WORLDS)], dtype=float) for side in "ab"
    )
    return without, having


class Evidence:
    """Adds up the logarithm of the likelihood ratio over independent numbers, for the normal distribution."""

    def __init__(self) -> None:
        self.without = numpy.zeros(WORLDS)
        self.having = numpy.zeros(WORLDS)
        self.middle = 0.0

    def add(self, sides: Sides, *, base: float, shift: float, scale: float) -> None:
        """A number that is `base` without the secret and moves by `shift` with it."""
        for score, numbers in ((self.without, sides[0]), (self.having, sides[1])):
            score += (numbers - base) * shift / scale**2
        self.middle += shift**2 / (2 * scale**2)

    def finding(self, name: str, *, rho: float) -> Finding:
        """See `audited`."""
        return audited(name, (self.without, self.having), self.middle, rho=rho)
