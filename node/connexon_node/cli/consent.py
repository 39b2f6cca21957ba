"""Commands on consent: what a donor agreed to, recording it, setting it right and taking it back."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import OUT, counted, indented, new_app, print_json, table
from connexon.errors import InvalidQuery
from connexon_node.cli.options import ByOption, JsonOption, by_whom, why
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon_node.consent.ledger import DonorStanding, Ledger
    from connexon_node.consent.profile import ConsentProfile

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
app = new_app(
    "consent", "What each donor agreed to. Every change counts from the next question and stays in the history."
)


@app.command("show")
def show(donor: DonorArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show a donor's consent as it stands."""
    _print_standing(open_ledger(directory).standing(donor), as_json=as_json)


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
    from connexon_node.consent.pseudonym import require_pseudonym

    require_pseudonym(donor)
    profile = ConsentProfile.parse(permission, modifier or [], form_version=form_version, scope=scope)
    require_known_diseases(directory, [profile])
    day = _day(obtained_on, "--obtained-on")
    end = _end(expires_on) if expires_on else None
    ledger = open_ledger(directory)
    ledger.record(ConsentRecord(donor, profile, day, expires_on=end), by=by_whom(by))
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
    standing = open_ledger(directory).withdraw(donor, by=by_whom(by), on=day, because=because)
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
    require_known_diseases(directory, [profile])
    ledger = open_ledger(directory)
    ledger.amend(
        donor,
        profile,
        by=by_whom(by),
        because=because,
        obtained_on=_day(obtained_on, "--obtained-on") if obtained_on else None,
        expires_on="never" if expires_on == "never" else _end(expires_on) if expires_on else None,
    )
    ledger.expire(datetime.datetime.now(datetime.UTC).date())
    _print_standing(ledger.standing(donor), as_json=as_json)


@app.command("history")
def history(donor: DonorArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show all that ever happened to a donor's consent, oldest first."""
    events = open_ledger(directory).history(donor)
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
            OUT.print(indented(escape(event.profile.describe())))
        OUT.print(indented(f"by {escape(event.by)}, from {escape(event.source)}" + why(event.because)))


@app.command("profiles")
def profiles(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """List the distinct consents of this center, and how many donors have each in force."""
    ledger = open_ledger(directory)
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
    listed = table("No", "Donors", "Consent", right=("No", "Donors"))
    for number, profile in known.items():
        listed.add_row(str(number), f"{counts.get(number, 0):,}", escape(profile.describe()))
    OUT.print(listed if known else "No consent is recorded yet.")
    for status, count in standing.items():
        OUT.print(f"{counted(count, 'donor')}: {status.value.replace('_', ' ')}")


def require_known_diseases(directory: Path, profiles: Iterable[ConsentProfile]) -> None:
    """Raise InvalidQuery where a consent names a disease that the node's ontologies do not know."""
    from connexon_node.consent.diseases import require_known
    from connexon_node.ontology import Ontologies

    ontologies = Ontologies.open(NodeFolder.find(directory).ontologies)
    for profile in profiles:
        require_known(profile, ontologies)


def open_ledger(directory: Path) -> Ledger:
    """The donors' consents of the node in a folder."""
    from connexon_node.cli.context import opened
    from connexon_node.consent.ledger import Ledger
    from connexon_node.health.status import served_clock
    from connexon_node.membership.keys import NodeKeys
    from connexon_node.recovery.journal import Journal

    node = opened(directory)
    journal = Journal(node.folder, NodeKeys.load(node.folder).answering)
    return Ledger(node.database, journal, served_clock(node.folder))


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


STANDING_WORDS = {
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
    OUT.print(f"[bold]{escape(standing.donor_id)}[/]  {STANDING_WORDS[standing.status.value]}")
    if standing.profile is not None:
        form = f" on form {standing.profile.form_version}" if standing.profile.form_version else ""
        OUT.print(indented(escape(standing.profile.describe())))
        OUT.print(indented(f"obtained {standing.obtained_on}{escape(form)}, scope {standing.profile.scope.value}"))
    if standing.withdrawn_on:
        OUT.print(indented(f"withdrawn {standing.withdrawn_on}"))
    if standing.expires_on:
        OUT.print(indented(f"counts until {standing.expires_on}"))
