"""invite, members, suspend, reinstate, revoke."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.console import ERR, OUT, confirm, indented, print_json, require_writable, table
from connexon.identity.roster import OrganisationKind, RosterPin
from connexon.safe_text import plain
from connexon_hub.cli import completing
from connexon_hub.folder import HERE, DirOption, suggested

if TYPE_CHECKING:
    from connexon_hub.membership.members import HubMember

CenterArgument = Annotated[
    str,
    typer.Argument(help="The center's id, for example lyon.", show_default=False, autocompletion=completing.centers),
]
BecauseOption = Annotated[str, typer.Option("--because", help="Why; for `members` and the record, not for the center.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (invite, members, suspend, reinstate, revoke):
        app.command()(command)


def invite(
    center: CenterArgument,
    legal_name: Annotated[str, typer.Option(help="The center's legal name.")],
    country: Annotated[str, typer.Option(help="ISO 3166-1 alpha-2, for example FR.")],
    kind: Annotated[OrganisationKind, typer.Option(help="What kind of organisation it is.")],
    directory: DirOption = HERE,
    valid_days: Annotated[int, typer.Option(min=1, max=90, help="How long the code can be used.")] = 7,
    out: Annotated[Path | None, typer.Option(help="Write the code to this file instead.")] = None,
    replace_keys: Annotated[
        bool, typer.Option("--replace-keys", help="Let a center that has joined join anew with new keys.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a one-time invitation code for a center, and void its older ones.

    Send the code to the center's steward by a way you trust: it tells the node whom to believe. The steward types
    `connexon-node join CODE`; afterwards publish a roster with `roster update`.
    """
    from connexon.clock import to_text
    from connexon.identity import keys
    from connexon_hub.cli.context import opened
    from connexon_hub.membership.invitations import invite as make

    if out is not None:
        # Before the invitation is made: it voids the older ones.
        out.parent.mkdir(parents=True, exist_ok=True)
        require_writable(out)
    with opened(directory) as hub:
        code, expires_ms = make(
            hub.folder,
            hub.settings,
            hub.members,
            roster=RosterPin.of(hub.rosters.in_force()[1]),
            center=keys.center_id(center),
            legal_name=legal_name,
            country=country,
            kind=kind,
            valid_days=valid_days,
            replace_keys=replace_keys,
        )
    if out is not None:
        keys.replace_file(out, code.encode() + b"\n", private=True)
        ERR.print(f"The code for {center} is in {out}, valid until {to_text(expires_ms)}.")
    if as_json:
        print_json({"center": center, "code": None if out else code, "expires_at_ms": expires_ms})
    elif out is None:
        typer.echo(code)


def members(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Every center that was ever invited, with its status and the fingerprints of its keys.

    invited: has a code. joined: has brought its keys and waits for a signed roster. active: takes part.
    """
    from connexon_hub.cli.context import opened

    with opened(directory) as hub:
        found = hub.members.all()
    if as_json:
        print_json({"members": [_document(member) for member in found]})
        return
    if not found:
        OUT.print(
            f"No center was invited yet; use  {suggested('invite CENTER', directory)}", markup=False, soft_wrap=True
        )
        return
    listed = table("center", "status", "legal name", "country", "kind")
    for member in found:
        status = member.status.value + (f" ({member.because})" if member.because else "")
        texts = (status, member.legal_name, member.country)
        listed.add_row(member.center, *(escape(plain(text)) for text in texts), member.organisation_kind.value)
    OUT.print(listed)
    _print_fingerprints(found)
    if any(member.status.value == "joined" for member in found):
        OUT.print(
            f"\nJoined centers become active with the next roster:  {_update(directory)}", markup=False, soft_wrap=True
        )


def _print_fingerprints(found: list[HubMember]) -> None:
    """As `connexon-node join` shows them to the steward, who reads them out."""
    joined = [member for member in map(_document, found) if member["answering_key"] is not None]
    if joined:
        OUT.print("\nFingerprints, to compare with what each steward reads out:")
    for member in joined:
        OUT.print(f"[bold]{member['center']}[/]")
        for use, name in (("answers", "answering_key"), ("accredits", "accrediting_key")):
            OUT.print(indented(f"{use:<9} {member[name]}", by=1))


def suspend(center: CenterArgument, directory: DirOption = HERE, because: BecauseOption = "") -> None:
    """Shut a center out for a while, at once: its session ends, it gets no questions and its researchers ask none.

    The next roster says so to the other centers; publish one soon.
    """
    from connexon.identity import keys
    from connexon_hub.cli.context import opened

    with opened(directory) as hub:
        hub.members.suspend(keys.center_id(center), because)
    ERR.print(
        f"{center} is suspended at the hub. Tell the other centers:  {_update(directory)}", markup=False, soft_wrap=True
    )


def reinstate(center: CenterArgument, directory: DirOption = HERE) -> None:
    """Let a suspended center in again. Where a roster said it was suspended, it waits for the next one."""
    from connexon.identity import keys
    from connexon_hub.cli.context import opened

    with opened(directory) as hub:
        status = hub.members.reinstate(keys.center_id(center), hub.rosters.in_force()[0])
    waits = "" if status.value == "active" else f" It takes part with the next roster:  {_update(directory)}"
    ERR.print(f"{center} is {status.value}.{waits}", markup=False, soft_wrap=True)


def revoke(
    center: CenterArgument,
    directory: DirOption = HERE,
    because: BecauseOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Shut a center out for good: its session ends at once, its certificates and invitations no longer count."""
    from connexon.identity import keys
    from connexon_hub.cli.context import opened

    name = keys.center_id(center)
    if not yes:
        confirm(f"Revoke {name} for good?", code="membership.unconfirmed")
    with opened(directory) as hub:
        hub.members.revoke(name, because)
    ERR.print(
        f"{center} is revoked at the hub. Tell the other centers:  {_update(directory)}", markup=False, soft_wrap=True
    )


def _update(directory: Path) -> str:
    return suggested("roster update --root-dir ROOT", directory)


def _document(member: HubMember) -> dict[str, Any]:
    from connexon.identity import keys

    return {
        "center": member.center,
        "status": member.status.value,
        "because": member.because,
        "legal_name": member.legal_name,
        "country": member.country,
        "kind": member.organisation_kind.value,
        "joined_at_ms": member.joined_ms,
        "accrediting_key": _fingerprint(keys, member.accrediting_key),
        "answering_key": _fingerprint(keys, member.answering_key),
    }


def _fingerprint(identity: Any, key: bytes | None) -> str | None:
    return None if key is None else identity.readable(identity.fingerprint(key))
