import json

import pytest
import typer

from connexon import console
from connexon.errors import NotFound


def _app(error: Exception | None = None) -> typer.Typer:
    app = console.new_app("tool", "A tool.")

    @app.command()
    def one() -> None:
        if error is not None:
            raise error
        console.print_json({"center": "Zürich"})

    @app.command()
    def two() -> None:
        """Do two.

        A sentence that is broken
        only for those who read the program.
        """

    return app


def _run(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["tool", *arguments])
    with pytest.raises(SystemExit) as left:
        console.run(app)
    return int(left.value.code or 0)


def test_an_error_becomes_its_sentence_and_its_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run(_app(NotFound("No [such] center.", code="center.unknown")), monkeypatch, "one") == 1
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err == "✗ No [such] center. (center.unknown)\n"


def test_a_sentence_from_another_machine_does_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    error = NotFound("Gone.\n\x1b[2J\x1b]0;owned\x07\r", code="a\x1b[31m")
    assert _run(_app(error), monkeypatch, "one") == 1
    shown = capfd.readouterr().err
    assert "Gone.\n" in shown
    assert not {"\x1b", "\x07", "\r"} & set(shown)


def test_an_error_that_nobody_foresaw_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tool", "one"])
    with pytest.raises(ZeroDivisionError):
        console.run(_app(ZeroDivisionError()))


def test_json_is_whole_and_keeps_letters(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(_app(), monkeypatch, "one") == 0
    shown = capfd.readouterr().out
    assert json.loads(shown) == {"center": "Zürich"}
    assert "Zürich" in shown


def test_help_is_broken_where_the_terminal_ends_and_not_where_the_program_does(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert _run(_app(), monkeypatch, "two", "--help") == 0
    assert "A sentence that is broken only for those who read the program." in capfd.readouterr().out
