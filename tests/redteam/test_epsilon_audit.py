"""An audit of epsilon: in 20,000 simulated worlds no channel tells more of a target than the account says.

Bounds are statistical: one run of the whole suite in 10,000 fails by chance. Variants that are broken on purpose must
be found, or these tests could not fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from connexon.analyses.count import Count
from connexon.analyses.mean import STEPS, Mean
from connexon.analyses.spec import Unit
from connexon.query.signed import Asked
from connexon.zcdp import best_guess
from connexon_node.editions.lists import standard_frame
from connexon_node.pipeline.values import Cell, CellTable, SumCell, SumTable
from connexon_node.privacy import draws
from connexon_node.privacy.draws import Draw
from connexon_node.privacy.first_ask import Cell as Place
from connexon_node.privacy.first_ask import Dimension, Frame, Origin, Plan, measure, plan
from connexon_node.privacy.noise import Noise
from connexon_node.release.private import PrivateRelease
from connexon_node.settings import EditionSection, PrivacySection
from tests.redteam.epsilon_audit import WORLDS, Attacker, Evidence, Finding, Sides, audited, lower, sides
from tests.redteam.target import OTHER, SECRET, is_

pytestmark = pytest.mark.timeout(600)

KNOWN = 4
"""Donors of whom the attacker knows everything, beside the target."""
SECRETLY = is_("primary_disease_term", SECRET)
ALL = PrivacySection()
SHOWN_FROM = 5


@pytest.fixture
def attacker(tmp_path: Path) -> Attacker:
    return Attacker.at(tmp_path)


def checked(finding: Finding, *, at_least: float = 0.0) -> None:
    """It holds, and the attack is one: it guesses at least so well."""
    print(finding)
    assert finding.holds, finding
    assert finding.guess >= at_least, finding


def by_numbers(attacker: Attacker, questions: Iterator[Asked]) -> tuple[Evidence, Sides]:
    """Four known donors OR (target AND secret); the last numbers, too."""
    evidence, last = Evidence(), None
    for asked in questions:
        (last,) = attacker.drawn(asked, (KNOWN,), (KNOWN + 1,))
        evidence.add(last, base=KNOWN, shift=1, scale=attacker.price(asked).scale)
    assert last is not None
    return evidence, last


def test_one_researcher_who_spends_the_year(attacker: Attacker) -> None:
    evidence, _ = by_numbers(attacker, attacker.until_spent(researchers=("ada",)))
    assert attacker.spent <= ALL.researcher
    checked(evidence.finding("counts, one researcher", rho=attacker.spent), at_least=0.58)


def test_all_researchers_together(attacker: Attacker) -> None:
    evidence, _ = by_numbers(attacker, attacker.until_spent())
    assert 0.97 * ALL.questions < attacker.spent <= ALL.questions
    checked(evidence.finding("counts, all researchers", rho=attacker.spent), at_least=0.69)


def test_whether_a_number_shows_tells_less_than_the_number(attacker: Attacker) -> None:
    votes = [numpy.zeros(WORLDS), numpy.zeros(WORLDS)]
    for asked in attacker.until_spent():
        (sides,) = attacker.drawn(asked, (KNOWN,), (KNOWN + 1,))
        weight = 1 / attacker.price(asked).scale
        votes = [vote + weight * ((side >= SHOWN_FROM) - 0.5) for vote, side in zip(votes, sides, strict=True)]
    checked(audited("shown or not", (votes[0], votes[1]), 0.0, rho=attacker.spent), at_least=0.6)


def test_a_known_donor_grouped_by_the_secret_costs_twice(attacker: Attacker) -> None:
    evidence = Evidence()
    for asked in attacker.until_spent(Count(("sex",))):
        for base, shift in ((KNOWN, 1), (KNOWN + 1, -1)):
            (sides,) = attacker.drawn(asked, (base,), (base + shift,))
            evidence.add(sides, base=base, shift=shift, scale=attacker.price(asked).scale)
    finding = evidence.finding("tables, grouped by the secret", rho=2 * attacker.spent)
    checked(finding, at_least=0.76)


def test_refining_the_same_question_tells_what_was_paid(attacker: Attacker) -> None:
    """Of the rounded means that are told on the way, the last one holds all that the others do."""
    asked, standing = attacker.question(), list[Draw]()
    for within in (30, 15, 8, 5, 3):
        price = attacker.price(attacker.question(within=within))
        noise = price.noise(draws.paid(standing))
        assert noise is not None
        standing.append(attacker.drawing(asked, noise, (KNOWN,), (KNOWN + 1,)))
    paid, evidence = draws.paid(standing), Evidence()
    assert paid == pytest.approx(price.rho)
    evidence.add(sides(draws.mean(standing)), base=KNOWN, shift=1, scale=price.scale_of(paid))
    checked(evidence.finding("one question, ever closer", rho=paid), at_least=0.57)


def test_numbers_of_two_editions_add_up(attacker: Attacker) -> None:
    """A donor stays: the same question about the next edition is another draw, and both are charged."""
    evidence, _ = by_numbers(attacker, attacker.until_spent(researchers=("first", "second")))
    assert attacker.spent <= 2 * ALL.researcher
    checked(evidence.finding("two editions", rho=attacker.spent), at_least=0.6)


def test_a_mean_tells_by_number_and_sum_together(attacker: Attacker) -> None:
    """The target is there or not, at the upper end of the range, where it moves the sum most."""
    mean, evidence = Mean("passage_no", low=0, high=80), Evidence()
    for asked in attacker.until_spent(mean, dataset="lots"):
        without, having = (
            attacker.exact(asked, SumTable("passage_no", (), (SumCell((), people(many), values(many)),)))[()]
            for many in (KNOWN, KNOWN + 1)
        )
        assert (having[0] - without[0], having[1] - without[1]) == (1, STEPS)
        scale = attacker.price(asked).scale
        sides = attacker.drawn(asked, without, having, steps=(1, STEPS))
        for numbers, base, step in zip(sides, without, (1, STEPS), strict=True):
            evidence.add(numbers, base=base, shift=step, scale=scale * step)
    checked(evidence.finding("means, number and sum", rho=attacker.spent), at_least=0.67)


def people(many: int) -> numpy.ndarray:
    return numpy.arange(1, many + 1, dtype=numpy.int32)


def values(many: int) -> numpy.ndarray:
    return numpy.array([40.0] * KNOWN + [1e9] * (many - KNOWN))


def in_groups(attacker: Attacker, count: Count, *, rows: int, widths: Sequence[int] = (3, 8)) -> Evidence:
    """The target has so many rows in each of six groups of lines, of which only it could have any, or has none."""
    evidence = Evidence()
    cells = tuple(Cell((f"g{number}",), rows, 1, numpy.repeat(people(1), rows)) for number in range(6))
    for asked in attacker.until_spent(count, dataset="cell_lines", widths=widths):
        for (number,) in attacker.exact(asked, CellTable(count.by, cells)).values():
            if number:
                (numbers,) = attacker.drawn(asked, (0,), (number,))
                evidence.add(numbers, base=0, shift=number, scale=attacker.price(asked).scale)
    return evidence


def test_a_donor_in_many_groups_counts_in_as_many_as_are_paid_for(attacker: Attacker) -> None:
    evidence = in_groups(attacker, Count(("type",)), rows=1)
    checked(evidence.finding("lines by type, donor in six groups", rho=attacker.spent), at_least=0.68)


def test_a_donor_with_many_records_counts_with_as_many_as_are_paid_for(attacker: Attacker) -> None:
    evidence = in_groups(attacker, Count((), Unit.RECORDS), rows=7, widths=(10, 30))
    checked(evidence.finding("lines as records, donor with 42", rho=attacker.spent), at_least=0.65)


def test_a_line_for_each_disease_gives_nobody_away_twice(attacker: Attacker) -> None:
    """Questions of everybody and of the target's disease share its line; those of other diseases are not about it."""
    evidence, paid = Evidence(), 0.0
    whose = {"everybody": None, "hers": SECRETLY, "others": is_("primary_disease_term", OTHER)}
    for turn in range(9):
        for name, where in whose.items():
            for asked in attacker.until_spent(where=where, researchers=(f"{name}-{turn}",)):
                if name != "others":
                    (numbers,) = attacker.drawn(asked, (KNOWN,), (KNOWN + 1,))
                    evidence.add(numbers, base=KNOWN, shift=1, scale=attacker.price(asked).scale)
                    paid += attacker.price(asked).rho
    assert paid <= ALL.questions * (1 + 1e-6)
    assert attacker.spent > 1.15 * paid
    checked(evidence.finding("strata of everybody and one disease", rho=paid), at_least=0.69)


@pytest.mark.parametrize(
    ("dataset", "count", "most"),
    [
        ("donors", Count(("country_iso2",)), 1),
        ("cell_lines", Count(("donor.country_iso2",), Unit.RECORDS), 3),
        ("lots", Count(("passage_no",)), 3),
    ],
)
def test_an_open_name_that_rests_on_the_target_shows_as_seldom_as_delta_says(
    attacker: Attacker, dataset: str, count: Count, most: int
) -> None:
    """With a delta that can be seen. Without the target there is no such name, so one that shows is certain."""
    asked = attacker.question(count, dataset=dataset)
    price = replace(attacker.price(asked), delta=0.05)
    assert price.hidden
    assert price.contributions == most
    noise = price.noise()
    assert noise is not None
    shows = numpy.zeros(WORLDS, dtype=bool)
    for _ in range(price.contributions if price.alone == 1 else 1):
        _, numbers = sides(attacker.drawing(asked, noise, (0,), (price.alone,)).numbers)
        shows |= numbers >= price.shown_from(price.scale)
    assert lower(int(shows.sum()), WORLDS) <= 0.05
    # The threshold is not so high that the test says nothing.
    assert shows.mean() > 0.003


def first_ask(names: Sequence[tuple[str, ...]], sigmas: Sequence[float], worlds: int) -> Iterator[tuple[float, Sides]]:
    """The cell that the target is in with the secret, less the one without it, of each table in every world."""
    every = Dimension(
        name="world",
        title="",
        dataset="donors",
        field="world",
        origin=Origin.OWN,
        cells=tuple(Place(str(one), frozenset({str(one)})) for one in range(2 * worlds)),
    )
    pairs = [
        Dimension(
            name=f"t{number}",
            title="",
            dataset="donors",
            field="t",
            origin=Origin.OWN,
            cells=(Place("n", frozenset({"n"})), Place("y", frozenset({"y"}))),
        )
        for number in range(len(names))
    ]
    tables = tuple(("world", one.name) for one in pairs)
    frame = Frame((every, *pairs), tables)
    secret = numpy.repeat([0, 1], worlds)
    codes = {one.name: secret for one in pairs} | {"world": numpy.arange(2 * worlds)}
    drawn, _ = measure(frame, Plan(dict(zip(tables, sigmas, strict=True))), codes)
    for table, sigma in zip(tables, sigmas, strict=True):
        cells = drawn[table].astype(float)
        moved = cells[:, 1] - cells[:, 0]
        yield sigma, (moved[:worlds], moved[worlds:])


def test_first_ask_tables_tell_of_one_field_what_its_tables_cost(attacker: Attacker) -> None:
    """A donor who is known to be there, and whose sex is the secret, moves two cells of every table that has it."""
    made = plan(standard_frame(EditionSection()), rho=ALL.tables)
    having = [(table, sigma) for table, sigma in made.sigmas.items() if "sex" in table]
    assert len(having) >= 4
    rho, evidence = sum(1 / (2 * sigma**2) for _, sigma in having), Evidence()
    for sigma, moved in first_ask(*zip(*having, strict=True), worlds=WORLDS):  # type: ignore[arg-type,misc]
        # Two cells of independent noise, and a difference of -1 or 1.
        evidence.add(moved, base=-1, shift=2, scale=sigma * 2**0.5)
    assert best_guess(2 * rho) < best_guess(2 * ALL.tables)
    checked(evidence.finding("first-ask tables, one field", rho=2 * rho), at_least=0.57)


def test_first_ask_tables_tell_who_is_there_as_they_cost(attacker: Attacker) -> None:
    """Of a donor who is there or not one cell of each table moves."""
    made = plan(standard_frame(EditionSection()), rho=ALL.tables)
    evidence = Evidence()
    for sigma in made.sigmas.values():
        noise = Noise(sensitivity=1.0, rho=1 / (2 * sigma**2), whole=True)
        numbers = numpy.array(noise.added([0] * WORLDS + [1] * WORLDS), dtype=float)
        evidence.add((numbers[:WORLDS], numbers[WORLDS:]), base=0, shift=1, scale=sigma)
    checked(evidence.finding("first-ask tables, presence", rho=made.rho), at_least=0.6)


def test_a_hundred_secrets_from_random_subsets(attacker: Attacker) -> None:
    """Reconstruction by least squares (Dinur and Nissim 2003), with what the whole account buys at within 30."""
    random = numpy.random.default_rng(1)
    asked = attacker.question(within=30)
    questions = int(ALL.questions / attacker.price(asked).rho)
    bits, worlds = 100, 2 * WORLDS // questions
    chosen = random.integers(0, 2, (questions, bits)).astype(float)
    secrets = random.integers(0, 2, (worlds, bits)).astype(float)
    (noise, _) = attacker.drawn(asked, (0,), (0,))[0], None
    drawn = numpy.concatenate(noise)[: worlds * questions].reshape(worlds, questions)
    told = secrets @ chosen.T + drawn - chosen.sum(axis=1) / 2
    scale = attacker.price(asked).scale
    estimates = told @ numpy.linalg.solve(chosen @ chosen.T + 4 * scale**2 * numpy.eye(questions), chosen)
    # Of whole worlds: the guesses within one depend on each other.
    right = ((estimates > 0) == (secrets == 1)).mean(axis=1)
    spread = right.std(ddof=1) / worlds**0.5
    print(f"100 secrets, {questions} subsets: {right.mean():.3f} of {best_guess(ALL.questions):.3f}")
    assert right.mean() - 4.5 * spread <= best_guess(ALL.questions)
    assert right.mean() > 0.53


class HalfTheNoise(PrivateRelease):
    """Pays as it should and draws noise of half the scale."""

    def _drawn(self, digest, question, exact, price, noise):  # type: ignore[no-untyped-def]
        half = Noise.of_scale(sensitivity=price.sensitivity, scale=noise.scale / 2)
        half.rho = noise.rho
        return super()._drawn(digest, question, exact, price, half)


def test_noise_of_half_the_scale_is_found(tmp_path: Path) -> None:
    attacker = Attacker.at(tmp_path, release=HalfTheNoise)
    evidence, _ = by_numbers(attacker, attacker.until_spent())
    assert not evidence.finding("half the noise", rho=attacker.spent).holds


def test_a_donor_in_one_group_too_many_is_found(attacker: Attacker) -> None:
    exact = attacker.exact

    def more(asked: Asked, shape: CellTable) -> object:
        found = exact(asked, shape)
        extra = next(key for key, number in found.items() if number == (0,))
        return {**found, extra: (1,)}

    attacker.exact = more  # type: ignore[method-assign,assignment]
    evidence = in_groups(attacker, Count(("type",)), rows=1)
    assert not evidence.finding("a group too many", rho=attacker.spent).holds


def test_a_refinement_that_pays_nothing_is_found(attacker: Attacker) -> None:
    asked = attacker.question(within=8)
    evidence, price = Evidence(), attacker.price(asked)
    for _ in range(8):
        (numbers,) = attacker.drawn(asked, (KNOWN,), (KNOWN + 1,))
        evidence.add(numbers, base=KNOWN, shift=1, scale=price.scale)
    assert not evidence.finding("drawn again at no price", rho=price.rho).holds
