"""What a donor's consent comes to: who may count the donor today, and what counted them before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import now_ms, to_text
from connexon.console import OUT, counted, indented, print_json
from connexon.errors import InvalidQuery
from connexon_node.cli.consent import STANDING_WORDS, DonorArgument
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.audit import AuditRecord
    from connexon_node.consent.ledger import DonorStanding
    from connexon_node.policy_review.explaining import WhoMay
    from connexon_node.training.ledger import Part


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("impact")(impact)
    app.command("who-may")(who_may)


@dataclass(frozen=True)
class _Release:
    """A number that left and counted the donor, and the record of who asked for it."""

    dataset: str
    query_id: str
    at_ms: int
    record: AuditRecord | None


def impact(donor: DonorArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show which past releases counted a donor, numbers that left or follow from those, and which models rest on them.

    A number that left once is given again to whoever asks for the same; audit list shows all who asked. What has left
    cannot be called back, but after a withdrawal nothing new counts the donor.
    """
    standing, releases, trained = _counting(donor, directory)
    if as_json:
        runs = [_part_document(one) for one in trained]
        documents = [_release_document(one) for one in releases]
        print_json({"donor": donor, "status": standing.status.value, "releases": documents, "training": runs})
        return
    OUT.print(f"[bold]{escape(donor)}[/]  {STANDING_WORDS[standing.status.value]}")
    models = f", and {counted(len(trained), 'model')} trained on this donor's rows" if trained else ""
    OUT.print(f"Counted in {counted(len(releases), 'release')}{models}." if releases or trained else _NOWHERE)
    for release in releases:
        _print_release(release)
    for part in trained:
        OUT.print(f"[dim]{to_text(part.last_at_ms)}  {part.run_id}[/]", soft_wrap=True)
        what = f"{part.researcher}: train {part.recipe}, {counted(part.tasks, 'task')}, for {part.purpose}"
        OUT.print(indented(escape(what)))


_NOWHERE = "No release counted this donor, and no model rests on their rows."


def _counting(donor: str, directory: Path) -> tuple[DonorStanding, list[_Release], list[Part]]:
    from connexon_node.audit import AuditLog
    from connexon_node.cli.context import opened
    from connexon_node.consent.ledger import Ledger
    from connexon_node.privacy import draws
    from connexon_node.release.ledger import ReleaseLedger
    from connexon_node.training.ledger import TrainingLedger

    database = opened(directory).database
    standing, log = Ledger(database).standing(donor), AuditLog(database)
    found = ReleaseLedger(database, 1).counting(standing.number) + draws.counting(database, standing.number)
    releases = []
    for dataset, query_id, at_ms in sorted(found, key=lambda one: one[2]):
        entries = log.of_query(query_id)
        releases.append(_Release(dataset, query_id, at_ms, entries[-1].record if entries else None))
    return standing, releases, TrainingLedger(database).counting(standing.number)


def _print_release(one: _Release) -> None:
    from connexon_node.cli.records import asked

    OUT.print(f"[dim]{to_text(one.at_ms)}  {one.query_id}[/]", soft_wrap=True)
    if one.record is not None:
        OUT.print(indented(asked(one.record, dataset=one.dataset)))


def _release_document(one: _Release) -> dict[str, Any]:
    names = ("researcher", "purpose", "analysis")
    record = None if one.record is None else {name: getattr(one.record, name) for name in names}
    return {"dataset": one.dataset, "query_id": one.query_id, "at": to_text(one.at_ms), "record": record}


def _part_document(one: Part) -> dict[str, Any]:
    names = ("recipe", "researcher", "purpose", "tasks")
    return {"run": one.run_id, **{name: getattr(one, name) for name in names}, "last_at": to_text(one.last_at_ms)}


def who_may(
    donor: Annotated[str, typer.Argument(metavar="[DONOR]", help="The donor; or name a --profile.")] = "",
    profile: Annotated[
        int, typer.Option("--profile", help="The number of a profile, from consent profiles.", show_default=False)
    ] = 0,
    country: Annotated[str, typer.Option(help="Where the requesters are.", show_default="this center's")] = "",
    project: Annotated[str, typer.Option(help="The project with the purpose.")] = "",
    ethics_approval: Annotated[str, typer.Option(help="The ethics approval with the purpose.")] = "",
    grant: Annotated[
        list[str] | None,
        typer.Option("--grant", help="A controlled access grant; its day unless it is today: atlas@2026-01-15."),
    ] = None,
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show for which purposes, and by whom, a donor may be counted today, and why not otherwise."""
    from connexon_node.cli import requests
    from connexon_node.policy_review.explaining import who_may

    room = requests.open_room(directory)
    standing = room.ledger.standing(donor) if donor else None
    chosen = standing.profile if standing else room.ledger.profiles([profile]).get(profile)
    if chosen is None:
        raise InvalidQuery(
            "Name a donor with a consent, or a --profile from consent profiles.", code="consent.no_profile"
        )
    kinds = requests.kinds(room, country, grant)
    lines = who_may(
        *(room.rules, room.ontologies, chosen, kinds),
        at_ms=now_ms(),
        project=project,
        ethics_approval=ethics_approval,
    )
    in_force = standing is None or standing.in_force
    if as_json:
        purposes = [_purpose_document(line) for line in lines]
        print_json({"donor": donor or None, "in_force": in_force, "consent": str(chosen), "purposes": purposes})
        return
    OUT.print(f"[bold]{escape(chosen.describe())}[/]")
    if standing and not in_force:
        OUT.print(f"[red]{standing.status.value}[/]: nobody may count this donor. If it were in force:")
    _print_who_may(lines)


def _purpose_document(line: WhoMay) -> dict[str, Any]:
    verdicts = {name: verdict.value for name, verdict in line.verdicts.items()}
    return {"purpose": line.purpose, "verdicts": verdicts, "because": list(line.because)}


def _print_who_may(lines: tuple[WhoMay, ...]) -> None:
    """Purposes that come to the same together, those first for which most may count the donor."""
    from connexon_node.cli.requests import colored

    alike: dict[tuple[tuple[tuple[str, str], ...], tuple[str, ...]], list[str]] = {}
    for line in lines:
        verdicts = tuple((name, verdict.value) for name, verdict in line.verdicts.items())
        alike.setdefault((verdicts, line.because), []).append(line.purpose)
    denied = {key: sum(verdict == "deny" for _, verdict in key[0]) for key in alike}
    for (verdicts, because), purposes in sorted(alike.items(), key=lambda one: denied[one[0]]):
        OUT.print(f"\n[bold]{escape(', '.join(purposes))}[/]")
        for name, verdict in verdicts:
            OUT.print(f"  {colored(verdict)} {name}")
        for reason in because:
            OUT.print(indented(f"[dim]{escape(reason)}[/]", by=4))
