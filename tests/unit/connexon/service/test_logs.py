"""The one formatter of logs: nothing that comes from elsewhere steers a terminal, forges a line or fills a disk."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.service.logs import LONGEST, Allowance, Bounded, LineFormatter, one_line


@pytest.fixture
def logged() -> tuple[logging.Logger, io.StringIO]:
    logger, stream = logging.Logger("connexon.test"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    handler.addFilter(Bounded(3, seconds=3_600))
    logger.addHandler(handler)
    return logger, stream


@given(st.text(max_size=3 * LONGEST))
def test_any_text_is_one_printable_line_of_bounded_length(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    # Ten characters of escape for one, at most, and the sentence about what was left out.
    assert len(line) <= 10 * LONGEST + 60


def test_what_is_printable_and_short_stays_as_it_is() -> None:
    assert one_line("Kyōto’s node: 3 donors") == "Kyōto’s node: 3 donors"


def test_a_message_cannot_forge_a_line(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = logged
    logger.warning("refused: %s", "x\n2026-01-01T00:00:00Z ERROR forged\x1b[2J")
    [line] = stream.getvalue().splitlines()
    assert line.endswith(r"WARNING refused: x\n2026-01-01T00:00:00Z ERROR forged\x1b[2J")


def test_a_traceback_cannot_forge_a_line_either(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = logged
    try:
        raise ValueError("x\n2026-01-01T00:00:00Z ERROR forged\x1b[2J")
    except ValueError:
        logger.exception("unexpected")
    first, *others = stream.getvalue().splitlines()
    assert "unexpected" in first
    assert others
    assert all(line.startswith("    | ") and line.isprintable() for line in others)


def test_a_record_that_does_not_fit_its_template_is_still_a_line(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = logged
    logger.warning("%d donors", "three")
    assert "'%d donors' (TypeError)" in stream.getvalue()


def test_what_is_alike_is_bounded_for_each_party(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = logged
    for number in range(100):
        logger.warning("noise %d", number, extra={"party": "lyon"})
    logger.warning("noise %d", 0, extra={"party": "kyoto"})
    logger.warning("something else", extra={"party": "lyon"})
    assert len(stream.getvalue().splitlines()) == 5


def test_what_was_left_out_is_told_when_the_window_is_over() -> None:
    allowance = Allowance(2, seconds=60)
    assert [allowance.take("a", at=at) for at in (0, 1, 2, 3, 61, 62)] == [
        *((True, 0), (True, 0), (False, 0), (False, 0)),
        *((True, 2), (True, 0)),
    ]
