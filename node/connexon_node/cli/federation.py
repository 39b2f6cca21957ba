"""Commands about belonging: join a federation, accredit researchers, and revoke what was said of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import ERR, OUT, confirm, indented, print_json, require_writable
from connexon.errors import InvalidQuery
from connexon_node.cli import completing
from connexon_node.cli.options import ByOption, JsonOption, by_whom
from connexon_node.folder import HERE, DirOption, NodeFolder, suggested

if TYPE_CHECKING:
    from connexon_node.cli.context import OpenNode
    from connexon_node.membership.accreditation import Accreditation
    from connexon_node.membership.revocations import Revoked


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("join")(join)
    app.command("accredit")(accredit)
    app.command("revoke")(revoke)


def join(
    code: Annotated[str, typer.Argument(help="The invitation, cnx1-..., or the file it lies in.")],
    directory: DirOption = HERE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")] = False,
    state_url: Annotated[
        str, typer.Option(help="Database, such as postgresql://...; SQLite in the folder by default.")
    ] = "",
) -> None:
    """Join a federation with the invitation that the hub's operator sent.

    Makes this node's keys here (they never leave), fetches its certificate, and writes node.toml. Interrupted? Run it
    again with the same code. Afterwards the holder of the federation's root key admits the center.
    """
    from connexon.identity import keys as identity_keys
    from connexon_node.membership import joining

    invited = joining.read_code(code)
    ERR.print(f"Federation  [bold]{escape(invited.federation)}[/]")
    ERR.print(f"This center [bold]{escape(invited.center_id)}[/]")
    ERR.print(f"Hub         {escape(invited.hub_address)}", soft_wrap=True)
    ERR.print(f"Roster      {invited.roster_serial} or a later one")
    # A fingerprint has a line of its own, which nothing here breaks, however narrow the terminal.
    ERR.print("Root key")
    typer.echo(f"  {identity_keys.readable(invited.root_fingerprint)}", err=True)
    if not yes:
        confirm("Compare the root key's fingerprint with the one you were told. Join?", code="join.unconfirmed")
    with ERR.status("Joining ..."):
        joined = joining.join(NodeFolder(directory.resolve()), invited, state_url=state_url)
    OUT.print(f"[green]✓[/] {escape(joined.center)} has joined {escape(joined.federation)}; the node is in")
    OUT.print(f"  {joined.folder.root}", markup=False, soft_wrap=True)
    OUT.print("Read these out to the holder of the root key:")
    OUT.print(f"  answers    [bold]{joined.answering_fingerprint}[/]", soft_wrap=True)
    OUT.print(f"  accredits  [bold]{joined.accrediting_fingerprint}[/]", soft_wrap=True)
    start = escape(suggested("serve", directory))
    if joined.is_active:
        OUT.print(f"The roster names this center already: start it with  {start}", soft_wrap=True)
    else:
        OUT.print("The center takes part once the root key has signed them.")
        OUT.print(f"Until then import data, and start it: it waits to be admitted.  {start}", soft_wrap=True)


def accredit(
    request: Annotated[
        str, typer.Argument(help="The researcher's request from connexon keygen: its file or JSON.", show_default=False)
    ] = "",
    subject: Annotated[str, typer.Option(help="Short name of the researcher here, for example ada.")] = "",
    name: Annotated[str, typer.Option(help='Full name, for example "Ada Lovelace".')] = "",
    role: Annotated[str, typer.Option(help="What they are here.")] = "researcher",
    days: Annotated[int, typer.Option(min=1, max=90, help="How long the credential lasts.")] = 90,
    grant: Annotated[
        list[str] | None,
        typer.Option(
            help="TYPE=VALUE or TYPE=VALUE@YYYY-MM-DD, the day on which it was given, for example "
            "ControlledAccessGrants=atlas@2026-01-15.",
            show_default="the day on which the researcher was given the same before, or today",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the login file here instead of printing it.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show who has been accredited.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: print JSON.")] = False,
    directory: DirOption = HERE,
) -> None:
    """Accredit a researcher of this center: vouch for who they are and which key is theirs.

    The researcher runs [bold]connexon keygen[/] and sends you the request; check by another way that it is theirs. The
    login file that this writes goes back to them, for [bold]connexon login[/]. It holds no secret.

    A grant has a day: consents may end some months after a project's approval. Renewing a researcher's grant keeps it.
    A credential that should end early is taken back with [bold]connexon-node revoke[/].
    """
    from connexon_node.cli.context import opened

    node = opened(directory)
    if listing:
        _list(node, as_json)
        return
    if not request:
        raise InvalidQuery("Name the request that the researcher sent, or use --list.", code="accreditation.no_request")
    if not subject:
        raise InvalidQuery(
            "Say who it is, for example --subject ada: a short name, unique at this center.",
            code="accreditation.no_subject",
        )
    if out is not None:
        # Before the credential is written down: it counts from then on.
        require_writable(out)
    document = _issue(node, request, subject, name, role, days, grant or [])
    text = json.dumps(document, indent=2) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text)
        ERR.print(f"[green]✓[/] Login file for {escape(subject)}, valid for {days} days: {escape(str(out))}")


def _issue(
    node: OpenNode, request: str, subject: str, name: str, role: str, days: int, grants: list[str]
) -> dict[str, object]:
    from connexon.identity import keys as identity_keys
    from connexon_node.membership import accreditation as accrediting
    from connexon_node.membership import keys
    from connexon_node.membership.revocations import RevocationStore
    from connexon_node.membership.roster import open_keeper

    known = accrediting.read_request(request)
    configured, database = node.settings, node.database
    key = keys.NodeKeys.load(node.folder).accrediting
    home = identity_keys.center_id(configured.hub.center)
    accreditations = accrediting.Accreditations(database)
    revoked_before_ms = RevocationStore(database).issued_before(home, subject)
    token, accreditation = accrediting.issue(
        known,
        key=key,
        hub=configured.hub,
        subject=subject,
        name=name or known.name,
        role=role,
        days=days,
        grants=grants,
        given=accreditations.given(subject),
        revoked_before_ms=revoked_before_ms,
    )
    accreditations.record(accreditation, home=home)
    ERR.print("The key that is accredited, as the researcher's  connexon keygen  shows it:")
    typer.echo(f"  {identity_keys.readable(identity_keys.fingerprint(known.public_key))}", err=True)
    if accreditations.had(subject, accreditation.key_fingerprint, before_ms=revoked_before_ms):
        ERR.print(
            f"[yellow]![/] This is the key that {escape(subject)} had when you revoked them. If it may be in other "
            "hands, revoke them again, and accredit the request of a new key."
        )
    for one in accreditation.grants:
        ERR.print(f"{escape(one.type)}={escape(one.value)}, given on {to_text(one.given_at_ms)[:10]}")
    keeper = open_keeper(configured, database)
    if not accrediting.is_recognized(keeper.present, home, key.public):
        ERR.print(
            "[yellow]![/] The roster this node knows does not name its accrediting key yet: other centers believe the "
            "credential once the root key has signed it."
        )
    authority = (node.folder.keys / keys.AUTHORITY).read_bytes()
    return accrediting.login_document(configured.hub, authority, token, keeper.pin)


def revoke(
    researcher: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="Short name of the researcher, as accredit --list shows it.",
            autocompletion=completing.subjects,
        ),
    ],
    because: Annotated[str, typer.Option("--because", help="Why, for your own record.")] = "",
    by: ByOption = "",
    unlisted: Annotated[
        bool, typer.Option("--unlisted", help="Also revoke someone missing from the list, if the database was lost.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")] = False,
    as_json: JsonOption = False,
    directory: DirOption = HERE,
) -> None:
    """Revoke a researcher of this center: no credential they have been given so far counts any more.

    Here at once, also while nothing is served. The serving node tells the hub, which refuses them, too, and tells every
    other center. Who is to ask again is accredited anew.
    """
    from connexon_node.cli.context import opened
    from connexon_node.health.status import served_state

    node = opened(directory)
    if len(because) > 300 or not because.isprintable():
        raise InvalidQuery("The reason must be one line of at most 300 characters.", code="revocation.because")
    if not yes:
        confirm(
            f"Revoke {researcher}, so that they can ask nothing until accredited anew?", code="revocation.unconfirmed"
        )
    revoked, new = _revoke(node, researcher, by=by_whom(by), because=because, unlisted=unlisted)
    if as_json:
        print_json({"revoked": asdict(revoked), "new": new})
        return
    if not new:
        said = f"{escape(revoked.subject)} was revoked {to_text(revoked.received_at_ms)}, and not accredited since."
        OUT.print(said, soft_wrap=True)
        return
    OUT.print(f"[red]revoked[/] {escape(revoked.subject)}: what they were given until now does not count here.")
    state = served_state(node.folder)
    if state is None:
        start = escape(suggested("serve", directory))
        OUT.print(f"[yellow]![/] Others learn of it once this node serves:  {start}", soft_wrap=True)
    elif state.get("attached_since_ms") is None:
        OUT.print("[yellow]![/] The serving node is not attached; it tells the hub as soon as it is.")
    else:
        OUT.print("The serving node tells the hub within seconds, and the hub every center.")


def _revoke(node: OpenNode, researcher: str, *, by: str, because: str, unlisted: bool) -> tuple[Revoked, bool]:
    from connexon.clock import now_ms
    from connexon.identity import keys as identity_keys
    from connexon.identity.credential import SUBJECT
    from connexon.identity.revocation import Revocation
    from connexon_node.membership.keys import NodeKeys
    from connexon_node.membership.revocations import RevocationStore

    home = identity_keys.center_id(node.settings.hub.center)
    # The whole name, as audit list and answers write it, will do as well.
    center, slash, subject = researcher.rpartition("/")
    if slash and center != home:
        raise InvalidQuery(
            f"{researcher!r} is not a researcher of {home}: only their own center can revoke them. A rule of your own "
            "can shut them out here; see connexon-node policy.",
            code="revocation.other_center",
        )
    if not SUBJECT.match(subject):
        raise InvalidQuery(f"{researcher!r} cannot name a researcher; give it as ada.", code="credential.subject")
    said = Revocation(node.settings.hub.federation, home, subject, now_ms())
    key = NodeKeys.load(node.folder).accrediting
    store = RevocationStore(node.database)
    return store.revoke(said, key, by=by, because=because, unlisted=unlisted)


def _list(node: OpenNode, as_json: bool) -> None:
    from connexon.clock import now_ms
    from connexon.identity import keys as identity_keys
    from connexon_node.membership.accreditation import Accreditations
    from connexon_node.membership.revocations import RevocationStore

    found = Accreditations(node.database).all()
    revoked = RevocationStore(node.database).own(identity_keys.center_id(node.settings.hub.center))

    def ended(one: Accreditation) -> Revoked | None:
        word = revoked.get(one.subject)
        return word if word is not None and one.issued_at_ms < word.issued_before_ms else None

    if as_json:
        documents = [{**asdict(one), "revoked": _revoked_document(ended(one))} for one in found]
        print_json({"accreditations": documents})
        return
    if not found:
        OUT.print("Nobody has been accredited here yet.")
        return
    for one in found:
        word = ended(one)
        until = f"until {to_text(one.expires_at_ms)[:10]}" + (", over" if one.expires_at_ms <= now_ms() else "")
        if word is not None:
            until = f"[red]revoked {to_text(word.received_at_ms)[:10]}[/]"
        OUT.print(f"[bold]{escape(one.subject)}[/] {until}", soft_wrap=True)
        OUT.print(indented(escape(f"{one.name}, {one.role}")))
        typer.echo(f"  key {identity_keys.readable(bytes.fromhex(one.key_fingerprint))}")
        for each in one.grants:
            OUT.print(indented(escape(f"{each.type}={each.value}, given on {to_text(each.given_at_ms)[:10]}"), by=4))
    untold = sorted(word.subject for word in revoked.values() if word.is_untold(now_ms()))
    if untold:
        OUT.print(f"[yellow]![/] The hub has not yet heard that these are revoked: {escape(', '.join(untold))}")


def _revoked_document(word: Revoked | None) -> dict[str, object] | None:
    return None if word is None else asdict(word)
