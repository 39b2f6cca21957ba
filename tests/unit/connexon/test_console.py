import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Console

from connexon import console
from connexon.console import require_writable
from connexon.errors import Misconfigured, NotFound
from connexon.identity import keys


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


def test_nobody_is_asked_where_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Misconfigured) as refused:
        console.confirm("Sign it?", code="roster.unconfirmed")
    assert refused.value.code == "roster.unconfirmed"
    assert "--yes" in refused.value.public


@pytest.mark.parametrize("width", [14, 30])
def test_no_name_in_a_table_is_cut(width: int) -> None:
    made = console.table("dataset", "rows", right=("rows",))
    made.add_row("differentiation_runs", "1,200")
    file = io.StringIO()
    Console(file=file, width=width).print(made)
    _, *lines = file.getvalue().splitlines()
    assert "".join(line.split()[0] for line in lines) == "differentiation_runs"


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the terminal be 20 columns wide; a console that was made while COLUMNS was another number keeps that one."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(console.OUT, "_width", None)


def test_what_is_set_in_stays_so_where_the_terminal_breaks_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    narrow(monkeypatch)
    console.OUT.print(console.indented("none of the [bold]donors[/] here", by=4))
    assert capfd.readouterr().out == "    none of the\n    donors here\n"


def test_one_line_stays_one_where_it_is_piped(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    narrow(monkeypatch)
    console.one_line("name  a sentence that is longer than that")
    assert capfd.readouterr().out == "name  a sentence that is longer than that\n"
    monkeypatch.setattr(console.OUT, "_force_terminal", True)
    console.one_line("name  a sentence that is longer than that")
    assert capfd.readouterr().out == "name  a sentence\n  that is longer\n  than that\n"


def test_no_bar_is_drawn_where_nobody_watches(capfd: pytest.CaptureFixture[str]) -> None:
    with console.bar() as progress:
        progress.add_task("Working", total=1)
    assert capfd.readouterr() == ("", "")


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


def test_a_suggested_command_names_the_folder_that_this_one_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def suggested(folder: Path) -> str:
        return console.typed("tool serve", folder, environment="TOOL_DIR")

    assert suggested(Path()) == "tool serve"
    assert suggested(Path("my hub")) == "tool serve --dir 'my hub'"
    monkeypatch.setenv("TOOL_DIR", "my hub")
    assert suggested(Path("my hub")) == "tool serve"
    assert suggested(Path("other")) == "tool serve --dir other"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_keeps_letters_that_the_encoding_lacks(encoding: str) -> None:
    program = "from connexon.console import print_json; print_json({'center': 'Zürich \u2713'})"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout.decode(encoding)) == {"center": "Zürich ✓"}


def test_help_is_broken_where_the_terminal_ends_and_not_where_the_program_does(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert _run(_app(), monkeypatch, "two", "--help") == 0
    assert "A sentence that is broken only for those who read the program." in capfd.readouterr().out


def _write(file: Path) -> None:
    file.write_text("new")


def _replace(file: Path) -> None:
    keys.replace_file(file, b"new")


@pytest.mark.parametrize(
    ("way", "place", "sentence"),
    [
        (_write, "missing/x.json", "missing/x.json cannot be written: there is no folder missing."),
        (_write, "folder", "folder is a folder; name a file."),
        (_write, "file/x.json", "file is a file, not a folder; name another place."),
        (_replace, "folder", "folder is a folder; name a file."),
        (_replace, "file/x.json", "file is a file, not a folder; name another place."),
        (require_writable, "missing/x.json", "missing/x.json cannot be written: there is no folder missing."),
        (require_writable, "folder", "folder is a folder; name a file."),
        (Path.read_bytes, "nothing", "There is no file nothing."),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(
    way: Callable[[Path], object],
    place: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    kinds = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
    with pytest.raises(kinds) as refusal:
        way(Path(place))
    assert _run(_app(refusal.value), monkeypatch, "one") == 1
    assert " ".join(capfd.readouterr().err.split()) == f"✗ {sentence} (file.unusable)"


def test_what_the_system_refuses_without_a_file_is_a_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run(_app(OSError(24, "Too many open files")), monkeypatch, "one") == 1
    assert capfd.readouterr().err == "✗ The system refused: Too many open files. (system.refused)\n"


def test_asking_whether_a_file_can_be_written_leaves_it_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("kept")
    require_writable(tmp_path / "there")
    require_writable(tmp_path / "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"there": "kept"}
