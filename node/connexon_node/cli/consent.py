"""Commands on consent: what a donor agreed to, recording it, and taking it back."""

from __future__ import annotations

import datetime
import getpass
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from connexon.clock import now_ms, to_text
from connexon.console import OUT, new_app, print_json
from connexon.errors import Conflict, InvalidQuery
from connexon_node.folder import ENVIRONMENT, HERE, DirOption, NodeFolder, suggested

if TYPE_CHECKING:
    from connexon_node.audit import AuditLog
    from connexon_node.consent.ledger import DonorStanding, Ledger
    from connexon_node.consent.profile import ConsentProfile

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DonorArgument = Annotated[str, typer.Argument(metavar="DONOR", help="The donor's id as in the imported data.")]
PermissionOption = Annotated[
    str, typer.Option("--permission", help="The DUO permission: DUO:0000042, or DUO:0000007=MONDO:0005180.")
]
ModifierOption = Annotated[
    list[str] | None,
    typer.Option("--modifier", help="A DUO modifier, with its value where it has one: DUO:0000025=12. Repeatable."),
]
FormOption = Annotated[str, typer.Option("--form-version", help="Version of the consent form.")]
ScopeOption = Annotated[
    str, typer.Option("--scope", help="research, clinical or both. Without it: both where clinical care is allowed.")
]
ExpiresOption = Annotated[
    str, typer.Option("--expires-on", help="From which day on it no longer counts.", show_default="it has no end")
]
ByOption = Annotated[str, typer.Option("--by", help="Who does it.", show_default="the user who is logged in")]
app = new_app(
    "consent", "What each donor agreed to. Every change counts from the next question and stays in the history."
)


@app.command("show")
def show(donor: DonorArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show a donor's consent as it stands."""
    _print_standing(_ledger(directory).standing(donor), as_json=as_json)


@app.command("record")
def record(
    donor: DonorArgument,
    permission: PermissionOption,
    form_version: FormOption,
    obtained_on: Annotated[str, typer.Option("--obtained-on", help="The day the form was signed: 2026-03-01.")],
    modifier: ModifierOption = None,
    scope: ScopeOption = "",
    expires_on: ExpiresOption = "",
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Record a consent form. The newest form decides; one from before a withdrawal does not undo it."""
    from connexon_node.consent.profile import ConsentProfile, ConsentRecord

    profile = ConsentProfile.parse(permission, modifier or [], form_version=form_version, scope=scope)
    _require_known(directory, [profile])
    day = _day(obtained_on, "--obtained-on")
    end = _end(expires_on) if expires_on else None
    ledger = _ledger(directory)
    ledger.record(ConsentRecord(donor, profile, day, expires_on=end), by=by or getpass.getuser())
    ledger.expire(datetime.datetime.now(datetime.UTC).date())
    _print_standing(ledger.standing(donor), as_json=as_json)


@app.command("withdraw")
def withdraw(
    donor: DonorArgument,
    because: Annotated[str, typer.Option("--because", help="Why, for the history: a letter, a call.")] = "",
    on: Annotated[str, typer.Option("--on", help="From which day on it is withdrawn.", show_default="at once")] = "",
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Take a donor's consent back, from the next question on. What was known stays in the history."""
    day = _day(on, "--on") if on else None
    standing = _ledger(directory).withdraw(donor, by=by or getpass.getuser(), on=day, because=because)
    _print_standing(standing, as_json=as_json)


@app.command("amend")
def amend(
    donor: DonorArgument,
    permission: PermissionOption,
    form_version: FormOption,
    because: Annotated[str, typer.Option("--because", help="What was wrong, for the history.")],
    modifier: ModifierOption = None,
    scope: ScopeOption = "",
    obtained_on: Annotated[str, typer.Option("--obtained-on", help="The right day, if it was wrong.")] = "",
    expires_on: Annotated[
        str, typer.Option("--expires-on", help="The right end, if it was wrong; never: it has none.")
    ] = "",
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Set a donor's newest consent right: a typing error, or two forms of one day that contradict each other."""
    from connexon_node.consent.profile import ConsentProfile

    if not because.strip():
        raise InvalidQuery("Say with --because what was wrong; it stays in the history.", code="consent.because")
    profile = ConsentProfile.parse(permission, modifier or [], form_version=form_version, scope=scope)
    _require_known(directory, [profile])
    ledger = _ledger(directory)
    ledger.amend(
        donor,
        profile,
        by=by or getpass.getuser(),
        because=because,
        obtained_on=_day(obtained_on, "--obtained-on") if obtained_on else None,
        expires_on="never" if expires_on == "never" else _end(expires_on) if expires_on else None,
    )
    ledger.expire(datetime.datetime.now(datetime.UTC).date())
    _print_standing(ledger.standing(donor), as_json=as_json)


@app.command("history")
def history(donor: DonorArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show all that ever happened to a donor's consent, oldest first."""
    events = _ledger(directory).history(donor)
    if as_json:
        print_json(
            {
                "donor": donor,
                "events": [
                    {
                        "sequence": event.sequence,
                        "epoch": event.epoch,
                        "event": event.kind,
                        "effective_on": event.effective_on,
                        **_profile_document(event.profile_number, event.profile),
                        "at": to_text(event.at_ms),
                        "by": event.by,
                        "source": event.source,
                        "because": event.because,
                    }
                    for event in events
                ],
            }
        )
        return
    if not events:
        OUT.print(f"Nothing was ever recorded for {escape(donor)}.")
    for event in events:
        OUT.print(f"[bold]{event.kind}[/] {event.effective_on}  [dim]written {to_text(event.at_ms)}[/]")
        if event.profile is not None:
            OUT.print(f"  {escape(event.profile.describe())}")
        OUT.print(f"  by {escape(event.by)}, from {escape(event.source)}" + _because(event.because))


@app.command("impact")
def impact(donor: DonorArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show which past releases counted a donor, numbers that left or follow from those, and which models rest on them.

    A number that left once is given again to whoever asks for the same; audit list shows all who asked. What has left
    cannot be called back, but after a withdrawal nothing new counts the donor.
    """
    from connexon_node import settings
    from connexon_node.audit import AuditLog
    from connexon_node.privacy import draws
    from connexon_node.release.ledger import ReleaseLedger
    from connexon_node.state import open_state
    from connexon_node.training.ledger import TrainingLedger

    folder = NodeFolder.find(directory)
    configured = settings.load(folder)
    database = open_state(configured.state_url)
    standing = _ledger(directory).standing(donor)
    trained = TrainingLedger(database).counting(standing.number)
    log = AuditLog(database)
    counted = ReleaseLedger(database, 1).counting(standing.number) + draws.counting(database, standing.number)
    releases = [
        {"dataset": dataset, "query_id": query_id, "at": to_text(at_ms), "record": _record_of(log, query_id)}
        for dataset, query_id, at_ms in sorted(counted, key=lambda one: one[2])
    ]
    if as_json:
        runs = [
            {
                "run": one.run_id,
                "recipe": one.recipe,
                "researcher": one.researcher,
                "purpose": one.purpose,
                "tasks": one.tasks,
                "last_at": to_text(one.last_at_ms),
            }
            for one in trained
        ]
        print_json({"donor": donor, "status": standing.status.value, "releases": releases, "training": runs})
        return
    OUT.print(f"[bold]{escape(donor)}[/]  {_WORDS[standing.status.value]}")
    OUT.print(f"Counted in {len(releases)} releases." if releases else "No release counted this donor.")
    for one in releases:
        record = one["record"]
        OUT.print(f"  {one['at']}  {one['query_id']}", soft_wrap=True)
        if isinstance(record, dict):
            OUT.print(
                f"    {escape(record['researcher'])}: {record['analysis']} {one['dataset']}".rstrip(), soft_wrap=True
            )
            OUT.print(f"    for {escape(record['purpose'])}", soft_wrap=True)
    for part in trained:
        OUT.print(f"  {to_text(part.last_at_ms)}  {part.run_id}", soft_wrap=True)
        OUT.print(
            f"    {escape(part.researcher)}: the model {escape(part.recipe)} rests on this donor's rows too, in "
            f"{part.tasks} tasks",
            soft_wrap=True,
        )
        OUT.print(f"    for {escape(part.purpose)}", soft_wrap=True)


def _record_of(log: AuditLog, query_id: str) -> dict[str, str] | None:
    """Who asked what in that query, as the audit log has it."""
    entries = log.of_query(query_id)
    if not entries:
        return None
    record = entries[-1].record
    return {"researcher": record.researcher, "purpose": record.purpose, "analysis": record.analysis}


@app.command("profiles")
def profiles(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """List the distinct consents of this center, and how many donors have each in force."""
    ledger = _ledger(directory)
    counts, known, standing = ledger.donors_by_profile(), ledger.profiles(), ledger.donors_by_status()
    if as_json:
        print_json(
            {
                "profiles": [
                    {**_profile_document(number, profile), "donors": counts.get(number, 0)}
                    for number, profile in known.items()
                ],
                "donors": {status.value: count for status, count in standing.items()},
            }
        )
        return
    table = Table(box=None, pad_edge=False)
    for column, justify in (("No", "right"), ("Donors", "right"), ("Consent", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]  # a word rich knows
    for number, profile in known.items():
        table.add_row(str(number), f"{counts.get(number, 0):,}", escape(profile.describe()))
    OUT.print(table if known else "No consent is recorded yet.")
    for status, count in standing.items():
        OUT.print(f"{count:,} donors: {status.value.replace('_', ' ')}")


@app.command("who-may")
def who_may(
    donor: Annotated[str, typer.Argument(metavar="[DONOR]", help="The donor; or name a --profile.")] = "",
    profile: Annotated[int, typer.Option("--profile", help="The number of a profile, from consent profiles.")] = 0,
    country: Annotated[str, typer.Option(help="Where the requesters are.", show_default="this center's")] = "",
    project: Annotated[str, typer.Option(help="The project with the purpose.")] = "",
    ethics_approval: Annotated[str, typer.Option(help="The ethics approval with the purpose.")] = "",
    grant: Annotated[
        list[str] | None, typer.Option("--grant", help="A controlled access grant and its day: atlas=2026-01-15.")
    ] = None,
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show for which purposes, and by whom, a donor may be counted today, and why not otherwise."""
    from connexon_node.cli import requests
    from connexon_node.policy.explaining import who_may

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
    counted = standing is None or standing.in_force
    if as_json:
        print_json(
            {
                "donor": donor or None,
                "in_force": counted,
                "consent": str(chosen),
                "purposes": [
                    {
                        "purpose": line.purpose,
                        "verdicts": {name: verdict.value for name, verdict in line.verdicts.items()},
                        "because": list(line.because),
                    }
                    for line in lines
                ],
            }
        )
        return
    OUT.print(f"[bold]{escape(chosen.describe())}[/]")
    if standing and not counted:
        OUT.print(f"[red]{standing.status.value}[/]: nobody may count this donor. If it were in force:")
    for line in lines:
        OUT.print(f"\n{escape(line.purpose)}")
        for name, verdict in line.verdicts.items():
            OUT.print(f"  {requests.colored(verdict.value)} {name}")
        for reason in line.because:
            OUT.print(f"    [dim]{escape(reason)}[/]")


@app.command("draft")
def draft(
    file: Annotated[Path, typer.Argument(help="hPSCreg or EBiSC consent flags: CSV, TSV or JSON lines, by donor_id.")],
    out: Annotated[Path, typer.Option("--out", help="The drafts, as CSV for you to check.")],
    country: Annotated[str, typer.Option(help="Where data must stay that may not go worldwide, such as FR.")],
    as_json: JsonOption = False,
) -> None:
    """Draft consents from hPSCreg flags. Nothing counts before you have checked and confirmed them.

    Open the drafts as a table; read the notes; set what is missing, with form_version and obtained_on; write your
    name into confirmed_by. Then run  consent confirm. What the flags leave unknown is drafted as not permitted.
    """
    from connexon_node.consent.drafts import write_drafts

    if len(country) != 2 or not country.isalpha() or not country.isupper():
        raise InvalidQuery("--country is two capital letters, such as FR.", code="consent.country")
    _require_file(file)
    if out.exists():
        raise Conflict(
            f"{out} is there already, and may hold drafts that you have checked; name another file with --out.",
            code="consent.drafts_exist",
        )
    drafts = write_drafts(file, out, country=country)
    blocked = sum(not made.permission for _, made in drafts)
    if as_json:
        print_json({"drafts": len(drafts), "permit_nothing": blocked, "file": str(out)})
        return
    OUT.print(f"{len(drafts)} drafts in {escape(str(out))}; {blocked} of them permit nothing as they stand.")
    # Drafting needs no node's folder, confirming does.
    folder = HERE if ENVIRONMENT in os.environ or NodeFolder(HERE).settings_file.exists() else Path("DIR")
    command = escape(suggested(f"consent confirm {shlex.quote(str(out))}", folder))
    OUT.print(f"Check each, write your name into confirmed_by, then:  {command}", soft_wrap=True)


@app.command("confirm")
def confirm(
    file: Annotated[Path, typer.Argument(help="The drafts that you checked.")],
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Record the drafts that carry a name in confirmed_by. The others wait; one wrong line and none is recorded."""
    from connexon_node.consent.drafts import confirmed

    _require_file(file)
    records, waiting = confirmed(file)
    _require_known(directory, {record.profile for some in records.values() for record in some})
    ledger = _ledger(directory)
    outcomes = [ledger.record_many(some, by=by, source=file.name) for by, some in records.items()]
    count, changed = sum(one.records for one in outcomes), sum(one.changed for one in outcomes)
    contradicted = [donor for one in outcomes for donor in one.contradicted]
    if as_json:
        print_json({"recorded": count, "changed": changed, "waiting": waiting, "contradicted": contradicted})
        return
    OUT.print(f"{count} confirmed, {changed} of them news; {waiting} wait for confirmation.")
    for donor in contradicted:
        OUT.print(f"[red]{escape(donor)}[/] has two forms of one day that differ; set it right with consent amend.")


def _require_known(directory: DirOption, profiles: Iterable[ConsentProfile]) -> None:
    from connexon_node.consent.diseases import require_known
    from connexon_node.ontology import Ontologies

    ontologies = Ontologies.open(NodeFolder.find(directory).ontologies)
    for profile in profiles:
        require_known(profile, ontologies)


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise InvalidQuery(f"There is no file {file}.", code="consent.no_file")


def _ledger(directory: DirOption) -> Ledger:
    from connexon_node import settings
    from connexon_node.consent.ledger import Ledger
    from connexon_node.state import open_state

    folder = NodeFolder.find(directory)
    return Ledger(open_state(settings.load(folder).state_url))


def _end(text: str, option: str = "--expires-on") -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise InvalidQuery(f"{option} must be a day such as 2026-03-01.", code="consent.bad_date") from error


def _day(text: str, option: str) -> datetime.date:
    day = _end(text, option)
    # Where the day has begun already it is not yet the future; UTC may be behind it.
    if day > datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1):
        raise InvalidQuery(f"{option} must not be in the future.", code="consent.date_in_future")
    return day


def _because(text: str) -> str:
    return f": {escape(text)}" if text else ""


def _profile_document(number: int, profile: ConsentProfile | None) -> dict[str, Any]:
    if profile is None:
        return {"profile": None, "permission": "", "diseases": [], "modifiers": [], "form_version": "", "scope": ""}
    return {
        "profile": number,
        "permission": profile.permission,
        "diseases": sorted(profile.diseases),
        "modifiers": [{"term": one.term, "value": one.value} for one in sorted(profile.modifiers)],
        "form_version": profile.form_version,
        "scope": profile.scope.value,
    }


_WORDS = {
    "none": "[yellow]nothing recorded[/]: the donor is not counted",
    "in_force": "[green]in force[/]",
    "withdrawn": "[red]withdrawn[/]: not counted, unless a consent from a later day is recorded",
    "expired": "[red]expired[/]: the donor is not counted",
    "contradicted": "[red]contradicted[/]: two forms of one day differ. The donor is not counted until consent amend",
}


def _print_standing(standing: DonorStanding, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "donor": standing.donor_id,
                "status": standing.status.value,
                "in_force": standing.in_force,
                **_profile_document(standing.profile_number, standing.profile),
                "obtained_on": standing.obtained_on or None,
                "withdrawn_on": standing.withdrawn_on or None,
                "expires_on": standing.expires_on or None,
            }
        )
        return
    OUT.print(f"[bold]{escape(standing.donor_id)}[/]  {_WORDS[standing.status.value]}")
    if standing.profile is not None:
        form = f" on form {standing.profile.form_version}" if standing.profile.form_version else ""
        OUT.print(f"  {escape(standing.profile.describe())}")
        OUT.print(f"  obtained {standing.obtained_on}{escape(form)}, scope {standing.profile.scope.value}")
    if standing.withdrawn_on:
        OUT.print(f"  withdrawn {standing.withdrawn_on}")
    if standing.expires_on:
        OUT.print(f"  counts until {standing.expires_on}")
