"""The federation's floors: signed with the roster, read strictly, and never lowered by a center."""

from __future__ import annotations

from pathlib import Path

import pytest

from connexon.errors import Misconfigured
from connexon_hub.membership.roster import policy_files
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.policy.store import compile_rules
from connexon_node.release import ReleaseControl
from connexon_node.release.floors import Floors, floors, stricter, stricter_privacy, stricter_training
from connexon_node.settings import PrivacySection, ReleaseSection, TrainingSection
from connexon_node.state import open_state
from tests.support.rules import baseline

PRIVATE = b"[privacy]\ngrants = false\ntraining_noise = true\nmaximum_epsilon = 1.0\nlifetime = 2.0\nyear = 0.64\n"
TEN = b"minimum_donors = 10\nround_to = 2\n"


def test_the_stricter_of_center_and_federation_counts() -> None:
    least = floors({"release.toml": TEN})
    assert stricter(ReleaseSection(minimum_donors=5, round_to=5), least) == ReleaseSection(
        minimum_donors=10, round_to=5
    )
    assert stricter(ReleaseSection(minimum_donors=20, round_to=1), least).minimum_donors == 20


def test_the_account_and_training_are_the_stricter_of_both_too() -> None:
    least = floors({"release.toml": PRIVATE}).privacy
    half = {"year": 0.64, "tables": 0.23, "questions": 0.32, "researcher": 0.08, "models": 0.09}
    found = stricter_privacy(PrivacySection(), least).model_dump()
    assert {name: found[name] for name in half} == pytest.approx(half)
    assert found["lifetime"] == 2.0
    strict = PrivacySection(lifetime=1.0, year=0.1, tables=0.02, questions=0.05, researcher=0.01, models=0.02)
    assert stricter_privacy(strict, least) == strict
    assert stricter_privacy(PrivacySection(), floors({}).privacy) == PrivacySection()
    training = stricter_training(TrainingSection(), least)
    assert (training.noise, training.maximum_epsilon, training.maximum_delta) == (True, 1.0, 1e-6)
    assert stricter_training(TrainingSection(), floors({}).privacy) == TrainingSection()


def test_the_floors_that_the_rules_page_shows_are_read() -> None:
    page = (Path(__file__).parents[4] / "policies" / "README.md").read_text()
    shown = page.partition("```toml\n")[2].partition("```")[0]
    assert not floors({"release.toml": shown.encode()}).privacy.grants


def test_a_federation_without_the_file_asks_for_nothing() -> None:
    assert floors({}) == Floors(minimum_donors=1, round_to=1)


@pytest.mark.parametrize(
    "wrong",
    [
        b"minimum_donors = 0",
        b"minimum = 5",
        b"round_to = ",
        b"\xff",
        b"round_to = 'x'",
        b"[privacy]\nbudget_epsilon = -1",
        b"[privacy]\nneeded = 1",
    ],
)
def test_floors_that_cannot_be_read_are_an_error_not_a_silence(wrong: bytes) -> None:
    with pytest.raises(Misconfigured, match=r"release\.toml"):
        floors({"release.toml": wrong})


def test_floors_travel_with_the_policies(tmp_path: Path) -> None:
    for path, content in {**baseline(), "release.toml": TEN}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    published = policy_files(tmp_path)
    assert floors(published).minimum_donors == 10
    assert compile_rules(published, {}).rules


def test_release_keeps_to_floors_from_the_next_answer_on(tmp_path: Path) -> None:
    database = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    release = ReleaseControl(ReleaseSection(minimum_donors=5, round_to=5), DICTIONARY, database)
    release.raise_to(Floors(minimum_donors=12))
    assert release.in_force.minimum_donors == 12
    release.raise_to(Floors())
    assert release.in_force.minimum_donors == 5
    database.close()
