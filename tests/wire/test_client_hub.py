"""The client against a hub on a real socket: news as it comes, broken connections, and a hub that cheats."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connexon
from connexon.client.answer import Answer
from connexon.client.center_answer import Status
from connexon.client.connecting import log_in
from connexon.client.home import Home
from connexon.client.hub_calls import HubNotProved
from connexon.client.network import Network
from connexon.errors import InvalidQuery, Misconfigured, NotFound, Refused, Unavailable
from connexon.identity import roster as rosters
from connexon.identity.certificates import Authority
from connexon.identity.credential import CredentialRefused
from connexon.identity.keys import CenterId, SigningKey
from connexon.identity.roster import RosterRefused
from connexon.query import signed, wire_question
from connexon.query.signed import Asked
from connexon.v1 import research_pb2
from tests.support.client_hub import CENTERS, FEDERATION, Federation, ScriptedHub, count_answer, logged_in, no_answer

KYOTO, LYON, OSLO = CENTERS


@pytest.fixture
def hub() -> Iterator[ScriptedHub]:
    hub = ScriptedHub(Federation())
    yield hub
    hub.stop()


@pytest.fixture
def home(hub: ScriptedHub, tmp_path: Path) -> Home:
    return logged_in(hub, tmp_path / "home")


@pytest.fixture
def network(home: Home) -> Iterator[Network]:
    with connexon.connect(home) as network:
        yield network


def test_a_signed_question_crosses_the_hub_and_comes_back_as_one_answer(hub: ScriptedHub, network: Network) -> None:
    lines = network.study(purpose="health", project="P-1").dataset("cell_lines")
    lines = lines.where("disease_term under MONDO:0005180", type="iPSC")
    answer = lines.where(connexon.col("passage_no") > 10).count(by=["type"])
    assert answer.complete
    assert answer.totals == [{"type": "iPSC", "count": 600, "centers": 3, "at_least": False}]
    assert all(part.latency_ms is not None for part in answer.centers)
    asked, _ = hub.asked[answer.query_id]
    assert asked.researcher.id == "kyoto/ada"
    assert asked.question == answer.question
    assert asked.question.purpose.project == "P-1"


def test_the_builder_leaves_what_it_was_built_from_unchanged(network: Network) -> None:
    lines = network.study().dataset("cell_lines")
    narrowed = lines.where(type="iPSC")
    assert lines.filter is None
    assert narrowed is not lines
    assert repr(narrowed) == "<Dataset cell_lines where type = 'iPSC'>"


def test_defaults_are_used_where_nothing_is_given(hub: ScriptedHub, home: Home, network: Network) -> None:
    with pytest.raises(InvalidQuery) as caught:
        network.study().dataset("cell_lines").count()
    assert caught.value.code == "purpose.missing"
    assert "--" not in caught.value.public
    assert network.study().catalog().question.purpose.research == ("DUO:0000042",)
    home.keep_defaults(purpose="methods", project="P-9")
    answer = network.study().dataset("cell_lines").count()
    assert (answer.question.purpose.research, answer.question.purpose.project) == (("DUO:0000031",), "P-9")
    assert network.study(project="").dataset("cell_lines").count().question.purpose.project == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"by": 5}, "by names fields, such as 'type' or ['type', 'grade']; '5' is none."),
        ({"by": ["type", None]}, "by names fields, such as 'type' or ['type', 'grade']; 'None' is none."),
        ({"wait": "x"}, "wait is seconds, or None to wait without limit; 'x' is none."),
        ({"wait": -1}, "wait is in seconds, from 0 on"),
        ({"wait": math.nan}, "wait is in seconds, from 0 on"),
        ({"within": "x"}, "within is a whole number, such as 15; 'x' is none."),
        ({"within": 0}, "Numbers can be asked for within 1 to 1,000 of the exact ones."),
        ({"price_only": "x"}, "price_only is True or False; 'x' is none."),
        ({"unit": "lines"}, "unit is 'donors' or 'records'."),
        ({"kind": "exact"}, "kind is 'private', 'granted' or 'published'."),
        ({"purpose": 5}, "purpose is a text such as 'health', or a Purpose; '5' is none."),
        ({"project": 5}, "project is a text; '5' is none."),
        ({"centers": 5}, "centers is a list of centers, such as ['lyon', 'kyoto']; '5' is none."),
        ({"centers": [5]}, "centers is a list of centers, such as ['lyon', 'kyoto']; '5' is none."),
        ({"expires_in": 5}, "expires_in is a text such as '12h', or a timedelta; '5' is none."),
    ],
)
def test_an_argument_that_is_not_of_its_kind_is_refused_in_a_sentence(
    hub: ScriptedHub, network: Network, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidQuery) as caught:
        asking = {
            name: value for name, value in options.items() if name in ("by", "within", "price_only", "unit", "kind")
        }
        terms = {"purpose": "health", **{name: value for name, value in options.items() if name not in asking}}
        network.study(**terms).dataset("cell_lines").count(**asking)
    assert sentence in caught.value.public
    assert hub.asks == []


def test_what_a_center_would_refuse_is_refused_before_anything_is_sent(hub: ScriptedHub, network: Network) -> None:
    lines = network.study(purpose="health").dataset("cell_lines")
    for wrong in (
        lambda: lines.count(by=["a", "b", "c", "d", "e"]),
        lambda: network.study(purpose="health").dataset("Cell Lines").count(),
        lambda: lines.where("type = iPSC"),
        lambda: network.study(purpose="helth").dataset("cell_lines").count(),
        lambda: network.study(purpose="health", expires_in="31d").dataset("cell_lines").count(),
        lambda: lines.where(note="x" * 2000).count(),
    ):
        with pytest.raises(InvalidQuery):
            wrong()
    assert hub.asks == []


def test_a_mistyped_center_or_purpose_is_suggested(network: Network) -> None:
    with pytest.raises(NotFound, match="Did you mean 'lyon'"):
        network.study(purpose="health", centers=["lyn"]).dataset("cell_lines").count()
    with pytest.raises(InvalidQuery, match="Did you mean 'health'"):
        network.study(purpose="helth").dataset("cell_lines").count()


def test_only_the_centers_named_are_asked(hub: ScriptedHub, network: Network) -> None:
    answer = network.study(purpose="health", centers=["oslo", "kyoto"]).dataset("cell_lines").count()
    assert answer.question.centers == (KYOTO, OSLO)


def test_waiting_ends_and_the_rest_is_marked_waiting_and_comes_later(hub: ScriptedHub, network: Network) -> None:
    may_answer = threading.Event()

    def slowly(asked: Asked) -> Iterator[research_pb2.Update]:
        yield hub.answered(count_answer(asked, KYOTO, {(): 10}))
        yield hub.answered(no_answer(asked, LYON, "SUPPRESSED", "release.too_few", "Too few."))
        may_answer.wait(30)
        yield hub.answered(count_answer(asked, OSLO, {(): 5}))

    hub.script = slowly
    answer = network.study(purpose="health", wait=0.5).dataset("cell_lines").count()
    assert not answer.complete
    assert answer.totals == [{"count": 10, "centers": 1, "at_least": True}]
    assert answer.center("oslo").status is Status.WAITING
    may_answer.set()
    assert answer.wait(20) is answer
    assert answer.complete
    assert answer.totals[0]["count"] == 15


def _tell_connected(center: CenterId, *, connected: bool) -> research_pb2.Update:
    waiting = research_pb2.DELIVERY_STATE_WAITING
    one = research_pb2.Delivery(center_id=center, state=waiting, connected=connected)
    return research_pb2.Update(news=research_pb2.News(deliveries=[one]))


def test_an_absent_center_is_named_and_not_waited_for(hub: ScriptedHub, network: Network) -> None:
    returned = threading.Event()

    def two_count(asked: Asked) -> Iterator[research_pb2.Update]:
        for center in (KYOTO, LYON):
            yield hub.answered(count_answer(asked, center, {(): 100}))
        returned.wait(20)
        yield hub.answered(count_answer(asked, OSLO, {(): 100}))

    hub.script, hub.absent = two_count, {OSLO}
    begun = time.monotonic()
    answer = network.study(purpose="health", wait=15).dataset("cell_lines").count()
    assert time.monotonic() - begun < 5
    assert [part.away for part in answer.centers] == [False, False, True]
    assert answer.totals == [{"count": 200, "centers": 2, "at_least": True}]
    assert "not connected" in answer.center("oslo").message

    def progress(answer: Answer) -> None:
        if len(answer.released) == 2:
            returned.set()

    study = network.study(purpose="health", wait=20, wait_for_all=True, on_progress=progress)
    assert study.dataset("cell_lines").count().complete


def test_where_nobody_is_attached_the_answer_says_so_at_once(hub: ScriptedHub, network: Network) -> None:
    def nothing(asked: Asked) -> Iterator[research_pb2.Update]:
        threading.Event().wait(10)
        yield from hub.everyone_counts(asked)

    hub.script, hub.absent = nothing, set(CENTERS)
    begun = time.monotonic()
    answer = network.study(purpose="health", wait=15).dataset("cell_lines").count()
    assert time.monotonic() - begun < 5
    assert all(part.away for part in answer.centers)


@pytest.mark.parametrize("returns", [True, False])
def test_a_center_whose_connection_breaks_has_a_moment_to_come_back(
    hub: ScriptedHub, network: Network, monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    monkeypatch.setattr("connexon.client.following.RETURN_SECONDS", 10.0 if returns else 0.3)

    def breaks(asked: Asked) -> Iterator[research_pb2.Update]:
        for center in (KYOTO, LYON):
            yield hub.answered(count_answer(asked, center, {(): 100}))
        if returns and hub.asks.count(asked.question.query_id) > 1:
            yield _tell_connected(OSLO, connected=True)
            yield hub.answered(count_answer(asked, OSLO, {(): 100}))
        yield _tell_connected(OSLO, connected=False)
        threading.Event().wait(15)

    hub.script = breaks
    begun = time.monotonic()
    answer = network.study(purpose="health", wait=14).dataset("cell_lines").count()
    assert time.monotonic() - begun < 8
    assert answer.complete is returns
    assert answer.center("oslo").away is not returns


def test_a_study_says_its_terms_once(hub: ScriptedHub, network: Network) -> None:
    study = network.study(purpose="health", project="P-7", centers=(name for name in ("kyoto", "lyon")))
    first, second = study.dataset("cell_lines").count(), study.dataset("lots").count(by="type")
    assert [one.question.centers for one in (first, second)] == [(KYOTO, LYON)] * 2
    assert {one.question.purpose.project for one in (first, second)} == {"P-7"}
    assert repr(study) == "<Study health · project P-7 · of kyoto, lyon>"


def test_not_waiting_at_all_still_hands_the_question_over(hub: ScriptedHub, network: Network) -> None:
    hub.script = lambda asked: iter(())
    answer = network.study(purpose="health", wait=0).dataset("cell_lines").count()
    assert hub.asks == [answer.query_id]
    assert [part.status for part in answer.centers] == [Status.WAITING] * 3


def test_a_broken_connection_is_taken_up_again_by_asking_the_same(hub: ScriptedHub, network: Network) -> None:
    first_part_sent = threading.Event()

    def cut(asked: Asked) -> Iterator[research_pb2.Update]:
        yield hub.answered(count_answer(asked, KYOTO, {(): 10}))
        first_part_sent.set()
        threading.Event().wait(30 if len(hub.asks) == 1 else 0)
        yield from hub.everyone_counts(asked)

    def restart() -> None:
        first_part_sent.wait(20)
        hub.stop()
        hub.start()

    hub.script = cut
    restarting = threading.Thread(target=restart)
    restarting.start()
    answer = network.study(purpose="health", wait=30).dataset("cell_lines").count()
    restarting.join()
    assert answer.complete
    assert answer.totals[0]["count"] == 10 + 200 + 300
    assert len(hub.asks) >= 2
    assert set(hub.asks) == {answer.query_id}


def test_a_hub_that_cannot_be_reached_is_said_so_after_the_wait(
    hub: ScriptedHub, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connexon.client.following.PATIENCE_SECONDS", 0.5)
    hub.stop()
    with pytest.raises(Unavailable, match="connexon result") as caught:
        network.study(purpose="health", wait=0.3).dataset("cell_lines").count()
    assert caught.value.code == "hub.unreachable"


def test_a_hub_that_is_busy_is_asked_again_and_one_that_refuses_is_not(hub: ScriptedHub, network: Network) -> None:
    hub.fail_asks = [Unavailable("The database is locked.", code="hub.busy")]
    assert network.study(purpose="health").dataset("cell_lines").count().complete
    hub.fail_asks = [Refused("Too many questions.", code="hub.too_many"), Refused("Again.", code="again")]
    with pytest.raises(Refused, match="Too many questions") as caught:
        network.study(purpose="health").dataset("cell_lines").count()
    assert caught.value.code == "hub.too_many"
    assert len(hub.fail_asks) == 1


def test_answers_that_the_hub_altered_swapped_or_made_are_not_counted(hub: ScriptedHub, network: Network) -> None:
    def cheating(asked: Asked) -> Iterator[research_pb2.Update]:
        altered = hub.answered(count_answer(asked, KYOTO, {(): 10}))
        told = altered.news.deliveries[0].answer
        told.payload = told.payload[:-1]
        yield altered
        swapped = hub.answered(count_answer(asked, KYOTO, {(): 10}))
        swapped.news.deliveries[0].center_id = LYON
        yield swapped
        yield hub.answered(count_answer(asked, OSLO, {(): 10}, query_sha256=bytes(32)))

    hub.script = cheating
    answer = network.study(purpose="health", wait=5).dataset("cell_lines").count()
    assert [(part.status, part.code) for part in answer.centers] == [
        (Status.UNVERIFIED, "answer.bad_signature"),
        (Status.UNVERIFIED, "answer.bad_signature"),
        (Status.UNVERIFIED, "answer.other_query"),
    ]
    assert answer.rows == answer.totals == []


def test_a_hub_that_swaps_the_question_is_found_out(hub: ScriptedHub, network: Network) -> None:
    hub.payload_told = b"another question"
    with pytest.raises(signed.QueryRefused) as caught:
        network.study(purpose="health").dataset("cell_lines").count()
    assert caught.value.code == "query.swapped"


def test_a_center_that_joined_since_is_recognised_by_the_newer_roster(
    hub: ScriptedHub, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_key = SigningKey.generate()

    def with_new_key(asked: Asked) -> Iterator[research_pb2.Update]:
        hub.signed_roster = hub.federation.roster(serial=2, members={**hub.federation.keys, OSLO: new_key})
        hub.federation.keys[OSLO] = new_key
        yield from hub.everyone_counts(asked)

    hub.script = with_new_key
    network._roster_at -= 60  # as if it had been fetched a minute ago
    answer = network.study(purpose="health").dataset("cell_lines").count()
    assert [part.status for part in answer.centers] == [Status.RELEASED] * 3
    assert network.roster.serial == 2


def test_a_question_is_resumed_by_its_id_and_checked_against_what_was_asked(hub: ScriptedHub, home: Home) -> None:
    with connexon.connect(home) as network:
        asked = network.study(purpose="health", wait=0).dataset("cell_lines").where(type="iPSC").count()
    with connexon.connect(home) as network:
        answer = network.result(asked.query_id)
        assert answer.question == asked.question
        assert answer.complete
        assert answer.totals == [{"count": 600, "centers": 3, "at_least": False}]
        assert answer.center("kyoto").latency_ms is None
        assert hub.follows == [asked.query_id]
        hub.payload_told = wire_question.to_bytes(answer.question)[:-1]
        with pytest.raises(signed.QueryRefused) as caught:
            network.result(asked.query_id)
        assert caught.value.code == "query.swapped"


def test_a_question_asked_elsewhere_is_shown_with_a_remark(hub: ScriptedHub, home: Home, network: Network) -> None:
    asked = network.study(purpose="health").dataset("cell_lines").count()
    for path in (home.folder / "queries").iterdir():
        path.unlink()
    answer = network.result(asked.query_id)
    assert answer.totals == asked.totals
    assert any("asked elsewhere" in note for note in answer.notes)


def test_a_question_that_is_not_mine_is_not_found(network: Network) -> None:
    with pytest.raises(NotFound) as caught:
        network.result("22222222-2222-2222-2222-222222222222")
    assert caught.value.code == "query.not_found"


def test_questions_are_listed_and_cancelled(hub: ScriptedHub, network: Network) -> None:
    first = network.study(purpose="health").dataset("cell_lines").count()
    second = network.study(purpose="health").dataset("lots").where("passage_no > 3").count()
    listed = network.queries()
    assert [one.question for one in listed] == [second.question, first.question]
    assert (listed[0].centers, listed[0].answered) == (3, 2)
    assert network.cancel(first.query_id) == 1
    assert hub.cancelled == [first.query_id]


def test_one_row_that_cannot_be_read_hides_no_other_question(hub: ScriptedHub, network: Network) -> None:
    first = network.study(purpose="health").dataset("cell_lines").count()
    payload = hub.asked[first.query_id][1].payload
    hub.also_listed = [
        research_pb2.QuerySummary(query_id="bad\x1b[8m", query_payload=b"\xff"),
        research_pb2.QuerySummary(query_id="new", query_payload=payload + b"\xc2\x3e\x01x", accepted_at_ms=1),
        research_pb2.QuerySummary(query_id="late", query_payload=payload, accepted_at_ms=2**62),
    ]
    summaries, unread = network.listed_queries()
    assert [one.question.query_id for one in summaries] == [first.query_id]
    assert unread == ["bad�[8m", "new", "late"]


def test_progress_is_told_with_every_news(hub: ScriptedHub, network: Network) -> None:
    seen: list[int] = []
    network.study(purpose="health", on_progress=lambda answer: seen.append(len(answer.released))).dataset(
        "cell_lines"
    ).count()
    assert seen == [0, 0, 1, 2, 3]


def test_a_catalog_teaches_names_that_later_slips_are_held_against(hub: ScriptedHub, network: Network) -> None:
    def describe(asked: Asked) -> Iterator[research_pb2.Update]:
        for center in asked.question.centers:
            answer = count_answer(asked, center, {})
            answer.ClearField("count")
            dataset = answer.description.datasets.add(name="cell_lines", title="Cell lines", number=10)
            dataset.fields.add(name="disease_term", type="term", ontology="MONDO")
            yield hub.answered(answer)

    hub.script = describe
    catalog = network.study(purpose="general").catalog()
    assert catalog.totals[0]["number"] == 30
    hub.script = hub.everyone_counts
    with pytest.raises(NotFound, match="Did you mean 'cell_lines'") as caught:
        network.study(purpose="health").dataset("cell_line").count()
    assert caught.value.code == "dataset.unknown"
    with pytest.raises(NotFound, match="Did you mean 'disease_term'"):
        network.study(purpose="health").dataset("cell_lines").where("not (desease_term is missing)").count()
    # A name that is close to none may be new: the centers decide.
    assert network.study(purpose="health").dataset("karyotypes").count().complete


def test_a_center_suspended_since_the_roster_was_fetched_is_left_out(hub: ScriptedHub, network: Network) -> None:
    members = {center: key for center, key in hub.federation.keys.items() if center != OSLO}
    hub.signed_roster = hub.federation.roster(serial=2, members=members)
    network._roster_at -= 60  # as if it had been fetched a minute ago
    hub.fail_asks = [Refused("oslo is suspended in alliance.", code="membership.suspended")]
    answer = network.study(purpose="health").dataset("cell_lines").count()
    assert answer.question.centers == (KYOTO, LYON)
    assert answer.complete
    hub.fail_asks = [Refused("oslo is suspended in alliance.", code="membership.suspended")]
    with pytest.raises(Refused, match="oslo is suspended"):
        network.study(purpose="health", centers=["kyoto"]).dataset("cell_lines").count()


def test_a_trace_is_carried_to_the_hub(hub: ScriptedHub, network: Network) -> None:
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    context = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        network.study(purpose="health").dataset("cell_lines").count()
    network.study(purpose="health").dataset("cell_lines").count()
    assert f"{0xABC:032x}" in hub.traces[0]
    assert hub.traces[1] == ""


def test_an_older_roster_from_the_hub_is_refused(hub: ScriptedHub, home: Home) -> None:
    hub.signed_roster = hub.federation.roster(serial=7)
    connexon.connect(home).close()
    hub.signed_roster = hub.federation.roster(serial=6)
    with pytest.raises(RosterRefused) as caught:
        connexon.connect(home)
    assert caught.value.code == "roster.older"


def test_a_roster_by_another_root_is_refused(hub: ScriptedHub, home: Home) -> None:
    hub.signed_roster = Federation().roster()
    with pytest.raises(RosterRefused) as caught:
        connexon.connect(home)
    assert caught.value.code == "roster.other_root"


def test_a_server_with_another_authority_s_certificate_is_called_what_it_is(hub: ScriptedHub, home: Home) -> None:
    hub.stop()
    hub.start(Authority.create(FEDERATION))
    with pytest.raises(HubNotProved) as caught:
        connexon.connect(home)
    assert caught.value.code == "hub.not_proved"


def test_a_login_is_checked_before_it_is_kept(hub: ScriptedHub, tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    key, _ = home.make_key()
    other = hub.federation.login(hub.address, SigningKey.generate())
    with pytest.raises(Misconfigured) as caught:
        log_in(other, home)
    assert caught.value.code == "home.other_key"
    spoilt = hub.federation.login(hub.address, key, credential="a.b.c")
    with pytest.raises(CredentialRefused):
        log_in(spoilt, home)
    assert home.present_login() is None
    assert log_in(hub.federation.login(hub.address, key), home).id == "kyoto/ada"
    assert home.login().federation == FEDERATION


def test_another_federation_needs_another_folder_or_a_word(hub: ScriptedHub, home: Home) -> None:
    other = ScriptedHub(Federation())
    try:
        login = other.federation.login(other.address, home.key())
        with pytest.raises(Misconfigured) as caught:
            log_in(login, home)
        assert caught.value.code == "home.other_federation"
        log_in(login, home, replace=True)
        assert home.login() == login
    finally:
        other.stop()


def test_an_expired_credential_says_whom_to_ask(hub: ScriptedHub, tmp_path: Path) -> None:
    home = Home(tmp_path / "late")
    key, _ = home.make_key()
    home.keep_login(hub.federation.login(hub.address, key, life_ms=1))
    with pytest.raises(CredentialRefused, match="steward at kyoto") as caught:
        connexon.connect(home)
    assert caught.value.code == "credential.expired"


def test_a_suspended_center_is_not_asked_by_default_and_refused_by_name(hub: ScriptedHub, home: Home) -> None:
    import dataclasses

    roster = rosters.peek(hub.federation.roster(serial=2))
    members = tuple(
        dataclasses.replace(member, status=rosters.MemberStatus.SUSPENDED) if member.center == OSLO else member
        for member in roster.members
    )
    hub.signed_roster = rosters.sign(dataclasses.replace(roster, members=members), hub.federation.root)
    with connexon.connect(home) as network:
        assert network.study(purpose="health").dataset("cell_lines").count().question.centers == (KYOTO, LYON)
        with pytest.raises(Refused) as caught:
            network.study(purpose="health", centers=[CenterId("oslo")]).dataset("cell_lines").count()
        assert caught.value.code == "membership.suspended"
