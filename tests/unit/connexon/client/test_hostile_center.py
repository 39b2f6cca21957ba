"""One center signs what it likes: the others' parts stay as they were, in every form an answer has."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.noise import half_width_of
from connexon.analyses.results import ResultUnreadable
from connexon.analyses.spec import Analysis, Kind
from connexon.client import center_answer
from connexon.client.answer import Answer
from connexon.client.answer_bounds import require_bounded
from connexon.client.center_answer import CenterAnswer, Status
from connexon.link import frames
from connexon.v1 import answer_pb2, query_pb2
from tests.support.client_hub import CENTERS, count_answer
from tests.unit.connexon.client.test_answer import Desk

HOSTILE, HONEST, OTHER = CENTERS
BY = ("type", "age", "day", "score", "agreed")
Forms = dict[str, Any]
_WHOLE = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
}
_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "\x00",
            "\x1b[2J\x07",
            "\u202e\u2066abc",
            "<script>alert(1)</script>",
            "[red]x[/red]",
            "\n\r\t",
            "\U0010ffff",
            "2026-01-31",
            "0001-01-01",
            "9999-12-31",
            "iPSC",
            "age",
            "cell_lines",
            "x" * 3000,
            "y" * 200000,
        ]
    ),
    st.text(max_size=20),
)
_DOUBLES = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 5e-324, 1e-300, 0.05, 1.0, 1e6, 1e308, -1e308, float("inf"), float("-inf"), float("nan")]
    ),
    st.floats(),
)


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type in _WHOLE:
        low, high = _WHOLE[field.type]
        ends = [low, low + 1, 0, 1, 2**53, high - 1, high]
        return st.sampled_from([end for end in ends if low <= end <= high]) | st.integers(low, high)
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _TEXTS
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=40)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_DOUBLE:
            return _DOUBLES
        case FieldDescriptor.TYPE_ENUM:
            return st.sampled_from([*_known(field.enum_type).values_by_number, 77, -1])
    raise AssertionError(f"no values for {field.full_name}")


def _fill(data: st.DataObject, message: Any, *, ground: bool) -> None:
    """Change some fields of a message, at any depth, to values of their types; at the ground, leave its address."""
    for field in message.DESCRIPTOR.fields:
        if (ground and field.name in ("query_id", "center_id", "query_sha256")) or data.draw(st.integers(0, 2)):
            continue
        if _is_map(field):
            _fill_map(data, field, getattr(message, field.name))
        elif field.is_repeated:
            _fill_list(data, field, getattr(message, field.name))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            # Never to be reached by chance: another result than the one that was asked for would end every example.
            if field.containing_oneof is None or message.HasField(field.name) or not data.draw(st.integers(0, 5)):
                getattr(message, field.name).SetInParent()
                _fill(data, getattr(message, field.name), ground=False)
        else:
            setattr(message, field.name, data.draw(_scalar(field)))


def _known(kind: Any) -> Any:
    assert kind is not None
    return kind


def _is_map(field: FieldDescriptor) -> bool:
    kind: Descriptor | None = field.message_type
    return kind is not None and kind.GetOptions().map_entry


def _fill_map(data: st.DataObject, field: FieldDescriptor, there: Any) -> None:
    key, value = (_known(field.message_type).fields_by_name[name] for name in ("key", "value"))
    if not data.draw(st.integers(0, 9)):
        there.update(dict.fromkeys(map(str, range(20_000)), data.draw(_scalar(value))))
    for _ in range(data.draw(st.integers(0, 3))):
        there[data.draw(_scalar(key))] = data.draw(_scalar(value))


def _fill_list(data: st.DataObject, field: FieldDescriptor, there: Any) -> None:
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        there.extend(data.draw(st.lists(_scalar(field), max_size=2)))
        return
    for one in there:
        _fill(data, one, ground=False)
    for _ in range(data.draw(st.sampled_from([0, 0, 1, 3]))):
        _fill(data, there.add(), ground=False)
    if there and not data.draw(st.integers(0, 9)):
        there.extend([there[0]] * 5_000)


class Asked:
    """One question with its honest answers, and what the hostile center's would be if it were honest."""

    def __init__(self, analysis: Analysis, *, price_only: bool = False) -> None:
        self.desk = Desk(analysis)
        object.__setattr__(self.desk.question, "price_only", price_only)
        self.base = {center: self.honest(center, analysis, price_only) for center in CENTERS}
        self.parts = [self.desk.delivered(self.base[center]) for center in (HONEST, OTHER)]
        assert {part.status for part in self.parts} == {Status.RELEASED}
        refused = self.desk.delivered(self.base[HOSTILE], by=HONEST, as_if=HOSTILE)
        assert refused.status is Status.UNVERIFIED
        self.without = forms(self.answered(refused))

    def honest(self, center: str, analysis: Analysis, price_only: bool) -> answer_pb2.Answer:
        """What an honest center signs."""
        number = CENTERS.index(center)
        answer = count_answer(self.desk.asked, center, {})  # type: ignore[arg-type]
        answer.answered_at_ms = 1_790_000_000_500 + number
        if price_only:
            answer.price.rho, answer.price.kind = 0.1, query_pb2.NUMBER_KIND_PRIVATE
        elif isinstance(analysis, Describe):
            fields = [answer_pb2.FieldDescription(name="age", type="integer", values=["1"])]
            answer.description.datasets.add(name="cell_lines", title="Cell lines", fields=fields, number=7)
        else:
            assert isinstance(analysis, Count)
            self._count(answer, analysis, number)
        return answer

    def _count(self, answer: answer_pb2.Answer, analysis: Count, number: int) -> None:
        keys: list[Any] = [("iPSC", 1, datetime.date(2026, 1, 31), 0.0, True), ("ESC", 2, None, 2.5, False)]
        cells = dict.fromkeys(keys, 400 + number) if analysis.by else {(): 400 + number}
        made = count_answer(self.desk.asked, answer.center_id, cells)  # type: ignore[arg-type]
        answer.count.CopyFrom(made.count)
        if analysis.kind is Kind.PRIVATE:
            answer.protection.kind = query_pb2.NUMBER_KIND_PRIVATE
            answer.protection.noise.rho, answer.protection.noise.scale = 0.1, 7.0
            answer.protection.noise.half_width = half_width_of([7.0])

    def answered(self, hostile: CenterAnswer) -> Answer:
        """The answer with the hostile center's part."""
        answer = Answer(
            self.desk.question, {center: center_answer.name_of(center, self.desk.roster) for center in CENTERS}
        )
        for part in (hostile, *self.parts):
            answer.take(part)
        return answer


def forms(answer: Answer) -> Forms:
    """The answer in every form; none of them may fail."""
    document = json.loads(json.dumps(answer.to_json(), allow_nan=False))
    answer.show_all = True
    return {
        "json": document,
        "text": str(answer),
        "html": answer._repr_html_(),
        "repr": repr(answer),
        "arrow": answer.to_arrow().to_pylist(),
        "polars": answer.to_polars().to_dicts(),
        "pandas": answer.to_pandas().to_dict("records"),
        "rows": answer.rows,
        "totals": answer.totals,
    }


def others(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of the honest centers, with their types; of a catalog, where a row is of several centers, without them."""
    honest = [row for row in rows if row.get("center") != HOSTILE and list(row.get("centers", [1])) != [HOSTILE]]
    return [
        repr({name: _plain(row[name]) for name in sorted(row) if name not in ("centers", "plus_minus")})
        for row in honest
    ]


def _plain(value: Any) -> Any:
    return None if value != value else value  # pandas writes what is missing as NaN or NaT


def assert_unspoilt(asked: Asked, part: CenterAnswer) -> None:
    """Every form is there, and what the honest centers said is in it as without the hostile one."""
    answer = asked.answered(part)
    found = forms(answer)
    for form in ("arrow", "polars", "pandas", "rows"):
        assert others(found[form]) == others(asked.without[form]), form
    centers = [one for one in found["json"]["centers"] if one["id"] != HOSTILE]
    assert centers == [one for one in asked.without["json"]["centers"] if one["id"] != HOSTILE]
    assert "\x1b" not in found["text"]
    assert "\u202e" not in found["text"] + found["html"]
    assert "<script" not in found["html"]
    own = answer.center(HOSTILE)
    if isinstance(asked.desk.question.analysis, Count) and own.status is Status.RELEASED:
        assert_added_up(asked, found)
    if own.status is Status.UNVERIFIED:
        assert own.provenance is None
        assert not own.obligations
        assert {**found["json"], "centers": []} == {**asked.without["json"], "centers": []}
        assert found["totals"] == asked.without["totals"]
        assert list(lines(found["text"])) == list(lines(asked.without["text"]))


def assert_added_up(asked: Asked, found: Forms) -> None:
    """Each total is the honest centers' and the hostile one's own number, and nothing else."""
    fields = [name for name in found["rows"][0] if name in BY]

    def numbers(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], int]:
        return {tuple(repr(row[field]) for field in fields): row["count"] for row in rows if "count" in row}

    honest = numbers(asked.without["totals"])
    own = numbers([row for row in found["rows"] if row["center"] == HOSTILE])
    for key, number in numbers(found["totals"]).items():
        assert number == honest.get(key, 0) + own.get(key, 0)


def lines(text: str) -> Iterator[str]:
    """The lines of a text before the centers' own."""
    for line in text.splitlines():
        if line.startswith(("✓", "✗")):
            return
        yield line


@pytest.fixture(scope="module")
def questions() -> dict[str, Asked]:
    """Each kind of question, with its honest answers."""
    return {
        "groups": Asked(Count(BY)),
        "total": Asked(Count()),
        "noise": Asked(Count(("type", "age", "day", "score", "agreed"), kind=Kind.PRIVATE)),
        "catalog": Asked(Describe()),
        "price": Asked(Count(), price_only=True),
    }


@pytest.mark.parametrize("name", ["groups", "total", "noise", "catalog", "price"])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(data=st.data())
def test_no_center_spoils_the_answer_by_what_it_truly_signs(
    questions: dict[str, Asked], name: str, data: st.DataObject
) -> None:
    asked = questions[name]
    answer = answer_pb2.Answer()
    answer.CopyFrom(asked.base[HOSTILE])
    _fill(data, answer, ground=True)
    if answer.ByteSize() < frames.MAXIMUM_ANSWER:
        assert_unspoilt(asked, asked.desk.delivered(answer))


def key_of(**changes: Any) -> dict[str, Any]:
    """The key of one group."""
    values = {"type": "iPSC", "age": 1, "day": datetime.date(2026, 1, 31), "score": 0.0, "agreed": True}
    return {**values, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"type": 7},
        {"age": "1"},
        {"age": 1.0},
        {"age": True},
        {"age": datetime.date(2026, 1, 1)},
        {"day": "2026-01-31"},
        {"day": 3},
        {"score": "0.0"},
        {"score": 2**60 + 1},
        {"agreed": 1},
        {"agreed": "true"},
    ],
)
def test_a_center_whose_keys_are_of_another_type_than_most_is_not_counted(
    questions: dict[str, Asked], changes: dict[str, Any]
) -> None:
    asked = questions["groups"]
    cells = {tuple(key_of(**changes).values()): 9}
    part = asked.desk.delivered(count_answer(asked.desk.asked, HOSTILE, cells))
    own = asked.answered(part).center(HOSTILE)
    assert (own.status, own.code) == (Status.UNVERIFIED, "answer.bad_result")
    assert_unspoilt(asked, part)


def test_whole_numbers_and_minus_zero_fit_a_column_of_numbers(questions: dict[str, Asked]) -> None:
    asked = questions["groups"]
    cells = {tuple(key_of(score=4).values()): 9, tuple(key_of(score=-0.0).values()): 8}
    part = asked.desk.delivered(count_answer(asked.desk.asked, HOSTILE, cells))
    answer = asked.answered(part)
    assert answer.center(HOSTILE).status is Status.RELEASED
    assert repr([row["score"] for row in answer.rows if row["center"] == HOSTILE]) == "[0.0, 4.0]"
    assert_unspoilt(asked, part)


def test_two_centers_that_disagree_on_a_type_both_stay_and_the_column_is_text() -> None:
    desk = Desk(Count(("age",)))
    desk.counts(HOSTILE, {("1",): 9, ("x",): 8})
    desk.counts(HONEST, {(1,): 400, (None,): 7})
    assert {row["age"]: row["count"] for row in desk.answer.totals} == {"1": 409, "x": 8, None: 7}
    assert desk.answer.to_arrow().num_rows == desk.answer.to_polars().height == 4


def test_a_price_does_not_stand_in_for_numbers_nor_numbers_for_a_price(questions: dict[str, Asked]) -> None:
    for name, other in (("total", "price"), ("price", "total")):
        asked, answer = questions[name], answer_pb2.Answer()
        answer.CopyFrom(questions[other].base[HOSTILE])
        answer.query_sha256 = asked.base[HOSTILE].query_sha256
        part = asked.desk.delivered(answer)
        assert (part.status, part.code) == (Status.UNVERIFIED, "answer.bad_result")
        assert_unspoilt(asked, part)


@pytest.mark.parametrize("length", [300, 900])
def test_a_long_table_of_long_texts_is_folded_into_the_page(questions: dict[str, Asked], length: int) -> None:
    asked = questions["groups"]
    cells = {tuple(key_of(type=f"{number} " + "細胞w" * (length // 3)).values()): number for number in range(600)}
    part = asked.desk.delivered(count_answer(asked.desk.asked, HOSTILE, cells))
    assert part.status is Status.RELEASED
    assert_unspoilt(asked, part)
    assert all(cell_len(line) <= 100 for line in str(asked.answered(part)).splitlines())


def test_an_enrolment_of_more_donors_than_there_are_is_not_believed(questions: dict[str, Asked]) -> None:
    answer = answer_pb2.Answer(
        status=answer_pb2.ANSWER_STATUS_RELEASED, enrolment=answer_pb2.Enrolment(donors=2**64 - 1)
    )
    with pytest.raises(ResultUnreadable):
        require_bounded(answer, questions["total"].desk.question)


def test_the_largest_answer_is_shown_and_its_groups_are_rows(questions: dict[str, Asked]) -> None:
    asked = questions["groups"]
    cells = {tuple(key_of(type=f"g{number}").values()): number for number in range(20_000)}
    part = asked.desk.delivered(count_answer(asked.desk.asked, HOSTILE, cells))
    assert part.status is Status.RELEASED
    assert_unspoilt(asked, part)
    text = str(asked.answered(part))
    assert all(len(line) <= 100 for line in text.splitlines())
    assert len(text.splitlines()) > len(cells)
    more = cells | {tuple(key_of(type="one more").values()): 1}
    assert asked.desk.delivered(count_answer(asked.desk.asked, HOSTILE, more)).code == "answer.bad_result"


@pytest.mark.parametrize("at_ms", [-(2**63), -1, 253_402_300_800_000, 2**63 - 1])
def test_a_time_that_is_no_date_is_not_believed(questions: dict[str, Asked], at_ms: int) -> None:
    asked, answer = questions["total"], answer_pb2.Answer()
    answer.CopyFrom(asked.base[HOSTILE])
    answer.answered_at_ms = at_ms
    part = asked.desk.delivered(answer)
    assert (part.status, part.code) == (Status.UNVERIFIED, "answer.bad_result")
    assert_unspoilt(asked, part)
