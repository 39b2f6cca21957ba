"""The hub operator's command line, in a folder that no process serves."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from connexon.console import ERR, OUT
from connexon_hub import cli

ADDRESSES = ("--address", "127.0.0.1:7443", "--link-address", "127.0.0.1:7444")


@dataclass
class Ran:
    """What a run left."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return " ".join(self.err.split())


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run connexon-hub in an empty folder, with nobody at the keyboard."""
    monkeypatch.setenv("COLUMNS", "80")
    for console in (OUT, ERR):
        monkeypatch.setattr(console, "_width", None)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        monkeypatch.setattr(sys, "argv", ["connexon-hub", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        return Ran(int(left.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def founded(run: Run) -> None:
    """A hub in the folder hub, its root key in the folder root."""
    assert init(run).status == 0


def init(run: Run, *words: str, federation: str = "alliance") -> Ran:
    return run("init", "--federation", federation, "--dir", "hub", "--root-dir", "root", *ADDRESSES, *words)


def invite(run: Run, center: str, *words: str, legal_name: str = "Hospices") -> Ran:
    about = ("--legal-name", legal_name, "--country", "FR", "--kind", "public")
    return run("invite", center, *about, "--dir", "hub", *words)


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
