"""The command on duties: what donors' consents ask of researchers, and what of it every answer tells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from connexon.clock import now_ms, to_text
from connexon.console import OUT, counted, print_json, table
from connexon.errors import InvalidQuery
from connexon_node.cli.options import ByOption, JsonOption, by_whom
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.consent.obligations import CarriedDuty
    from connexon_node.consent.stated import StatedDuties


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("duties")(duties)


def duties(
    tell: Annotated[
        str,
        typer.Option("--tell", metavar="DUTY", help="Tell it with every answer: DUO:0000019, DUO:0000024=2027-01-31."),
    ] = "",
    stop_telling: Annotated[str, typer.Option("--stop-telling", metavar="DUTY", help="Tell it no more.")] = "",
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List the duties that consents ask for, and say which of them every answer tells in their own words.

    A duty that came and went with the question would tell of single donors. So every answer about persons tells the
    duties that you state here, whomever it counts, and that there may be more; policy explain --query shows which ones
    a question came to, so that you can tell the researcher. Only a duty that at least the minimum of your donors carry
    can be stated, and it stands until you end it.
    """
    from connexon_node.consent.obligations import Duty

    if tell and stop_telling:
        raise InvalidQuery("Write --tell or --stop-telling, not both.", code="consent.duty_both")
    minimum, known, statements = _opened(directory)
    if tell:
        statements.state(Duty.parse(tell), known, minimum=minimum, by=by_whom(by))
    if stop_telling:
        statements.end(Duty.parse(stop_telling), by=by_whom(by))
    _show(known, statements, as_json=as_json)


def _opened(directory: Path) -> tuple[int, tuple[CarriedDuty, ...], StatedDuties]:
    """The minimum of donors in force, what consents ask for as of today, and what is stated."""
    from connexon.query.question import Purpose
    from connexon_node.cli import requests
    from connexon_node.consent.evaluation import ProfileEntities, duties_carried
    from connexon_node.consent.obligations import carried
    from connexon_node.consent.stated import StatedDuties
    from connexon_node.policy.request import ask
    from connexon_node.release.floors import floors, stricter

    room = requests.open_room(directory)
    who = requests.requester(room, "", "researcher", "", "")
    asking = ask(who, Purpose(("DUO:0000037",)), disease=frozenset(), at_ms=now_ms(), switches=room.rules.switches)
    profiles, donors = room.ledger.profiles(), room.ledger.donors_by_profile()
    obliging = duties_carried(room.rules, asking, ProfileEntities(room.rules, room.ontologies, profiles))
    known = carried(room.rules, profiles, obliging, donors)
    minimum = stricter(room.node.settings.release, floors(room.roster.policy_files)).minimum_donors
    return minimum, known, StatedDuties(room.node.database)


def _show(known: tuple[CarriedDuty, ...], statements: StatedDuties, *, as_json: bool) -> None:
    stated = {one.duty: one for one in statements.statements()}
    if as_json:
        print_json(
            {
                "duties": [
                    {
                        "duty": str(one.duty),
                        "rule": one.rule,
                        "message": one.message,
                        "donors": one.donors,
                        "stated": one.duty in stated,
                    }
                    for one in known
                ],
                "stated": [
                    {
                        "duty": str(one.duty),
                        "donors_then": one.donors,
                        "at": to_text(one.stated_at_ms),
                        "by": one.stated_by,
                    }
                    for one in stated.values()
                ],
            }
        )
        return
    listed = table("Duty", "Donors", "Answers tell it", "In words", right=("Donors",))
    for one in known:
        told = "[green]yes[/]" if one.duty in stated else "no"
        listed.add_row(escape(str(one.duty)), f"{one.donors:,}", told, escape(one.message))
    OUT.print(listed if known else "No consent in force asks for anything in return.")
    for statement in stated.values():
        then = f"{to_text(statement.stated_at_ms)} by {statement.stated_by}, for {counted(statement.donors, 'donor')}"
        OUT.print(f"{escape(str(statement.duty))}: told since {escape(then)}", soft_wrap=True)
