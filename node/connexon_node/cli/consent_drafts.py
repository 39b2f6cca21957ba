"""Consents drafted from hPSCreg flags: draft them, and record those that a steward has confirmed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from connexon.console import OUT, counted, print_json
from connexon.errors import Conflict, InvalidQuery
from connexon.identity.countries import CODES
from connexon_node.cli.consent import open_ledger, require_known_diseases
from connexon_node.cli.options import JsonOption
from connexon_node.folder import ENVIRONMENT, HERE, DirOption, NodeFolder, suggested


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("draft")(draft)
    app.command("confirm")(confirm)


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

    if country not in CODES:
        raise InvalidQuery(f"--country {country} is none of ISO 3166-1 alpha-2, such as FR.", code="consent.country")
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
    where = f"{counted(len(drafts), 'draft')} in {escape(str(out))}"
    OUT.print(f"{where}; as they stand, {blocked} of them permit nothing.", soft_wrap=True)
    # Drafting needs no node's folder, confirming does.
    folder = HERE if ENVIRONMENT in os.environ or NodeFolder(HERE).settings_file.exists() else Path("DIR")
    command = escape(suggested(f"consent confirm {shlex.quote(str(out))}", folder))
    OUT.print(f"Check each, write your name into confirmed_by, then:  {command}", soft_wrap=True)


def confirm(
    file: Annotated[Path, typer.Argument(help="The drafts that you checked.")],
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Record the drafts that carry a name in confirmed_by. The others wait; one wrong line and none is recorded."""
    from connexon_node.consent.drafts import confirmed

    _require_file(file)
    records, waiting = confirmed(file)
    require_known_diseases(directory, {record.profile for some in records.values() for record in some})
    ledger = open_ledger(directory)
    outcomes = [ledger.record_many(some, by=by, source=file.name) for by, some in records.items()]
    count, changed = sum(one.records for one in outcomes), sum(one.changed for one in outcomes)
    contradicted = [donor for one in outcomes for donor in one.contradicted]
    if as_json:
        print_json({"recorded": count, "changed": changed, "waiting": waiting, "contradicted": contradicted})
        return
    OUT.print(f"{counted(count, 'consent')} confirmed, {changed} of them new.")
    if waiting:
        OUT.print(f"{counted(waiting, 'draft')} left alone: confirmed_by names nobody.")
    for donor in contradicted:
        OUT.print(f"[red]{escape(donor)}[/] has two forms of one day that differ; set it right with consent amend.")


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise InvalidQuery(f"There is no file {file}.", code="consent.no_file")
