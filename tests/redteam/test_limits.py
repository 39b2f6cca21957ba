"""Questions made to cost: each is refused before any work, or costs little, and keeps nobody else waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.analyses.count import Count
from connexon.conditions import cost
from connexon.conditions.filters import All, Any, Compare, Filter, Has, IsMissing, Not, OneOf, Operator
from connexon.errors import InvalidQuery
from connexon.query import wire_question
from connexon.query.question import Purpose, Question
from connexon_node.delivery.turns import Turns
from connexon_node.engine.plans import CompiledQuestions
from tests.support.center import SmallCenter
from tests.unit.node.engine.test_joins import TABLES, kept, truth


def has(number: float, dataset: str = "karyotype_findings") -> Has:
    return Has(dataset, Compare("clone_pct", Operator.GREATER, number))


def nested(depth: int) -> Filter:
    node: Filter = IsMissing("sex")
    for _ in range(depth):
        node = Not(node)
    return node


def asked(condition: Filter | None, by: tuple[str, ...] = ()) -> Question:
    return Question(
        query_id="00000000-0000-4000-8000-000000000001",
        federation="alliance",
        centers=("lyon",),  # type: ignore[arg-type]
        issued_at_ms=1,
        expires_at_ms=2,
        purpose=Purpose(("DUO:0000042",)),
        dataset="lots",
        filter=condition,
        analysis=Count(by),
    )


FAR = tuple(f"{way}.x.y.z" for way in "abcd")
COSTLY: dict[str, tuple[Filter | None, tuple[str, ...]]] = {
    "249 has": (Any(tuple(has(n) for n in range(249))), ()),
    "one has more than may be": (Any(tuple(has(n) for n in range(cost.MAXIMUM_HAS + 1))), ()),
    "has, four deep": (Has("a", Has("b", Has("c", Has("d")))), ()),
    "a has for each relation": (All(tuple(Has(f"d{n}") for n in range(cost.MAXIMUM_JOINS + 1))), ()),
    "relations inside relations": (All(tuple(Has(f"d{n}", Has("e", Has("f"))) for n in range(4))), ()),
    "deep nesting": (nested(60), ()),
    "many conditions": (Any(tuple(IsMissing("x") for _ in range(cost.MAXIMUM_CONDITIONS))), ()),
    "one huge list": (OneOf("passage_no", tuple(range(cost.MAXIMUM_VALUES + 1))), ()),
    "many lists": (Any(tuple(OneOf("passage_no", tuple(range(n, n + 500))) for n in range(5))), ()),
    "wide groups": (None, FAR),
    "groups and ways together": (All(tuple(IsMissing(f"w{n}.x") for n in range(8))), FAR[:1]),
}


@pytest.mark.parametrize(("condition", "by"), COSTLY.values(), ids=COSTLY)
def test_what_costs_too_much_is_refused_when_it_is_read(condition: Filter | None, by: tuple[str, ...]) -> None:
    with pytest.raises(InvalidQuery) as refused:
        wire_question.from_bytes(wire_question.to_bytes(asked(condition, by)))
    assert refused.value.code == "query.too_large"
    assert any(character.isdigit() for character in refused.value.public), "the sentence says the bound"


def test_the_bound_of_has_is_counted_inside_not_and_other_has_too() -> None:
    inside = Any(tuple(Not(has(n)) for n in range(cost.MAXIMUM_HAS)))
    with pytest.raises(InvalidQuery):
        cost.require_bounded(Has("lots", inside))


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("limits"))
    for dataset, rows in TABLES.items():
        made.load_rows(dataset, rows)
    yield made
    made.close()


def test_many_has_of_one_relation_are_one_join(center: SmallCenter, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    compiled = CompiledQuestions._compiled

    def listen(self: CompiledQuestions, build: object) -> str:
        written.append(compiled(self, build))  # type: ignore[arg-type]
        return written[-1]

    monkeypatch.setattr(CompiledQuestions, "_compiled", listen)
    center.count("lots", Any(tuple(has(n) for n in range(cost.MAXIMUM_HAS))))
    assert sum(" JOIN " in sql for sql in written) == 1
    assert sum(sql.count(" JOIN ") for sql in written) == 1


FINDINGS = st.sampled_from(
    [
        None,
        Compare("change", Operator.EQUAL, "gain"),
        Compare("change", Operator.EQUAL, "loss"),
        Compare("recurrent_region", Operator.EQUAL, "12p"),
        Not(Compare("recurrent_region", Operator.EQUAL, "12p")),
        All((Compare("change", Operator.EQUAL, "gain"), Compare("recurrent_region", Operator.EQUAL, "20q11.21"))),
        All((OneOf("change", ("gain", "none")), Compare("recurrent_region", Operator.EQUAL, "12p"))),
        Compare("lot.bank_level", Operator.EQUAL, "MCB"),
    ]
)
LOTS = st.one_of(
    st.just(Compare("bank_level", Operator.EQUAL, "MCB")),
    st.builds(Has, st.just("karyotype_findings"), FINDINGS),
    st.builds(
        lambda one, other: All((Has("karyotype_findings", one), Not(Has("karyotype_findings", other)))),
        FINDINGS,
        FINDINGS,
    ),
)
SEVERAL = st.recursive(
    st.one_of(st.builds(Has, st.just("karyotype_findings"), FINDINGS), st.builds(Has, st.just("lots"), LOTS)),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, min_size=2, max_size=4).map(tuple)),
        st.builds(Any, st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(SEVERAL)
def test_several_has_of_one_relation_mean_what_each_means_row_by_row(center: SmallCenter, node: Filter) -> None:
    expected = kept("cell_lines", lambda row: truth("cell_lines", row, node) is True)
    assert center.count("cell_lines", node) == expected


def test_a_question_that_is_known_does_not_wait_for_one_that_is_compiled(center: SmallCenter) -> None:
    condition = Compare("bank_level", Operator.EQUAL, "MCB")
    expected = center.count("lots", condition)
    compiled = center.engine._compiled
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert go_on.wait(30)

    other = threading.Thread(target=compiled.made, args=(slow,))
    other.start()
    try:
        assert inside.wait(30)
        found: list[int] = []
        honest = threading.Thread(target=lambda: found.append(center.count("lots", condition)))
        honest.start()
        honest.join(30)
        assert found == [expected]
    finally:
        go_on.set()
        other.join()


def test_kept_queries_stay_within_their_memory(center: SmallCenter) -> None:
    compiled = CompiledQuestions(compiler=None)
    for number in range(40):
        compiled._keep(str(number).encode(), "x" * 1_000_000)
    assert sum(map(len, compiled._kept.values())) == compiled._size <= 16_000_000
    assert compiled.known(b"39") is not None
    assert compiled.known(b"0") is None


def test_a_hundred_questions_of_one_do_not_come_before_one_of_another() -> None:
    turns: Turns[str] = Turns(most_of_one=3)
    for number in range(100):
        turns.put("mallory", f"m{number}")
    begun = [turns.take() for _ in range(4)]
    assert begun == ["m0", "m1", "m2", None], "one worker of four is left for others"
    turns.put("ada", "a0")
    turns.put("ada", "a1")
    assert turns.take() == "a0"
    turns.done("mallory")
    assert [turns.take(), turns.take()] == ["m3", "a1"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4))
def test_turns_lose_nothing_and_nobody_waits_for_two_of_another(owners: list[str], most: int) -> None:
    turns: Turns[tuple[str, int]] = Turns(most_of_one=most)
    for number, owner in enumerate(owners):
        turns.put(owner, (owner, number))
    taken = []
    while (item := turns.take()) is not None:
        taken.append(item)
        turns.done(item[0])
    assert sorted(number for _, number in taken) == list(range(len(owners)))
    for owner in "abc":
        own = [number for one, number in taken if one == owner]
        assert own == sorted(own)
    waiting = {owner: owners.count(owner) for owner in "abc"}
    for before, (owner, _) in zip([None, *taken], taken, strict=False):
        others = any(left for other, left in waiting.items() if other != owner)
        assert not (before is not None and before[0] == owner and others)
        waiting[owner] -= 1
