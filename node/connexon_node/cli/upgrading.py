"""Bringing the node's database to this version of Connexon."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from connexon.console import OUT
from connexon_node.folder import HERE, DirOption, NodeFolder


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("upgrade")(upgrade)


def upgrade(
    backed_up: Annotated[
        bool, typer.Option("--backed-up", help="A PostgreSQL was backed up; SQLite is copied by this command.")
    ] = False,
    directory: DirOption = HERE,
) -> None:
    """Bring the database to this version, after writing a copy of it. Not beside a node that serves.

    [bold]serve[/] does it by itself, without a copy.
    """
    from connexon.service import upgrading
    from connexon_node import settings
    from connexon_node.lock import only_one
    from connexon_node.state import MIGRATIONS

    folder = NodeFolder.find(directory)
    with only_one(folder):
        url = settings.load(folder).state_url
        former, copy = upgrading.upgrade(url, MIGRATIONS, folder.root, backed_up=backed_up)
    OUT.print(f"[green]✓[/] The tables, of version {escape(former)}, are those of this version now.", soft_wrap=True)
    if copy is not None:
        OUT.print(f"A copy as it was: {escape(str(copy))}", soft_wrap=True)
