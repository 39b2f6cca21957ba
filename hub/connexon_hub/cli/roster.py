"""roster show, draft, sign, publish, update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.console import ERR, OUT, confirm, counted, indented, new_app, print_json
from connexon.safe_text import plain
from connexon_hub.folder import HERE, DirOption
from connexon_hub.membership.roster_changes import Section

if TYPE_CHECKING:
    from connexon.identity.roster import Roster
    from connexon.v1 import roster_pb2
    from connexon_hub.cli.context import OpenHub

app = new_app(
    "roster",
    "The one document, signed with the root key, that says who is a member: "
    "[bold]draft[/] it at the hub, [bold]sign[/] it where the root key is, [bold]publish[/] it at the hub. "
    "[bold]update[/] does all three where both folders are at hand.",
)
RootOption = Annotated[Path, typer.Option("--root-dir", help="The folder of the root key.", show_default=False)]
PoliciesOption = Annotated[
    Path | None, typer.Option(help="A new policy baseline; without it, the one in force stays.", show_default=False)
]
ShippedOption = Annotated[
    bool, typer.Option("--shipped-policies", help="Take the policy baseline that came with this version.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
FileArgument = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, show_default=False, help="What the step before has written.")
]


@app.command()
def show(
    directory: DirOption = HERE, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """The roster in force."""
    from connexon_hub.cli.context import opened

    with opened(directory) as hub:
        content, _ = hub.rosters.in_force()
    if as_json:
        print_json(_document(content))
        return
    from connexon.clock import to_text

    OUT.print(f"Roster {content.serial} of {content.federation}, until {to_text(content.expires_at_ms)}")
    OUT.print(f"{len(content.policy_files)} policy files, lowest protocol {content.lowest_protocol}")
    for member in _document(content)["members"]:
        OUT.print(f"\n[bold]{member['center']}[/] {member['status']}: {escape(plain(member['legal_name']))}")
        OUT.print(f"  {escape(plain(member['country']))}, {member['kind']}")
        for use in ("accrediting", "answering"):
            for fingerprint in member[f"{use}_keys"]:
                OUT.print(indented(f"{use} {fingerprint}"))


@app.command()
def draft(
    out: Annotated[Path, typer.Option(help="Where to write the draft.")],
    directory: DirOption = HERE,
    policies: PoliciesOption = None,
    shipped_policies: ShippedOption = False,
    after: Annotated[
        int, typer.Option(min=0, max=2**62, help="A serial that the root key has signed, and that never came here.")
    ] = 0,
) -> None:
    """Write the next roster, unsigned: the members as they stand, and the policy baseline."""
    from connexon.identity import keys as identity_keys
    from connexon.identity import roster
    from connexon_hub.cli.context import opened

    with opened(directory) as hub:
        content = _draft(hub, policies, shipped_policies=shipped_policies, after=after)
    identity_keys.replace_file(out, roster.to_text_file(roster.unsigned(content)).encode())
    command = f"connexon-hub roster sign {out.name} --root-dir ROOT"
    ERR.print(f"Draft {content.serial} is in {out}. Where the root key is:  {escape(command)}", soft_wrap=True)


@app.command()
def sign(
    file: FileArgument,
    root_dir: RootOption,
    out: Annotated[Path | None, typer.Option(help="Where to write the signed roster; FILE.signed.json.")] = None,
    yes: YesOption = False,
) -> None:
    """Sign a draft with the root key. Needs neither the hub's folder nor a network.

    Shows what changes since the last roster signed here: keys first, then what else changes whom you trust, then every
    rule in full. Compare the fingerprints of new keys with the centers, by telephone: from now on whoever holds those
    keys speaks for the center.
    """
    from connexon.identity import keys as identity_keys
    from connexon.identity import roster

    content = roster.peek(_read(file))
    signed = _sign(content, root_dir, yes=yes)
    target = out or file.with_name(f"{file.stem}.signed.json")
    identity_keys.replace_file(target, roster.to_text_file(signed).encode())
    command = f"connexon-hub roster publish {target.name} --dir HUB"
    ERR.print(f"Signed roster {content.serial} is in {target}. At the hub:  {escape(command)}", soft_wrap=True)


@app.command()
def publish(file: FileArgument, directory: DirOption = HERE) -> None:
    """Bring a signed roster into force. A serving hub sends it to every attached node within seconds."""
    from connexon.identity.roster import RosterRefused
    from connexon_hub.cli.context import opened

    signed = _read(file)
    if not signed.root_key and not signed.signature:
        raise RosterRefused(
            f"{file} is not signed yet. Where the root key is:  connexon-hub roster sign {file.name} --root-dir ROOT",
            code="roster.unsigned",
        )
    with opened(directory) as hub:
        content = hub.rosters.publish(signed)
    _say_published(content)


@app.command()
def update(
    root_dir: RootOption,
    directory: DirOption = HERE,
    policies: PoliciesOption = None,
    shipped_policies: ShippedOption = False,
    yes: YesOption = False,
) -> None:
    """Draft, sign and publish in one, where the root key is at hand."""
    from connexon_hub.cli.context import opened
    from connexon_hub.membership.roster import RootFolder

    last = RootFolder(root_dir.resolve()).last()
    with opened(directory) as hub:
        content = _draft(hub, policies, shipped_policies=shipped_policies, after=last.serial if last else 0)
        hub.rosters.publish(_sign(content, root_dir, yes=yes))
    _say_published(content)


def _read(file: Path) -> roster_pb2.SignedRoster:
    from connexon.identity import roster

    # What is no text is no roster either, and is refused as such.
    return roster.from_text_file(file.read_text(errors="replace"))


def _draft(hub: OpenHub, policies: Path | None, *, shipped_policies: bool, after: int) -> Roster:
    from connexon_hub.membership import authority

    return hub.rosters.draft(
        federation=hub.settings.federation.name,
        authority=authority.load(hub.folder).der,
        days=hub.settings.roster_days,
        policy_files=_baseline(hub, policies, shipped_policies=shipped_policies),
        after=after,
    )


def _baseline(hub: OpenHub, policies: Path | None, *, shipped_policies: bool) -> Mapping[str, bytes]:
    from connexon.service.policy_files import shipped
    from connexon_hub.membership.roster import policy_files

    if policies is not None:
        return policy_files(policies)
    in_force, came_along = hub.rosters.in_force()[0].policy_files, policy_files(shipped())
    if in_force == came_along or shipped_policies:
        return came_along
    ERR.print("The policy baseline in force stays. Another came with this version: --shipped-policies takes it.")
    return in_force


def _sign(content: Roster, root_dir: Path, *, yes: bool) -> roster_pb2.SignedRoster:
    from connexon_hub.membership.roster import RootFolder
    from connexon_hub.membership.roster_changes import changes, summary

    root = RootFolder(root_dir.resolve())
    last = root.require_signable(content)
    sections = changes(last, content)
    for line in _to_show(last, content, sections):
        # Not by way of rich, which would break and cut lines by a width that may be wrong: a terminal loses nothing.
        typer.echo(line, err=True)
    if not yes:
        confirm(f"{summary(sections)}. Sign it?", code="roster.unconfirmed")
    return root.sign(content)


def _to_show(last: Roster | None, content: Roster, sections: Sequence[Section]) -> Iterator[str]:
    from connexon.clock import DAY, to_text

    before = f"; roster {last.serial} was signed last" if last else ""
    days = (content.expires_at_ms - content.issued_at_ms) / DAY
    yield f"Roster {content.serial} of {content.federation}{before}"
    yield f"Believed until {to_text(content.expires_at_ms)}, for {days:,.1f} days"
    for section in sections or [Section("Nothing changes but the dates", ())]:
        yield f"\n• {section.heading}"
        yield from section.lines
    yield ""


def _say_published(content: Roster) -> None:
    ERR.print(f"Roster {content.serial} is in force with {counted(len(content.active_members), 'active center')}.")


def _document(content: Roster) -> dict[str, Any]:
    from connexon.identity import keys as identity_keys

    def fingerprints(keys: tuple[bytes, ...]) -> list[str]:
        return [identity_keys.readable(identity_keys.fingerprint(key)) for key in keys]

    return {
        "federation": content.federation,
        "serial": content.serial,
        "issued_at_ms": content.issued_at_ms,
        "expires_at_ms": content.expires_at_ms,
        "lowest_protocol": str(content.lowest_protocol),
        "members": [
            {
                "center": member.center,
                "status": member.status.value,
                "legal_name": member.legal_name,
                "country": member.country,
                "kind": member.organisation_kind.value,
                "accrediting_keys": fingerprints(member.accrediting_keys),
                "answering_keys": fingerprints(member.answering_keys),
            }
            for member in content.members
        ],
        "revoked_certificates": sorted(content.revoked_certificates),
        "policy_files": sorted(content.policy_files),
    }
