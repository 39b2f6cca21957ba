"""receipt verify: check, without network, that a center wrote something down in its audit log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connexon.console import OUT, new_app, print_json

if TYPE_CHECKING:
    from connexon.identity.roster import Roster
    from connexon.transparency.proof_file import ProvedRecord

app = new_app("receipt", "Proofs that a center wrote a question and its answer down in its audit log.")


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="The proof that a steward made with connexon-node audit prove.")],
    roster: Annotated[
        Path | None,
        typer.Option(help="A signed roster to check with, instead of the one kept from your last connection."),
    ] = None,
    root_fingerprint: Annotated[
        str,
        typer.Option(
            help="With --roster: the fingerprint of the federation's root key, all its 64 hexadecimal digits."
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; its shape is in docs/json.md.")
    ] = False,
) -> None:
    """Check a proof file against the roster, without network.

    It proves that the center signed an audit log that holds this very record. The center's keys come from the roster
    that you believe; a proof by a center that has left the federation needs a roster from before.
    """
    from connexon.transparency import proof_file
    from connexon.transparency.receipt import ReceiptRefused

    believed = _roster(roster, root_fingerprint)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ReceiptRefused(f"{file} cannot be read.", code="receipt.unreadable") from error
    proved = proof_file.verify(text, believed)
    if as_json:
        print_json(_document(proved))
        return
    _show(proved)


def _roster(file: Path | None, root_fingerprint: str) -> Roster:
    from connexon.client.home import Home
    from connexon.errors import Misconfigured
    from connexon.identity import roster as rosters

    if file is None:
        home = Home()
        kept = home.roster(home.login())
        if kept is None:
            raise Misconfigured(
                "No roster is kept here yet: run  connexon whoami  once, or give one with --roster.",
                code="receipt.no_roster",
            )
        return kept
    pinned = _pinned(root_fingerprint) if root_fingerprint else Home().login().root_fingerprint
    # What is no text is no roster either, and is refused as such.
    return rosters.believe(rosters.from_text_file(file.read_text(errors="replace")), root_fingerprint=pinned)


def _pinned(text: str) -> bytes:
    from connexon.errors import Misconfigured

    try:
        pinned = bytes.fromhex(text)
    except ValueError:
        pinned = b""
    if len(pinned) != 32:
        raise Misconfigured(
            "A fingerprint to check with has 64 hexadecimal digits: the whole one, such as root_fingerprint in a login "
            "file. What is read over the telephone is its first half.",
            code="receipt.fingerprint",
        )
    return pinned


def _document(proved: ProvedRecord) -> dict[str, Any]:
    from connexon.client.answer import moment

    return {
        "schema": "connexon.receipt/1",
        "center": proved.head.center,
        "sequence": proved.sequence,
        "log_size": proved.head.size,
        "root_sha256": proved.head.root.hex(),
        "signed_at": moment(proved.head.at_ms),
        "record": dict(proved.record),
    }


def _show(proved: ProvedRecord) -> None:
    from connexon.clock import to_text
    from connexon.safe_text import shown

    head = proved.head
    OUT.print(f"[green]✓[/] Record {proved.sequence} of {head.center}'s audit log, as it was with {head.size} records.")
    OUT.print(f"  Signed by {head.center} on {to_text(head.at_ms)}.")
    for name, value in proved.record.items():
        if value != "":
            text = to_text(int(value)) if name == "at_ms" else shown(value)
            OUT.print(f"  {name:<15} {text}", markup=False, soft_wrap=True)
