"""The researcher's command line: real runs against a hub on a real socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon import cli
from connexon.analyses.count import Count
from connexon.client.home import Home
from connexon.clock import DAY, now_ms
from connexon.identity.credential import Grant
from connexon.query.signed import Asked
from connexon.v1 import research_pb2
from tests.support.client_hub import CENTERS, Federation, ScriptedHub, count_answer, keep_catalog, logged_in, no_answer
from tests.support.command_line import Run, runner
from tests.support.documented import assert_same_shape, documented

KYOTO, LYON, OSLO = CENTERS
COMMAND = str(Path(sys.executable).with_name("connexon"))


@pytest.fixture
def hub() -> Iterator[ScriptedHub]:
    hub = ScriptedHub(Federation())
    yield hub
    hub.stop()


@pytest.fixture
def home(hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = logged_in(hub, tmp_path / "home")
    monkeypatch.setenv("CONNEXON_HOME", str(home.folder))
    return home


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(cli.main, "connexon", 60, monkeypatch, capsys)


def test_from_key_to_login_to_whoami(
    hub: ScriptedHub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNEXON_HOME", str(tmp_path / "new"))
    before = run("whoami")
    assert before.status == 1
    assert "connexon login FILE" in before.said
    made = run("keygen")
    assert_same_shape(made.document, documented("accreditation-request"))
    again = run("keygen", "--out", str(tmp_path / "request.json"))
    assert again.out == ""
    assert json.loads((tmp_path / "request.json").read_text()) == made.document
    grant = Grant("ControlledAccessGrants", "atlas", "kyoto", "dac", now_ms(), now_ms() + DAY)
    login = hub.federation.login(hub.address, Home().key(), grants=(grant,))
    (tmp_path / "login.json").write_text(login.to_text())
    entered = run("login", str(tmp_path / "login.json"))
    assert entered.status == 0
    assert "Ada L. (kyoto/ada), researcher" in entered.out
    assert "granted     ControlledAccessGrants=atlas\n" in run("whoami").out
    who = run("whoami", "--json")
    assert who.status == 0
    assert_same_shape(who.document, documented("connexon.whoami/1"))
    assert who.document["id"] == "kyoto/ada"


def test_a_file_that_is_no_login_is_refused_in_one_sentence(run: Run, tmp_path: Path, home: Home) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    ran = run("login", str(tmp_path / "photo.jpg"))
    assert ran.status == 1
    assert "login.unreadable" in ran.said
    absent = run("login", "absent.json")
    assert (absent.status, absent.said) == (1, "✗ There is no file absent.json. (file.unusable)")
    assert "Traceback" not in ran.err


def test_a_fingerprint_that_is_not_whole_and_a_roster_that_is_not_there_are_called_so(run: Run, home: Home) -> None:
    words = ("receipt", "verify", "proof.json", "--roster", "absent.roster", "--root-fingerprint")
    assert "receipt.fingerprint" in run(*words, "3088 61a3 179c 676c").said
    assert run(*words, "00" * 32).said == "✗ There is no file absent.roster. (file.unusable)"


def test_a_count_prints_its_table_and_leaves_with_0(hub: ScriptedHub, run: Run, home: Home) -> None:
    ran = run(
        "count", "cell_lines", "--where", "passage_no > 3", "--by", "type,grade", "-p", "health", "-c", "kyoto,lyon"
    )
    assert ran.status == 0
    assert "300" in ran.out
    assert [line for line in ran.out.splitlines() if len(line) > 60] == []
    asked, _ = next(iter(hub.asked.values()))
    assert asked.question.centers == (KYOTO, LYON)
    assert isinstance(asked.question.analysis, Count)
    assert asked.question.analysis.by == ("type", "grade")


def test_a_count_as_json_has_the_documented_shape_and_nothing_else_on_stdout(run: Run, home: Home) -> None:
    ran = run("count", "cell_lines", "--purpose", "health", "--where", "a = 1", "--where", "b = 2", "--json")
    assert ran.document["schema"] == "connexon.answer/1"
    assert ran.document["where"] == "a = 1 and b = 2"
    assert set(ran.document) == set(documented("connexon.answer/1 of a count"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_answer_is_shown_whatever_the_terminal_can_write(home: Home, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "60"}
    asked = [COMMAND, "count", "cell_lines", "-p", "health", "-c", "kyoto,lyon"]
    done = subprocess.run(asked, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "300" in done.stdout.decode(encoding)
    assert b"Traceback" not in done.stderr


def test_centers_that_have_not_answered_make_it_3_and_result_brings_them(
    hub: ScriptedHub, run: Run, home: Home
) -> None:
    hub.script = lambda asked: iter([hub.answered(count_answer(asked, KYOTO, {(): 40}))])
    ran = run("count", "cell_lines", "-p", "health", "--wait", "0.2")
    assert ran.status == 3
    assert "≥ 40" in ran.out
    query_id = hub.asks[0]
    assert f"connexon result {query_id}" in " ".join(ran.out.split())
    hub.script = hub.everyone_counts
    assert run("result", query_id).status == 0
    assert run("result", query_id, "--json").document["totals"] == [{"count": 600, "centers": 3, "at_least": False}]


def test_a_refusal_by_all_makes_it_1_and_says_why(hub: ScriptedHub, run: Run, home: Home) -> None:
    def refusing(asked: Asked) -> Iterator[research_pb2.Update]:
        for center in CENTERS:
            yield hub.answered(no_answer(asked, center, "REFUSED", "consent.not_covered", "No donor agreed.", "gru"))

    hub.script = refusing
    ran = run("count", "cell_lines", "-p", "health")
    assert ran.status == 1
    assert "kyoto refused: No donor agreed. (gru)" in " ".join(ran.out.split())


def test_too_few_donors_everywhere_is_an_answer_and_the_help_says_so(hub: ScriptedHub, run: Run, home: Home) -> None:
    def suppressing(asked: Asked) -> Iterator[research_pb2.Update]:
        for center in CENTERS:
            yield hub.answered(no_answer(asked, center, "SUPPRESSED", "release.too_few", "Too few."))

    hub.script = suppressing
    assert run("count", "cell_lines", "-p", "health").status == 0
    told = " ".join(run("--help").out.split())
    assert "0 when all centers answered, also with too few donors to show a number" in told
    assert "1 when all have refused" in told


def test_a_failed_center_makes_it_3(hub: ScriptedHub, run: Run, home: Home) -> None:
    def one_fails(asked: Asked) -> Iterator[research_pb2.Update]:
        yield hub.answered(count_answer(asked, KYOTO, {(): 40}))
        yield hub.answered(no_answer(asked, LYON, "FAILED", "engine.failed", "It broke."))
        yield hub.answered(no_answer(asked, OSLO, "SUPPRESSED", "release.too_few", "Too few."))

    hub.script = one_fails
    assert run("count", "cell_lines", "-p", "health").status == 3


def test_an_unreadable_condition_is_shown_with_its_place(hub: ScriptedHub, run: Run, home: Home) -> None:
    ran = run("count", "cell_lines", "-p", "health", "--where", "type = iPSC")
    assert ran.status == 1
    lines = ran.err.splitlines()
    place = next(number for number, line in enumerate(lines) if "^" in line)
    assert lines[place - 1][lines[place].index("^") :] == "iPSC"
    assert "where.unreadable" in ran.said
    assert hub.asks == []


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (("cuont", "cell_lines"), "count"),
        (("count", "cell_lines", "-p", "helth"), "health"),
        (("count", "cell_lines", "-p", "health", "-c", "lyn"), "lyon"),
        (("count", "cell_lines", "-p", "health", "--centres", "lyon"), "--centers"),
    ],
)
def test_typing_slips_get_a_suggestion(run: Run, home: Home, words: tuple[str, ...], suggested: str) -> None:
    ran = run(*words)
    assert ran.status in (1, 2)
    assert suggested in ran.said
    assert "Traceback" not in ran.err


def test_the_catalog_is_shown_and_completes_names_afterwards(hub: ScriptedHub, run: Run, home: Home) -> None:
    def describe(asked: Asked) -> Iterator[research_pb2.Update]:
        assert asked.question.purpose.research == ("DUO:0000042",)
        for center in CENTERS:
            answer = count_answer(asked, center, {})
            answer.ClearField("count")
            dataset = answer.description.datasets.add(name="cell_lines", title="Cell lines", number=10)
            dataset.fields.add(name="passage_no", type="integer", unit="{passage}")
            yield hub.answered(answer)

    hub.script = describe
    ran = run("catalog")
    assert ran.status == 0
    assert "cell_lines · 30 · kyoto, lyon, oslo" in " ".join(ran.out.split())
    assert "passage_no" in ran.out
    assert run("catalog", "--json").document["rows"][0]["field"] == "passage_no"
    # Fields of another dataset are not offered where cell_lines is on the line.
    keep_catalog(home, {"cell_lines": ["passage_no"], "lots": ["pack_size"]})
    for line, expected in (
        ("connexon count ce", "cell_lines"),
        ("connexon count cell_lines --by pa", "passage_no"),
        ("connexon count cell_lines --by passage_no,pa", "passage_no,passage_no"),
        ("connexon count cell_lines --centers ly", "lyon"),
        ("connexon count cell_lines --centers kyoto,ly", "kyoto,lyon"),
        ("connexon count cell_lines --purpose anc", "ancestry"),
    ):
        words = {"_CONNEXON_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        completed = subprocess.run(
            [COMMAND], env={**os.environ, **words}, capture_output=True, text=True, check=False, timeout=30
        )
        assert completed.stdout.split() == [expected]


def test_questions_are_listed_and_cancelled(hub: ScriptedHub, run: Run, home: Home) -> None:
    assert "not asked anything" in run("queries").said
    run("count", "cell_lines", "-p", "health", "--where", "type = 'iPSC'", "--by", "grade,type", "--project", "atlas")
    listed = run("queries")
    assert " · count donors of cell_lines by grade, type · health · project atlas " in " ".join(listed.out.split())
    assert "2 of 3 answered" in listed.out
    assert "type = 'iPSC'" in listed.out
    assert_same_shape(run("queries", "--json").document, documented("connexon.queries/1"))
    cancelled = run("cancel", hub.asks[0], "--json")
    assert_same_shape(cancelled.document, documented("connexon.cancel/1"))
    assert hub.cancelled == [hub.asks[0]]


def test_the_start_of_an_id_will_do_where_it_fits_one_question(hub: ScriptedHub, run: Run, home: Home) -> None:
    # Of seventeen ids, two begin with the same one of sixteen characters.
    for _ in range(17):
        run("count", "cell_lines", "-p", "health")
    beginnings = Counter(query_id[0] for query_id in hub.asks)
    assert "(query.ambiguous)" in run("cancel", beginnings.most_common(1)[0][0]).said
    assert hub.cancelled == []
    assert run("cancel", hub.asks[3][:8]).status == 0
    assert hub.cancelled == [hub.asks[3]]
    assert run("result", hub.asks[5][:8], "--json").document["query_id"] == hub.asks[5]
    assert "(query.not_found)" in run("result", "no-such").said


def test_defaults_are_kept(run: Run, home: Home) -> None:
    assert run("defaults", "--purpose", "health", "--project", "P-1").status == 0
    assert_same_shape(run("defaults", "--json").document, documented("connexon.defaults/1"))
    assert run("count", "cell_lines", "--json").document["purpose"]["project"] == "P-1"
    assert run("defaults", "--purpose", "helth").status == 1
    assert home.defaults().purpose == "health"


def test_a_hub_that_is_down_is_said_in_a_sentence(
    hub: ScriptedHub, run: Run, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connexon.client.network.CONNECT_SECONDS", 0.3)
    hub.stop()
    ran = run("count", "cell_lines", "-p", "health")
    assert ran.status == 1
    assert "cannot be reached" in ran.said
    assert "hub.unreachable" in ran.said


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_leaves_the_question_running_and_says_how_to_resume(hub: ScriptedHub, home: Home) -> None:
    done = threading.Event()
    hub.script = lambda asked: (update for update in hub.everyone_counts(asked) if done.wait(60))
    command = [COMMAND, "count", "cell_lines", "-p", "health"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not hub.asks and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    done.set()
    assert process.returncode == 130
    assert f"connexon result {hub.asks[0]}" in err
    assert out == ""
    assert hub.cancelled == []


CUT_OFF = """
import grpc._channel, sys
from connexon.cli import main

def cut_off(state):
    raise KeyboardInterrupt

grpc._channel._run_channel_spin_thread = cut_off
sys.argv[1:] = ["count", "cell_lines", "-p", "health"]
main()
"""


def test_ctrl_c_just_when_a_call_begins_ends_the_command_too(hub: ScriptedHub, home: Home) -> None:
    # gRPC has begun the call, and nobody hears what becomes of it: closing the channel would wait for that for ever.
    ran = subprocess.run([sys.executable, "-c", CUT_OFF], capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 130, ran.stderr
    assert "Stopped" in ran.stderr
