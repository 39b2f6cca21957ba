"""The red team: every attack learns something certain about nobody, and would learn it without the protection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redteam.attacks import ATTACKS, Attack, words_of_refusal
from tests.redteam.target import Target, Unprotected, certain


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("target"))
    yield target
    target.center.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_learns_something_certain_about_nobody(node: Target, attack: Attack) -> None:
    assert certain(attack(node.begin())) == 0


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_the_same_attack_wins_where_answers_are_not_compared(node: Target, attack: Attack) -> None:
    assert certain(attack(node.begin(release=Unprotected))) > 0


def test_nobody_and_a_few_are_refused_in_the_same_words(node: Target) -> None:
    assert certain(words_of_refusal(node.begin())) == 0
