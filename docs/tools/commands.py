"""The command reference: every command of the three command lines, from the code that runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import typer.main

import connexon.cli
import connexon_hub.cli
import connexon_node.cli

HEAD = """\
# Command reference

Made from the code by `make docs`. `--help` after any command shows the same.

The exit status is 0 when the command succeeded, 1 when something was refused or is wrong, and 2 when the command was
typed wrongly. `connexon` also ends with 3 when some centers have not answered yet.
"""


def programs() -> dict[str, click.Command]:
    """The three command lines by name."""
    return {
        "connexon": typer.main.get_command(connexon.cli.app),
        "connexon-hub": typer.main.get_command(connexon_hub.cli.app),
        "connexon-node": typer.main.get_command(connexon_node.cli.app),
    }


def page() -> str:
    """The page's Markdown."""
    parts = [HEAD]
    for name, program in programs().items():
        context = click.Context(program, info_name=name)
        parts += [f"## {name}\n", f"{_prose(program.help)}\n"]
        for path, command, inner in _leaves(program, context):
            parts += [f"### {path}\n", f"{_prose(command.help)}\n", *_usage(path, command, inner)]
    return "\n".join(parts)


def _leaves(group: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _leaves(command, inner)
        else:
            yield inner.command_path, command, inner


def _usage(path: str, command: click.Command, context: click.Context) -> Iterator[str]:
    words = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{path} {words}\n```\n"
    rows = [row for parameter in command.params for row in _row(parameter, context)]
    if rows:
        yield "| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"


def _row(parameter: click.Parameter, context: click.Context) -> Iterator[str]:
    if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
        return
    metavar = parameter.make_metavar(context)
    named = isinstance(parameter, click.Option)
    names = ", ".join([*parameter.opts, *parameter.secondary_opts]) if named else metavar.strip("[]")
    value = f" {metavar}" if named and not getattr(parameter, "is_flag", False) else ""
    help_text = _prose(getattr(parameter, "help", "") or "").replace("\n", " ")
    notes = [
        *(["required"] if parameter.required and named else []),
        *([f"default: {_default(parameter)}"] if _default(parameter) else []),
    ]
    ending = f" ({'; '.join(notes)})" if notes else ""
    yield f"| `{names}{value}` | {help_text}{ending} |".replace("\\", "\\\\").replace("a|b", "a\\|b")


def _default(parameter: click.Parameter) -> str:
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    default = parameter.default
    plain = isinstance(default, int | float | str) and not isinstance(default, bool) and default != ""
    return f"`{default}`" if shown and plain else ""


def _prose(text: str | None) -> str:
    """Help as Markdown: Rich's [bold]word[/] becomes code."""
    cleaned = re.sub(r"\[bold\](.*?)\[/(?:bold)?\]", r"`\1`", text or "")
    paragraphs = (" ".join(part.split()) for part in cleaned.replace("\\[", "[").split("\n\n"))
    return "\n\n".join(part.replace("|", "\\|").replace("<", "&lt;") for part in paragraphs)
