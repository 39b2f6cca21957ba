"""The tutorial's notebook, executed cell by cell against a running federation.

    CONNEXON_WRITE_TUTORIAL=1 python -m pytest tests/e2e/test_tutorial.py

keeps what this run shows in the notebook: do so after a change of the cells, or of how answers look.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.local.federation import LocalFederation, Researcher
from docs.tools import notebook
from tests.support.in_process import commands_in_process


def _founded(federation: LocalFederation) -> Researcher:
    """Two centers with the usual rules, of which Lyon grants exact numbers, and the researcher ada."""
    with commands_in_process():
        federation.make_hub()
        for seed, name in enumerate(("lyon", "kyoto")):
            center = federation.join_center(name)
            center.set("privacy", tables=0)
            center.command("ontology", "add", "--demo")
            center.command("sample", "--donors", "120", "--seed", str(seed), "--only", "bank", "--import")
        federation.sign_roster()
        federation.start()
        ada = federation.accredit("ada", home="lyon")
        federation.grant_exact(ada, "lyon", project="atlas")
    return ada


@pytest.mark.timeout(400)
def test_the_tutorial_runs_and_shows_what_it_has_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalFederation(tmp_path / "federation") as federation:
        ada = _founded(federation)
        monkeypatch.setenv("CONNEXON_HOME", str(ada.home))
        recorded = notebook.load(notebook.TUTORIAL)
        shown = notebook.run(recorded)
    page = notebook.to_markdown(shown)
    assert page.count("<table") >= 6
    assert "Center lyon - released" in page
    assert "budget.spent" not in page
    assert "release.not_granted" in _html(shown, -2)
    if os.environ.get("CONNEXON_WRITE_TUTORIAL"):
        notebook.save(shown, notebook.TUTORIAL)
    else:
        assert notebook.kinds(recorded) == notebook.kinds(shown), (
            "write it again:  CONNEXON_WRITE_TUTORIAL=1 python -m pytest tests/e2e/test_tutorial.py"
        )


def _html(shown: notebook.Notebook, position: int) -> str:
    code = [cell for cell in shown["cells"] if cell["cell_type"] == "code"]
    return "".join(code[position]["outputs"][0]["data"]["text/html"])
