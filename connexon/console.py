"""What the three command lines share: plain errors, machine-readable output, one look."""

from __future__ import annotations

import gc
import inspect
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from connexon import garbage
from connexon.errors import ConnexonError
from connexon.plain import plain

_F = TypeVar("_F", bound=Callable[..., Any])
OUT = Console(highlight=False)
"""For answers. Progress and problems go to ERR, so that output can be piped."""
ERR = Console(stderr=True, highlight=False)


def run(app: typer.Typer) -> NoReturn:
    """Run a command line; every error Connexon knows becomes a sentence with its code, and exit status 1."""
    garbage.look_less_often()
    try:
        app(standalone_mode=True)
    except ConnexonError as error:
        fail(error)
    except KeyboardInterrupt:
        ERR.print("Stopped.")
        sys.exit(130)
    finally:
        # The process ends: what it still holds need not be looked through once more.
        gc.freeze()
    sys.exit(0)


def fail(error: ConnexonError) -> NoReturn:
    """Print the sentence and the code, and leave with status 1. The cause goes to the log."""
    # The sentence may come from another machine; lines are its own, control characters are nobody's.
    sentence = "\n".join(plain(line) for line in error.public.split("\n"))
    ERR.print(f"[bold red]✗[/] {escape(sentence)} [dim]({escape(plain(error.code))})[/]")
    logging.getLogger("connexon").debug("caused by", exc_info=error)
    sys.exit(1)


def print_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


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
