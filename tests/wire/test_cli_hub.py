"""The hub operator's command line, in a folder that no process serves."""

from __future__ import annotations

import io
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connexon.identity import invitation, keys
from connexon.identity.keys import SigningKey
from connexon_hub import cli
from connexon_hub.cli.context import opened
from connexon_hub.membership.members import BroughtKeys
from tests.support.command_line import Ran, Run, runner

ADDRESSES = ("--address", "127.0.0.1:7443", "--link-address", "127.0.0.1:7444")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run connexon-hub in an empty folder, with nobody at the keyboard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return runner(cli.main, "connexon-hub", 80, monkeypatch, capsys)


@pytest.fixture
def founded(run: Run) -> None:
    """A hub in the folder hub, its root key in the folder root."""
    assert init(run).status == 0


def init(run: Run, *words: str) -> Ran:
    """Found one; later words stand for earlier ones of the same option."""
    return run("init", "--federation", "alliance", "--dir", "hub", "--root-dir", "root", *ADDRESSES, *words)


def invite(run: Run, center: str, *words: str, legal_name: str = "Hospices") -> Ran:
    about = ("--legal-name", legal_name, "--country", "FR", "--kind", "public")
    return run("invite", center, *about, "--dir", "hub", *words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--state-url", "mysql://localhost/hub"), "must begin with sqlite:/// or postgresql://"),
        (("--state-url", "postgresql://127.0.0.1:1/hub"), "The database that --state-url names cannot be used"),
        (("--state-url", "sqlite:///missing/hub.db"), "The database that --state-url names cannot be used"),
        (("--state-url", "sqlite:///other.db"), "The database holds the tables of another program"),
        (("--link-address", "127.0.0.1:7443"), "--address and --link-address are both 127.0.0.1:7443"),
        (("--listen", "[::]:1", "--link-listen", "[::]:1"), "--listen and --link-listen are both [::]:1"),
        (("--link-address", "7444"), "Write --link-address as HOST:PORT"),
        (("--policies", "missing"), "There is no policy"),
        (("--federation", "Grand Alliance"), "'Grand Alliance' is not the name of a federation"),
        (("--root-dir", "file/root"), "file is a file, not a folder"),
    ],
)
def test_a_founding_that_fails_says_why_and_leaves_nothing(run: Run, words: tuple[str, ...], sentence: str) -> None:
    with closing(sqlite3.connect("other.db")) as other:
        other.execute("create table alembic_version (version_num text)")
        other.execute("insert into alembic_version values ('f00')")
        other.commit()
    Path("file").touch()
    refused = init(run, *words)
    assert refused.status == 1
    assert sentence in refused.said.replace(f"{Path.cwd()}/", "")
    assert not Path("hub").exists()
    assert not Path("root").exists()
    assert init(run).status == 0


def test_a_hub_is_not_founded_among_other_files(run: Run) -> None:
    Path("hub").mkdir()
    Path("hub/node.toml").touch()
    refused = init(run)
    assert refused.status == 1
    assert "hub is not an empty folder; name a new one with --dir" in refused.said
    assert [path.name for path in Path().rglob("*")] == ["hub", "node.toml"]


@pytest.mark.usefixtures("founded")
def test_two_hubs_do_not_share_a_database(run: Run) -> None:
    words = ("--dir", "second", "--root-dir", "second-root", "--state-url", "sqlite:///hub/state.db")
    refused = init(run, *words)
    assert refused.status == 1
    assert "another hub's already" in refused.said
    assert not Path("second").exists()


@pytest.mark.usefixtures("founded")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [(" ", "is empty"), ("x" * 201, "has 201 characters; at most 200 fit"), ("Two\nlines", "has a line break")],
)
def test_what_is_wrong_with_a_legal_name_is_said(run: Run, name: str, sentence: str) -> None:
    refused = invite(run, "lyon", legal_name=name)
    assert refused.status == 1
    assert f"The legal name {sentence}" in refused.said


@pytest.mark.usefixtures("founded")
def test_nobody_is_revoked_for_good_without_a_yes(run: Run) -> None:
    invite(run, "lyon")
    refused = run("revoke", "lyon", "--dir", "hub")
    assert refused.status == 1
    assert "add --yes" in refused.said
    assert "invited" in run("members", "--dir", "hub").out
    assert run("revoke", "lyon", "--dir", "hub", "--yes").status == 0
    assert "revoked" in run("members", "--dir", "hub").out


@pytest.mark.usefixtures("founded")
def test_an_invitation_that_cannot_be_written_is_not_made(run: Run) -> None:
    Path("taken").mkdir()
    refused = invite(run, "lyon", "--out", "taken")
    assert (refused.status, refused.said) == (1, "✗ taken is a folder; name a file. (file.unusable)")
    assert "No center was invited yet" in run("members", "--dir", "hub").out
    assert invite(run, "lyon", "--out", "new/lyon.invitation").status == 0


@pytest.mark.usefixtures("founded")
@pytest.mark.parametrize("columns", [80, 40])
def test_members_are_shown_with_the_fingerprints_to_compare(
    run: Run, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code = invite(run, "lyon", legal_name="Hospices [bold]")
    assert "Fingerprints" not in run("members", "--dir", "hub").out
    accrediting, answering = SigningKey.generate().public, SigningKey.generate().public
    with opened(Path("hub")) as hub:
        hub.members.join(invitation.from_code(code.out).token, BroughtKeys(accrediting, answering, b"link"))
    shown = run("members", "--dir", "hub").out
    tables, _, advice = shown.rpartition("\n\n")
    assert max(len(line) for line in tables.splitlines()) <= columns
    assert advice.startswith("Joined centers become active")
    words = shown.split()
    for key in (accrediting, answering):
        groups = keys.readable(keys.fingerprint(key)).split()
        assert all(group in words for group in groups)
    assert "[bold]" in shown


@pytest.mark.usefixtures("founded")
def test_a_draft_is_not_published_before_it_is_signed(run: Run) -> None:
    run("roster", "draft", "--dir", "hub", "--out", "2.draft")
    refused = run("roster", "publish", "2.draft", "--dir", "hub")
    assert refused.status == 1
    assert "2.draft is not signed yet" in refused.said
    assert "connexon-hub roster sign 2.draft" in refused.said
    assert run("roster", "sign", "2.draft", "--root-dir", "root", "--out", "2.signed", "--yes").status == 0
    assert run("roster", "publish", "2.signed", "--dir", "hub").status == 0


@pytest.mark.usefixtures("founded")
def test_a_picture_is_no_roster(run: Run) -> None:
    Path("photo.jpg").write_bytes(b"\xff\xd8")
    for words in (("publish", "photo.jpg", "--dir", "hub"), ("sign", "photo.jpg", "--root-dir", "root")):
        refused = run("roster", *words)
        assert refused.status == 1
        assert "roster.unreadable" in refused.said


def test_commands_are_suggested_as_they_can_be_typed(run: Run) -> None:
    founded = init(run)
    assert "3. connexon-hub serve --dir hub\n" in founded.out
    assert "4. connexon-hub invite CENTER --dir hub, " in founded.out
    assert "connexon-hub invite CENTER --dir hub" in run("members", "--dir", "hub").out
    invite(run, "lyon")
    update = "connexon-hub roster update --root-dir ROOT --dir hub"
    assert update in run("revoke", "lyon", "--dir", "hub", "--yes").err
    drafted = run("roster", "draft", "--dir", "hub", "--out", "2.draft")
    assert "connexon-hub roster sign 2.draft --root-dir ROOT" in drafted.said
    signed = run("roster", "sign", "2.draft", "--root-dir", "root", "--yes")
    assert "connexon-hub roster publish 2.signed.json --dir HUB" in signed.said


@pytest.mark.usefixtures("founded")
def test_centers_are_completed_from_the_hub_s_own_database(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    invite(run, "lyon")
    invite(run, "kyoto")
    for folder, expected in (("hub", ["lyon"]), ("elsewhere", [])):
        monkeypatch.setenv("_CONNEXON_HUB_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"connexon-hub suspend --dir {folder} ly")
        monkeypatch.setenv("COMP_CWORD", "4")
        assert CliRunner().invoke(cli.app, [], prog_name="connexon-hub").output.split() == expected


@pytest.mark.usefixtures("founded")
def test_a_draft_is_not_shown_for_signing_without_a_root_key(run: Run) -> None:
    run("roster", "draft", "--dir", "hub", "--out", "2.draft")
    refused = run("roster", "sign", "2.draft", "--root-dir", "elsewhere", "--yes")
    assert (refused.status, "first roster" in refused.err) == (1, False)
    assert "key.unreadable" in refused.err
    assert "roster.unconfirmed" in run("roster", "sign", "2.draft", "--root-dir", "root").err
