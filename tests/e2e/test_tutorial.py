"""The tutorial's notebook, executed cell by cell against a running federation.

    CONNEXON_WRITE_TUTORIAL=1 python -m pytest tests/e2e/test_tutorial.py

keeps what this run shows in the notebook: do so after a change of the cells, or of how answers look.
"""

from __future__ import annotations

import os

import pytest

from docs.tools import notebook
from tests.e2e.conftest import Maker


def test_the_tutorial_runs_and_shows_what_it_has_recorded(
    make_federation: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = make_federation("lyon", "kyoto", private=True)
    for name, center in federation.centers.items():
        center.service.stop()
        center.set("release", minimum_donors=5, round_to=5)
        federation.start(name)
    federation.grant_exact(federation.researchers["ada"], "lyon", project="atlas")
    for variable, value in federation.researchers["ada"].environment.items():
        monkeypatch.setenv(variable, value)
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
