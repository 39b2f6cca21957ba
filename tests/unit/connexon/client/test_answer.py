"""Answers: numbers put together, reasons kept, nothing that failed turned into a zero, nothing foreign believed."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.noise import half_width_of, readable_from
from connexon.analyses.spec import Analysis
from connexon.client import center_answer
from connexon.client.answer import Answer
from connexon.client.answer_display import progress_text, to_html, to_plain_text
from connexon.client.center_answer import Status
from connexon.errors import Misconfigured
from connexon.identity import credential
from connexon.identity import roster as rosters
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.keys import CenterId, SigningKey
from connexon.query import signed, wire_question
from connexon.query.purpose import parse_purpose
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon.v1 import answer_pb2, link_pb2, query_pb2, research_pb2
from tests.support.client_hub import CENTERS, FEDERATION, Federation, count_answer, no_answer
from tests.support.documented import assert_same_shape, documented
from tests.support.receipts import with_receipt

KYOTO, LYON, OSLO = CENTERS


class Desk:
    """A question on its way, and the centers' keys to answer it with."""

    def __init__(self, analysis: Analysis, dataset: str = "cell_lines") -> None:
        self.federation = Federation()
        self.roster = rosters.peek(self.federation.roster())
        self.question = Question(
            query_id="11111111-1111-1111-1111-111111111111",
            federation=FEDERATION,
            centers=CENTERS,
            issued_at_ms=1_790_000_000_000,
            expires_at_ms=1_790_000_600_000,
            purpose=parse_purpose("health"),
            dataset=dataset,
            filter=None,
            analysis=analysis,
        )
        self.payload = wire_question.to_bytes(self.question)
        key = SigningKey.generate()
        login = self.federation.login("localhost:1", key)
        query = signed.sign_query(self.question, key, login.credential)
        self.parcel = query.SerializeToString()
        self.asked = Asked(
            self.question,
            credential.verify(login.credential, self.roster, NOTHING_REVOKED),
            hashlib.sha256(query.payload).digest(),
        )
        self.answer = Answer(self.question, {center: center_answer.name_of(center, self.roster) for center in CENTERS})

    def delivered(
        self, answer: answer_pb2.Answer, *, by: CenterId | None = None, as_if: str = ""
    ) -> center_answer.CenterAnswer:
        key = self.federation.keys[by or CenterId(answer.center_id)]
        return self.read(
            research_pb2.Delivery(
                center_id=as_if or answer.center_id,
                state=research_pb2.DELIVERY_STATE_ANSWERED,
                connected=True,
                answer=with_receipt(signed.sign_answer(answer, key), key),
            )
        )

    def read(self, one: research_pb2.Delivery) -> center_answer.CenterAnswer:
        part = center_answer.read(
            one,
            question=self.question,
            payload=self.payload,
            roster=self.roster,
            parcel=self.parcel,
            latency_ms=12,
        )
        self.answer.take(part)
        return part

    def counts(self, center: CenterId, cells: dict[tuple[Any, ...], int], **changes: Any) -> center_answer.CenterAnswer:
        return self.delivered(count_answer(self.asked, center, cells, **changes))

    def says(
        self, center: CenterId, status: str, code: str = "x.y", message: str = "Because."
    ) -> center_answer.CenterAnswer:
        return self.delivered(no_answer(self.asked, center, status, code, message, "rule-1"))


def test_counts_are_added_over_the_centers_that_released() -> None:
    desk = Desk(Count(("type",)))
    desk.counts(KYOTO, {("iPSC",): 10, ("ESC",): 7})
    desk.counts(LYON, {("iPSC",): 5})
    desk.counts(OSLO, {(None,): 9})
    assert desk.answer.complete
    assert desk.answer.totals == [
        {"type": "ESC", "count": 7, "centers": 1, "at_least": False},
        {"type": "iPSC", "count": 15, "centers": 2, "at_least": False},
        {"type": None, "count": 9, "centers": 1, "at_least": False},
    ]
    assert desk.answer.rows[1] == {"type": "iPSC", "center": "kyoto", "count": 10}
    assert desk.answer.notes == []


@pytest.mark.parametrize("status", ["SUPPRESSED", "REFUSED", "REFERRED", "FAILED", "NOT_OFFERED", "BUDGET_SPENT"])
def test_a_center_without_a_number_makes_the_total_a_lower_bound_and_never_a_zero(status: str) -> None:
    desk = Desk(Count())
    desk.counts(KYOTO, {(): 10})
    desk.counts(LYON, {(): 5})
    part = desk.says(OSLO, status, "some.code", "A reason.")
    assert (part.code, part.message, part.rule) == ("some.code", "A reason.", "rule-1")
    assert desk.answer.totals == [{"count": 15, "centers": 2, "at_least": True}]
    assert [row["center"] for row in desk.answer.rows] == ["kyoto", "lyon"]
    assert any("lower bounds: 1 center" in note for note in desk.answer.notes)


def test_when_no_center_released_there_is_no_number_at_all() -> None:
    desk = Desk(Count())
    for center in CENTERS:
        desk.says(center, "FAILED")
    assert desk.answer.rows == desk.answer.totals == []
    assert desk.answer.notes == ["No center has released a number; this is not a zero."]
    assert "0" not in to_plain_text(desk.answer).split("\n", 1)[1]


def test_withheld_groups_make_every_total_a_lower_bound_and_say_where() -> None:
    desk = Desk(Count(("type",)))
    desk.counts(KYOTO, {("iPSC",): 10}, withheld=True)
    desk.counts(LYON, {("iPSC",): 10})
    desk.counts(OSLO, {("iPSC",): 10})
    assert desk.answer.totals[0]["at_least"] is True
    assert desk.answer.notes == ["Groups with too few donors may have been left out at kyoto."]
    assert "≥ 30" in to_plain_text(desk.answer)


def test_a_total_without_its_cell_is_not_believed_to_be_a_zero() -> None:
    part = Desk(Count()).counts(KYOTO, {})
    assert (part.status, part.code) == (Status.UNVERIFIED, "answer.bad_result")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda desk: desk.delivered(count_answer(desk.asked, KYOTO, {(): 9}), by=LYON), "answer.bad_signature"),
        (lambda desk: desk.delivered(count_answer(desk.asked, LYON, {(): 9}), as_if=KYOTO), "answer.bad_signature"),
        (
            lambda desk: desk.delivered(count_answer(desk.asked, LYON, {(): 9}), by=KYOTO, as_if=KYOTO),
            "answer.other_center",
        ),
        (lambda desk: desk.counts(KYOTO, {(): 9}, query_sha256=bytes(32)), "answer.other_query"),
        (lambda desk: desk.counts(KYOTO, {(): 9}, query_id="another"), "answer.bad_result"),
        (lambda desk: desk.counts(KYOTO, {(): 9}, status=0), "answer.no_status"),
        (lambda desk: desk.says(KYOTO, "RELEASED"), "answer.bad_result"),
        (lambda desk: desk.counts(KYOTO, {("extra",): 9}), "answer.bad_result"),
        (
            lambda desk: desk.read(research_pb2.Delivery(center_id=KYOTO, state=research_pb2.DELIVERY_STATE_ANSWERED)),
            "answer.absent",
        ),
    ],
)
def test_an_answer_that_is_not_provably_this_center_s_to_this_question_is_not_counted(spoil: Any, code: str) -> None:
    desk = Desk(Count())
    part = spoil(desk)
    assert (part.id, part.status, part.code) == (KYOTO, Status.UNVERIFIED, code)
    assert desk.answer.rows == []


def test_a_center_that_could_not_prove_the_question_as_it_was_sent_is_heard() -> None:
    desk = Desk(Count())
    answer = no_answer(desk.asked, KYOTO, "REFUSED", "roster.expired", "The roster has expired.")
    answer.query_sha256 = signed.parcel_sha256(desk.parcel)
    part = desk.delivered(answer)
    assert (part.status, part.code) == (Status.REFUSED, "roster.expired")
    assert part.receipt is not None


def test_a_refusal_of_other_bytes_is_not_shown_as_one_of_the_question() -> None:
    desk = Desk(Count())
    answer = no_answer(desk.asked, KYOTO, "REFUSED", "query.bad_signature", "The query's signature does not hold.")
    answer.query_sha256 = signed.parcel_sha256(desk.parcel + b"bent")
    part = desk.delivered(answer)
    assert (part.status, part.code) == (Status.UNVERIFIED, "answer.other_query")


def test_a_refusal_of_what_came_with_an_earlier_credential_tells_the_researcher_to_ask_again() -> None:
    desk = Desk(Count())
    answer = no_answer(desk.asked, KYOTO, "REFUSED", "credential.expired", "The credential has expired.")
    answer.query_sha256 = signed.parcel_sha256(desk.parcel)
    key = SigningKey.generate()
    renewed = desk.federation.login("localhost:1", key)
    desk.parcel = signed.sign_payload(desk.payload, key, renewed.credential).SerializeToString()
    part = desk.delivered(answer)
    assert (part.status, part.code) == (Status.UNVERIFIED, "answer.other_query")
    assert "another credential since you asked, ask again" in part.message
    assert "ask again" in " ".join(to_plain_text(desk.answer).split())


def test_what_a_center_says_of_a_task_is_not_its_answer_to_the_question() -> None:
    desk = Desk(Count())
    answer = no_answer(desk.asked, KYOTO, "REFUSED", "task.unreadable", "The task cannot be read.")
    answer.task.task_id = f"{desk.question.query_id}.1"
    part = desk.delivered(answer)
    assert (part.status, part.code) == (Status.UNVERIFIED, "answer.bad_result")


def test_a_changed_byte_is_found() -> None:
    desk = Desk(Count())
    whole = signed.sign_answer(count_answer(desk.asked, KYOTO, {(): 900}), desk.federation.keys[KYOTO])
    payload = bytearray(whole.payload)
    payload[-3] ^= 1
    part = desk.read(
        research_pb2.Delivery(
            center_id=KYOTO, answer=answer_pb2.SignedAnswer(payload=bytes(payload), signature=whole.signature)
        )
    )
    assert (part.status, part.code) == (Status.UNVERIFIED, "answer.bad_signature")


def test_a_proved_answer_is_not_displaced_and_an_unasked_center_is_ignored() -> None:
    desk = Desk(Count())
    desk.counts(KYOTO, {(): 10})
    desk.delivered(count_answer(desk.asked, KYOTO, {(): 99}), by=LYON)
    desk.read(research_pb2.Delivery(center_id=KYOTO, state=research_pb2.DELIVERY_STATE_REMOVED))
    desk.read(research_pb2.Delivery(center_id="rome", state=research_pb2.DELIVERY_STATE_CANCELLED))
    assert desk.answer.center("kyoto").status is Status.RELEASED
    assert [part.id for part in desk.answer.centers] == list(CENTERS)


def test_a_proof_that_comes_after_a_forgery_is_still_taken() -> None:
    desk = Desk(Count())
    desk.delivered(count_answer(desk.asked, KYOTO, {(): 99}), by=LYON)
    assert desk.answer.center("kyoto").status is Status.UNVERIFIED
    desk.counts(KYOTO, {(): 10})
    assert desk.answer.totals[0]["count"] == 10


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"state": research_pb2.DELIVERY_STATE_WAITING, "connected": False}, "waiting", "delivery.not_connected"),
        ({"state": research_pb2.DELIVERY_STATE_WAITING, "connected": True}, "waiting", "delivery.waiting"),
        ({"state": research_pb2.DELIVERY_STATE_RECEIVED, "connected": True}, "waiting", "delivery.received"),
        ({"connected": True, "stage": link_pb2.STAGE_COMPUTING}, "waiting", "delivery.computing"),
        ({"state": research_pb2.DELIVERY_STATE_CANCELLED}, "cancelled", "delivery.cancelled"),
        ({"state": research_pb2.DELIVERY_STATE_EXPIRED}, "expired", "delivery.expired"),
        ({"state": research_pb2.DELIVERY_STATE_REMOVED}, "removed", "delivery.removed"),
    ],
)
def test_how_far_a_delivery_is_becomes_a_status_with_a_sentence(fields: dict[str, Any], status: str, code: str) -> None:
    part = Desk(Count()).read(research_pb2.Delivery(center_id=KYOTO, **fields))
    assert (part.status.value, part.code) == (status, code)
    assert part.message.endswith(".")


def describe(desk: Desk, center: CenterId, records: int | None, *, unit: str = "") -> None:
    answer = count_answer(desk.asked, center, {})
    answer.ClearField("count")
    dataset = answer.description.datasets.add(name="lots", title="Lots of cells")
    dataset.fields.add(name="passage_no", type="integer", title="Passage", unit=unit)
    dataset.fields.add(name="status", type="text", values=["released", "rejected"])
    if records is not None:
        dataset.number = records
    desk.delivered(answer)


def test_a_catalog_merges_what_centers_offer_and_keeps_differences_apart() -> None:
    desk = Desk(Describe(), dataset="")
    describe(desk, KYOTO, 120)
    describe(desk, LYON, None)
    describe(desk, OSLO, 40, unit="{passage}")
    rows = {(row["field"], row["unit"]): row["centers"] for row in desk.answer.rows}
    assert rows == {
        ("passage_no", ""): ["kyoto", "lyon"],
        ("passage_no", "{passage}"): ["oslo"],
        ("status", ""): ["kyoto", "lyon", "oslo"],
    }
    assert desk.answer.totals == [
        {
            "dataset": "lots",
            "title": "Lots of cells",
            "number": 160,
            "at_least": True,
            "plus_minus": None,
            "centers": [
                {"id": "kyoto", "number": 120},
                {"id": "lyon", "number": None},
                {"id": "oslo", "number": 40},
            ],
        }
    ]
    assert "only oslo" in to_plain_text(desk.answer)


@pytest.mark.parametrize("lacking", [None, OSLO])
def test_an_overview_names_centers_only_where_one_lacks_a_dataset(lacking: CenterId | None) -> None:
    desk = Desk(Describe(), dataset="")
    for center in CENTERS:
        answer = count_answer(desk.asked, center, {})
        answer.ClearField("count")
        for name in ("lots", "donors"):
            if name == "lots" or center != lacking:
                answer.description.datasets.add(name=name, number=10).fields.add(name="status", type="text")
        desk.delivered(answer)
    (sheet,) = desk.answer.combined.sheets
    assert sheet.columns == ("dataset", "how many", *(("centers",) if lacking else ()))
    assert [row[2:] for row in sheet.rows if row[0] == "donors"] == [("only kyoto, lyon",) if lacking else ()]


def test_rows_become_tables_of_three_libraries() -> None:
    desk = Desk(Count(("derived_on", "type")))
    day = datetime.date(2024, 1, 31)
    desk.counts(KYOTO, {(day, "iPSC"): 10, (None, "ESC"): 8})
    assert desk.answer.to_arrow().to_pylist() == desk.answer.rows
    assert desk.answer.to_polars().to_dicts() == desk.answer.rows
    assert list(desk.answer.to_pandas()["count"]) == [10, 8]
    assert json.loads(json.dumps(desk.answer.to_json()))["rows"][0]["derived_on"] == "2024-01-31"


def test_tables_without_rows_keep_their_columns() -> None:
    answer = Desk(Count(("type",))).answer
    assert answer.to_arrow().column_names == ["type", "center", "count"]
    assert list(answer.to_pandas().columns) == answer.to_polars().columns == ["type", "center", "count"]


def test_a_table_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(Misconfigured, match="pip install polars"):
        Desk(Count()).answer.to_polars()


def test_a_field_called_count_keeps_its_name_and_ours_steps_aside() -> None:
    desk = Desk(Count(("count",)))
    desk.counts(KYOTO, {(3,): 10})
    assert desk.answer.rows == [{"count": 3, "center": "kyoto", "count_": 10}]


@pytest.mark.parametrize("width", [60, 100])
def test_an_answer_fits_its_terminal_and_says_who_and_why(width: int) -> None:
    desk = Desk(Count(("disease_term", "type")))
    desk.counts(KYOTO, {("MONDO:0005180", "iPSC"): 1200, (None, "iPSC"): 15})
    desk.says(LYON, "SUPPRESSED", "release.too_few", "Too few donors stand behind every group of this answer.")
    text = to_plain_text(desk.answer, width=width)
    assert all(len(line) <= width for line in text.splitlines())
    flat = " ".join(text.split())
    for part in (
        "cell_lines · purpose health",
        "≥ 1,200",
        "(not collected)",
        "kyoto released",
        "lyon suppressed",
        "rule-1",
        "oslo waiting",
        "Publish the results. (DUO:0000019)",
        f"connexon result {desk.question.query_id}",
    ):
        assert part in flat, part


def test_what_centers_write_can_neither_steer_a_terminal_nor_a_notebook() -> None:
    desk = Desk(Count(("type",)))
    desk.counts(KYOTO, {("<script>alert(1)</script>\x1b[2J",): 10})
    desk.says(LYON, "REFUSED", "a.b", "\x1b]0;owned\x07<img src=x onerror=alert(1)> [red]no[/red]")
    shown = to_plain_text(desk.answer)
    assert not any(char in shown for char in "\x1b\x07")
    assert "[red]no[/red]" in " ".join(shown.split())
    page = to_html(desk.answer)
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_progress_names_who_is_awaited() -> None:
    desk = Desk(Count())
    desk.counts(KYOTO, {(): 10})
    assert progress_text(desk.answer) == "1 of 3 centers · waiting for lyon, oslo"


def test_rounding_is_told() -> None:
    desk = Desk(Count())
    answer = count_answer(desk.asked, KYOTO, {(): 10})
    answer.protection.rounded_to = 5
    desk.delivered(answer)
    assert any(note.startswith("Each center's numbers are rounded to multiples of 5;") for note in desk.answer.notes)
    assert desk.answer.protection[KYOTO].minimum_donors == 5


def noisy(desk: Desk, center: CenterId, cells: dict[tuple[Any, ...], int], scale: float) -> answer_pb2.Answer:
    answer = count_answer(desk.asked, center, cells)
    answer.protection.kind = query_pb2.NUMBER_KIND_PRIVATE
    answer.protection.noise.delta = 1e-8
    answer.protection.noise.rho, answer.protection.noise.scale = 0.02, scale
    answer.protection.noise.half_width = round(1.96 * scale)
    answer.protection.noise.contributions, answer.protection.noise.shown_from = 3, 33
    return answer


def test_noise_is_shown_beside_each_number_and_adds_up_in_squares() -> None:
    desk = Desk(Count(("type",)))
    desk.delivered(noisy(desk, KYOTO, {("iPSC",): 120}, 30.0))
    desk.delivered(noisy(desk, LYON, {("iPSC",): 80, ("ESC",): 50}, 40.0))
    desk.counts(OSLO, {("iPSC",): 10})
    assert [(row["center"], row["plus_minus"]) for row in desk.answer.rows if row["type"] == "iPSC"] == [
        ("kyoto", 59.0),
        ("lyon", 78.0),
        ("oslo", None),
    ]
    totals = {row["type"]: row["plus_minus"] for row in desk.answer.totals}
    assert totals["iPSC"] == pytest.approx(1.96 * 50, abs=1)
    assert totals["ESC"] == 78.0
    text = str(desk.answer)
    assert "120 ± 59" in text
    assert "210 ± 98" in text
    notes = " ".join(desk.answer.notes)
    assert "Noise hides every single donor of kyoto: with 95 % probability the number lies within ± 59." in notes
    assert "At most 3 groups or records of one donor are counted at kyoto and lyon." in notes
    assert "Groups whose names are not known beforehand show from 33 at kyoto and lyon on." in notes
    assert desk.answer.to_json()["centers"][0]["protection"]["noise"]["scale"] == 30.0
    assert "plus_minus" not in Desk(Count()).answer.combined.columns


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: setattr(answer.protection, "kind", query_pb2.NUMBER_KIND_PUBLISHED),
        lambda answer: setattr(answer.protection, "kind", query_pb2.NUMBER_KIND_GRANTED),
        lambda answer: setattr(answer.protection, "kind", query_pb2.NUMBER_KIND_UNSPECIFIED),
        lambda answer: setattr(answer.protection, "unit", query_pb2.COUNT_UNIT_RECORDS),
        lambda answer: setattr(answer.protection.noise, "half_width", 5.0),
        lambda answer: answer.protection.ClearField("noise"),
        lambda answer: setattr(answer.protection.noise, "scale", math.nan),
        lambda answer: setattr(answer.protection.noise, "half_width", -1.0),
    ],
)
def test_noise_that_is_not_told_makes_no_number(change: Callable[[answer_pb2.Answer], object]) -> None:
    desk = Desk(Count())
    answer = noisy(desk, KYOTO, {(): 120}, 30.0)
    change(answer)
    assert desk.delivered(answer).status is Status.UNVERIFIED
    assert desk.answer.rows == []


def test_sums_are_of_signed_numbers_and_only_tables_for_people_leave_small_ones_out() -> None:
    desk = Desk(Count(("type",)))
    desk.delivered(noisy(desk, KYOTO, {("iPSC",): 120, ("ESC",): -9}, 4.0))
    desk.delivered(noisy(desk, LYON, {("iPSC",): 80, ("ESC",): 5}, 4.0))
    desk.delivered(noisy(desk, OSLO, {("iPSC",): 10, ("ESC",): 0}, 4.0))
    assert {row["type"]: (row["count"], row["plus_minus"]) for row in desk.answer.totals} == {
        "ESC": (-4, 13),
        "iPSC": (210, 13),
    }
    assert "ESC" not in str(desk.answer).split("kyoto released")[0].split("Noise")[0]
    assert any(note.startswith("1 group is not shown") for note in desk.answer.notes)
    desk.answer.show_all = True
    assert "ESC" in str(desk.answer)
    assert "-4" not in str(desk.answer)


@pytest.mark.parametrize(
    ("scales", "width"),
    [
        ([4.3464] * 3, 15),
        ([4.3464] * 10, 27),
        ([7.9136] * 10, 49),
        ([1.8089] * 3, 6),
        ([5.365] * 100, 105),
        ([8.0], 16),
    ],
)
def test_the_interval_of_a_sum_is_the_narrowest_that_covers(scales: list[float], width: int) -> None:
    assert half_width_of(scales) == pytest.approx(width, abs=1)


@pytest.mark.parametrize(
    ("groups", "least"), [(5, 7), (20, 10), (100, 12), (250, 14), (1000, 15), (25_000, 19), (1, 5)]
)
def test_the_readable_minimum_follows_the_number_of_groups(groups: int, least: int) -> None:
    assert readable_from(4.35, groups) == least


def test_every_status_of_the_wire_has_its_name_here() -> None:
    desk = Desk(Count())
    for value in answer_pb2.AnswerStatus.values():
        if value == answer_pb2.ANSWER_STATUS_UNSPECIFIED:
            continue
        answer = no_answer(desk.asked, KYOTO, answer_pb2.AnswerStatus.Name(value)[len("ANSWER_STATUS_") :], "", "")
        if value == answer_pb2.ANSWER_STATUS_RELEASED:
            answer = count_answer(desk.asked, KYOTO, {(): 10})
        part = desk.delivered(answer)
        assert part.status.value == answer_pb2.AnswerStatus.Name(value)[len("ANSWER_STATUS_") :].lower()


def test_a_count_has_the_documented_shape() -> None:
    desk = Desk(Count(("type",)))
    desk.delivered(noisy(desk, KYOTO, {("iPSC",): 10}, 30.0))
    desk.delivered(noisy(desk, LYON, {("iPSC",): -4}, 30.0))
    desk.says(OSLO, "REFUSED")
    document = json.loads(json.dumps(desk.answer.to_json()))
    example = documented("connexon.answer/1 of a count")
    # Generations and ontologies are named by the data, not by the shape.
    for part in (*document["centers"], *example["centers"]):
        for name in ("generations", "ontologies"):
            if part["provenance"]:
                assert all(isinstance(key, str) for key in part["provenance"].pop(name))
    assert_same_shape(document, example)


def test_a_catalog_has_the_documented_shape() -> None:
    desk = Desk(Describe(), dataset="")
    describe(desk, KYOTO, 120)
    document = json.loads(json.dumps(desk.answer.to_json()))
    example = documented("connexon.answer/1 of a catalog")
    for name in ("analysis", "columns", "rows", "totals"):
        assert document[name], name
        assert_same_shape(document[name], example[name])


LATER_FIELD = b"\x98\x06\x01"
"""Field 99, which no message has yet."""


def _changed(desk: Desk, change: Callable[[answer_pb2.Answer], object]) -> center_answer.CenterAnswer:
    answer = count_answer(desk.asked, KYOTO, {("iPSC",): 40})
    change(answer)
    return desk.delivered(answer)


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer.MergeFromString(LATER_FIELD),
        lambda answer: answer.reason.MergeFromString(LATER_FIELD),
        lambda answer: answer.provenance.MergeFromString(LATER_FIELD),
    ],
    ids=["answer", "reason", "provenance"],
)
def test_what_a_newer_center_adds_beside_its_result_is_left_alone(
    change: Callable[[answer_pb2.Answer], object],
) -> None:
    desk = Desk(Count(("type",)))
    assert _changed(desk, change).status is Status.RELEASED
    assert [row["count"] for row in desk.answer.rows] == [40]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda answer: setattr(answer, "status", 77), "answer.unknown_status"),
        (lambda answer: setattr(answer, "status", -1), "answer.unknown_status"),
        (lambda answer: answer.count.MergeFromString(LATER_FIELD), "answer.bad_result"),
        (lambda answer: answer.count.cells[0].MergeFromString(LATER_FIELD), "answer.bad_result"),
        # A value of a kind unknown here must not pass for "not collected".
        (lambda answer: answer.count.cells[0].key[0].ParseFromString(LATER_FIELD), "answer.bad_result"),
        # Nor a result of a kind unknown here for an empty one.
        (lambda answer: (answer.ClearField("count"), answer.MergeFromString(LATER_FIELD)), "answer.bad_result"),
    ],
    ids=["status", "negative status", "result", "cell", "value", "kind of result"],
)
def test_what_could_change_the_meaning_of_a_newer_centers_result_is_not_read_as_a_number(
    change: Callable[[answer_pb2.Answer], object], code: str
) -> None:
    desk = Desk(Count(("type",)))
    part = _changed(desk, change)
    assert (part.status, part.code) == (Status.UNVERIFIED, code)
    assert desk.answer.rows == []
