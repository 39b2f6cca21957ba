"""No cell of a table that is written here is a formula to whoever opens it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.cli import models
from connexon.spreadsheet import inert, unguarded
from connexon_node.consent import drafts

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\n=1", "＝1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_what_begins_like_a_formula_is_guarded(text: str) -> None:
    assert inert(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-5.2", "+3", "1e-9", "-1.5E+3", -5.2, 3, None, True, "lyon", "a=b", "'quoted'", ""])
def test_numbers_and_other_words_stay(value: object) -> None:
    assert inert(value) == value


@given(st.text(alphabet="=+-@\t'1a", max_size=6).filter(lambda text: not text.startswith("'")))
def test_the_guard_comes_off_again(text: str) -> None:
    assert unguarded(str(inert(text))) == text


@pytest.mark.parametrize("text", FORMULAS)
def test_predictions_of_a_stranger_s_model_hold_no_formula(text: str) -> None:
    file = io.StringIO(newline="")
    models._write(file, {"donor": ["-3.5"], text: [text]})
    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [["donor", f"'{text}"], ["-3.5", f"'{text}"]]


@pytest.mark.parametrize("text", ["x\r=1", "x\r\n=1", "x\n=1", 'x"\r=1'])
def test_no_cell_begins_after_a_line_s_end_within_one(text: str) -> None:
    file = io.StringIO(newline="")
    models._write(file, {"donor": ["D-1"], "predicted": [text]})
    read = list(csv.reader(io.StringIO(file.getvalue(), newline="")))
    assert read[1:] == [["D-1", text.replace("\r\n", "\n").replace("\r", "\n")]]


def test_drafts_of_consents_hold_no_formula_and_are_read_back_as_they_were(tmp_path: Path) -> None:
    flags, out = tmp_path / "flags.csv", tmp_path / "drafts.csv"
    flags.write_text("donor_id\n=HYPERLINK(1)\n-D1\n")
    drafts.write_drafts(flags, out, country="FR")
    assert out.read_text().count("'=HYPERLINK(1)") == 1
    assert [unguarded(row["donor_id"]) for _, row in drafts.read_flags(out)] == ["=HYPERLINK(1)", "-D1"]
