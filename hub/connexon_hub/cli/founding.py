"""init and serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from connexon.console import ERR, OUT
from connexon_hub.folder import HERE, DirOption, suggested


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(serve)


def init(
    federation: Annotated[str, typer.Option(help="Short name of the federation: lower-case letters, digits, hyphens.")],
    root_dir: Annotated[Path, typer.Option(help="New folder for the root key; not in the hub's folder.")],
    address: Annotated[str, typer.Option(help="HOST:PORT where researchers and joining centers reach the hub.")],
    link_address: Annotated[str, typer.Option(help="HOST:PORT where the centers' nodes reach the hub.")],
    directory: DirOption = HERE,
    listen: Annotated[str, typer.Option(help="What the public services bind to; the port of --address on all.")] = "",
    link_listen: Annotated[str, typer.Option(help="What the link binds to; the port of --link-address on all.")] = "",
    state_url: Annotated[str, typer.Option(help="Database, such as postgresql://...; SQLite by default.")] = "",
    policies: Annotated[Path | None, typer.Option(help="The policy baseline; what came with Connexon.")] = None,
) -> None:
    """Found a federation: the hub's folder, its certificate authority, the root key, and the first roster.

    The root key signs who is a member. It is made in a folder of its own, which you then take off this machine:
    whoever takes over the hub can then delay questions, but admit nobody.
    """
    from connexon_hub.membership.founding import Plan, found

    plan = Plan(
        federation=federation,
        root_folder=root_dir,
        address=address,
        link_address=link_address,
        listen=listen,
        link_listen=link_listen,
        state_url=state_url,
        policies=policies,
    )
    founded = found(directory, plan)
    OUT.print(f"Founded [bold]{federation}[/]: the hub in {founded.folder.root}, the root key in {root_dir.resolve()}.")
    OUT.print(f"Fingerprint of the root key:\n  [bold]{founded.fingerprint}[/]")
    OUT.print(
        "\nNow:\n"
        f"1. Back up {founded.folder.root} (with keys/ and the database) and, apart from it, {root_dir.resolve()}.\n"
        f"2. Move {root_dir.resolve()} off this machine, to one without a network if you can.\n"
        f"3. {escape(suggested('serve', directory))}\n"
        f"4. {escape(suggested('invite CENTER', directory))}, for each center.",
        soft_wrap=True,
    )


def serve(directory: DirOption = HERE) -> None:
    """Serve the federation until stopped. What was accepted survives any end, also a power cut.

    Prints a line that begins with "ready" once it serves, and writes its process and addresses to serve.json.
    """
    from connexon_hub.folder import HubFolder
    from connexon_hub.serving import serve as run_server

    run_server(HubFolder.find(directory))
    ERR.print("Stopped.")
