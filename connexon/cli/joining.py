"""Becoming somebody: keygen, login, whoami, defaults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connexon.console import ERR, OUT, print_json

if TYPE_CHECKING:
    from connexon.client.home import Home
    from connexon.identity.credential import Researcher

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document; its shape is in docs/json.md.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (keygen, login, whoami, defaults):
        app.command()(command)


def keygen(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the request to this file instead of printing it.")
    ] = None,
) -> None:
    """Make your key and print the request for accreditation.

    Send the request to your home center's steward. It holds no secret: the key itself stays in your own folder
    (CONNEXON_HOME, else ~/.config/connexon). Run again to print the request of the same key.
    """
    import json

    from connexon.client.home import Home, accreditation_request
    from connexon.identity.keys import fingerprint, readable

    home = Home()
    key, made = home.make_key()
    request = accreditation_request(key)
    if out is None:
        print_json(request)
    else:
        out.write_text(json.dumps(request, indent=2) + "\n", encoding="utf-8")
    where = f"the request in {out}" if out else "the request above"
    ERR.print(f"{'Made a key' if made else 'Using your key'} in {home.folder}.", soft_wrap=True, markup=False)
    ERR.print("Its fingerprint, to read out to the steward who asks for it:")
    typer.echo(f"  {readable(fingerprint(key.public))}", err=True)
    ERR.print(
        f"Next: send {where} to your center's steward, then run  connexon login FILE", markup=False, soft_wrap=True
    )


def login(
    file: Annotated[Path, typer.Argument(help="The login file that your center's steward sent you.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget the federation this folder is logged in to now.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Log in with the file from your steward. It is checked with the hub before it is kept."""
    from connexon.client.connecting import log_in
    from connexon.client.home import Home, Login, LoginRefused

    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LoginRefused(f"{file} cannot be read.", code="login.unreadable") from error
    home = Home()
    _show(log_in(Login.from_text(text), home, replace=replace), home, as_json=as_json)
    if not as_json:
        ERR.print("Next: see what there is with  connexon catalog --purpose health", markup=False)


def whoami(as_json: JsonOption = False) -> None:
    """Say who you are to the federation, and until when."""
    from connexon.client.connecting import connect
    from connexon.client.home import Home

    home = Home()
    with connect(home) as network:
        _show(network.researcher, home, as_json=as_json)


def defaults(
    purpose: Annotated[str | None, typer.Option("--purpose", "-p", help="Purpose to use where none is given.")] = None,
    project: Annotated[str | None, typer.Option("--project", help="Project to use where none is given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show or set the purpose and project to use where none is given. An empty text unsets one."""
    from connexon.client.home import Home
    from connexon.query.purpose import parse_purpose

    if purpose:
        parse_purpose(purpose)
    home = Home()
    kept = (
        home.defaults() if purpose is None and project is None else home.keep_defaults(purpose=purpose, project=project)
    )
    if as_json:
        print_json({"schema": "connexon.defaults/1", "purpose": kept.purpose, "project": kept.project})
        return
    OUT.print(f"purpose  {kept.purpose or '(none)'}\nproject  {kept.project or '(none)'}", markup=False)


def _show(researcher: Researcher, home: Home, *, as_json: bool) -> None:
    from connexon.clock import to_text
    from connexon.identity.keys import fingerprint, readable
    from connexon.safe_text import plain

    if as_json:
        print_json(_document(researcher, home))
        return
    login = home.login()
    lines = [
        ("you are", f"{plain(researcher.name)} ({researcher.id}), {plain(researcher.role)}".rstrip(", ")),
        ("federation", login.federation),
        ("hub", login.hub_address),
        ("until", to_text(researcher.expires_at_ms)),
        ("your key", readable(fingerprint(researcher.key))),
        *(("granted", plain(f"{one.type}={one.value}")) for one in researcher.grants),
    ]
    for name, text in lines:
        OUT.print(f"{name:<11} {text}", markup=False, soft_wrap=True)


def _document(researcher: Researcher, home: Home) -> dict[str, Any]:
    from connexon.client.answer import moment
    from connexon.identity.keys import fingerprint

    login = home.login()
    return {
        "schema": "connexon.whoami/1",
        "id": researcher.id,
        "name": researcher.name,
        "role": researcher.role,
        "center": researcher.center,
        "country": researcher.country,
        "organisation_kind": researcher.organisation_kind.value,
        "federation": login.federation,
        "hub_address": login.hub_address,
        "expires_at": moment(researcher.expires_at_ms),
        "key_fingerprint": fingerprint(researcher.key).hex(),
        "grants": [
            {
                "type": one.type,
                "value": one.value,
                "source": one.source,
                "by": one.by,
                "expires_at": moment(one.expires_ms),
            }
            for one in researcher.grants
        ],
    }
