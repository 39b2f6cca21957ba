"""Names that people decide by: seen as they are, or refused."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.identity.countries import CODES
from connexon.identity.visible_text import LONGEST_NAME, UNSEEN, escaped, wrong_with


@pytest.mark.parametrize(
    "name",
    [
        "Hospices Civils de Lyon",
        "Hôpital Saint-Éloi (CHU)",
        "京都大学 iPS細胞研究所",
        "Bệnh viện Nguyễn Tri Phương",
        "भारतीय विज्ञान संस्थान",
        "จุฬาลงกรณ์มหาวิทยาลัย",
        "مركز الخلايا الجذعية",
        "3B's",
    ],
)
def test_names_of_the_world_are_taken(name: str) -> None:
    assert wrong_with(unicodedata.normalize("NFC", name)) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("x" * (LONGEST_NAME + 1), "has 201 characters; at most 200 fit"),
        ("Two\nlines", "not seen"),
        ("\x1b[8m", "not seen"),
        ("Lyon\u202etsoh", "not seen"),
        ("Ly\u200bon", "not seen"),
        ("Ly\u00adon", "not seen"),
        ("Lyon\u00a0Sud", "not seen"),
        ("Lyon\u2003Sud", "not seen"),
        ("\u3164", "not seen"),
        ("\u2800\u2800", "not seen"),
        ("a\ufe0f", "not seen"),
        (" Lyon", "a space too many"),
        ("Lyon  Sud", "a space too many"),
        ("e\u0301cole", "NFC"),
        ("...", "neither a letter nor a digit"),
        ("\u0488Lyon", "combining marks"),
        ("1\u0488", "combining marks"),
        ("Ly\u0488\u0489\u0488\u0489on", "combining marks"),
    ],
)
def test_names_that_hide_something_are_not(name: str, reason: str) -> None:
    assert reason in wrong_with(name)


@given(st.text(alphabet=st.characters(codec=None) | st.sampled_from(sorted(UNSEEN)), max_size=60))
def test_what_is_written_out_is_seen_and_tells_every_text_from_every_other(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert UNSEEN.isdisjoint(shown)
    assert _read(shown) == text


def _read(shown: str) -> str:
    text, place = [], 0
    while place < len(shown):
        if shown[place] != "\\":
            text.append(shown[place])
            place += 1
            continue
        length = {"\\": 2, "u": 6, "U": 10}[shown[place + 1]]
        text.append("\\" if length == 2 else chr(int(shown[place + 2 : place + length], 16)))
        place += length
    return "".join(text)


def test_countries_are_those_of_iso_3166() -> None:
    assert len(CODES) == 249
    assert {"FR", "JP", "US", "DE", "GB", "TW"} <= CODES
    assert CODES.isdisjoint({"XX", "UK", "EU", "AA", "ZZ", ""})
