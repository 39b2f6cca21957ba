"""What the three command lines share: plain errors, machine-readable output, one look."""

from __future__ import annotations

import errno
import gc
import inspect
import io
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from connexon.errors import ConnexonError, Misconfigured
from connexon.safe_text import plain
from connexon.service import gc_tuning

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn
    from rich.table import Table
    from rich.text import Text

_F = TypeVar("_F", bound=Callable[..., Any])
OUT = Console(highlight=False)
"""For answers. Progress and problems go to ERR, so that output can be piped."""
ERR = Console(stderr=True, highlight=False)


def run(app: typer.Typer) -> NoReturn:
    """Run a command line; what Connexon knows and what the system refuses becomes a sentence, and exit status 1."""
    gc_tuning.look_less_often()
    _write_what_can_be_written()
    try:
        app(standalone_mode=True)
    except ConnexonError as error:
        fail(error)
    except OSError as error:
        fail(_refused_by_system(error))
    except KeyboardInterrupt:
        ERR.print("Stopped.")
        sys.exit(130)
    finally:
        # The process ends: what it still holds need not be looked through once more.
        gc.freeze()
    sys.exit(0)


def keep_private() -> None:
    """Let nobody but the owner read what this process writes: folders 0700, files 0600, those of libraries as well.

    For hub and node: SQLite makes its -wal and -shm files by itself, and reports and spools lie in many places.
    """
    os.umask(0o077)


def fail(error: ConnexonError) -> NoReturn:
    """Print the sentence and the code, and leave with status 1. The cause goes to the log."""
    # The sentence may come from another machine; lines are its own, control characters are nobody's.
    sentence = "\n".join(plain(line) for line in error.public.split("\n"))
    ERR.print(f"[bold red]✗[/] {escape(sentence)} [dim]({escape(plain(error.code))})[/]")
    logging.getLogger("connexon").debug("caused by", exc_info=error)
    sys.exit(1)


def _write_what_can_be_written() -> None:
    """A sign that the terminal's encoding lacks becomes a question mark: an answer must not die of a tick."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def require_writable(file: Path) -> None:
    """Raise OSError where `file` cannot be written: asked before a step that is not taken back. Leaves no file."""
    if file.exists() and not (file.is_file() or file.is_dir()):
        return  # A pipe or a device: opening it would already be heard at its other end.
    was_there = file.exists()
    file.open("a").close()
    if not was_there:
        file.unlink()


def _refused_by_system(error: OSError) -> Misconfigured:
    # Of a file that is put in another's place, the second name is the one that was asked for.
    name = error.filename2 or error.filename
    words = error.strerror or str(error) or type(error).__name__
    if isinstance(name, str | bytes | os.PathLike):
        refused = Misconfigured(_about_file(Path(os.fsdecode(name)), error.errno, words), code="file.unusable")
    else:
        refused = Misconfigured(f"The system refused: {words}.", code="system.refused")
    refused.__cause__ = error
    return refused


def _about_file(file: Path, number: int | None, words: str) -> str:
    above = next((folder for folder in (file, *file.parents) if folder.exists() and not folder.is_dir()), None)
    if number == errno.ENOENT and not file.parent.exists():
        return f"{file} cannot be written: there is no folder {file.parent}."
    if number == errno.ENOENT:
        return f"There is no file {file}."
    if number == errno.EISDIR:
        return f"{file} is a folder; name a file."
    if number in (errno.ENOTDIR, errno.EEXIST) and above is not None:
        return f"{above} is a file, not a folder; name another place."
    return f"{file} cannot be used: {words}."


def typed(command: str, directory: Path, *, environment: str) -> str:
    """A command to suggest, as it can be typed where this one was: with its --dir, unless `environment` names that."""
    if directory == Path() or os.environ.get(environment) == str(directory):
        return command
    return f"{command} --dir {shlex.quote(str(directory))}"


def confirm(question: str, *, code: str) -> None:
    """Ask, and leave without a yes. Raises Misconfigured with `code` where nobody is there to be asked."""
    if not sys.stdin.isatty():
        raise Misconfigured("Nobody is here to confirm; add --yes to do it without asking.", code=code)
    typer.confirm(question, abort=True, err=True)


def table(*headings: str, right: Collection[str] = ()) -> Table:
    """A table without lines, the columns of `right` set to the right.

    What is too long is broken and never cut: a name that ends in an ellipsis cannot be typed.
    """
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return made


def indented(markup: str, by: int = 2, *, first: int | None = None) -> Text:
    """A text whose every line is set in, also where the terminal breaks it; the first line by `first`, where given."""
    from rich.text import Text

    lines = Text.from_markup(markup).wrap(OUT, max(OUT.width - by, 10))
    for line in lines:
        line.rstrip()
    begins = [" " * (by if first is None else first), *[" " * by] * len(lines)]
    return Text("\n").join(Text(begin) + line for begin, line in zip(begins, lines, strict=False))


def one_line(markup: str) -> None:
    """Print one line to OUT. On a terminal it is broken at words, and what follows set in; elsewhere it stays one."""
    if OUT.is_terminal:
        OUT.print(indented(markup, first=0))
    else:
        OUT.print(markup, soft_wrap=True)


def bar(*columns: ProgressColumn) -> Progress:
    """A progress bar on ERR that leaves nothing behind; none where ERR is no terminal."""
    from rich.progress import Progress

    return Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal)


def counted(number: int, noun: str) -> str:
    """A number and what it counts: 1 donor, 1,200 donors."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_json(value: Any) -> None:
    """Write one JSON document to standard output; letters that its encoding lacks are escaped, so that none is lost."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=str)
    sys.stdout.write(text + "\n")


class _App(typer.Typer):
    """A command line whose help fills the terminal: in a docstring, only an empty line begins a new paragraph."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[_F], _F]:
        """Register a function with its docstring as help; options as of typer."""

        def register(function: _F) -> _F:
            help_text = "\n\n".join(
                " ".join(paragraph.split("\n")) for paragraph in (inspect.getdoc(function) or "").split("\n\n")
            )
            return super(_App, self).command(name, **{"help": help_text, **options})(function)

        return register


def new_app(name: str, help_text: str, **options: Any) -> typer.Typer:
    """A command line that shows its help when called bare and hides Python's tracebacks from users."""
    return _App(
        name=name,
        help=help_text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        suggest_commands=False,  # click suggests the nearest command by itself
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


def version_option(callback_text: str) -> Callable[[bool], None]:
    """A callback for --version that prints `callback_text` and leaves."""

    def show(value: bool) -> None:
        if value:
            typer.echo(callback_text)
            raise typer.Exit

    return show
