"""What only the steward can decide: requests that wait, approving and refusing them, and approvals of projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import DAY, midnight, now_ms, to_text
from connexon.console import OUT, counted, indented, new_app, print_json
from connexon.errors import InvalidQuery
from connexon_node.cli import completing
from connexon_node.cli.options import ByOption, JsonOption, by_whom, why
from connexon_node.folder import HERE, DirOption, suggested

if TYPE_CHECKING:
    from connexon.service.database import Database
    from connexon_node.approvals.model import Approval, Request

APPROVAL_DAYS = 90
"""How long a project's approval lasts where nothing else is said."""
RequestArgument = Annotated[
    str,
    typer.Argument(
        metavar="REQUEST",
        help="The request's id from connexon-node requests, or its first letters.",
        autocompletion=completing.requests,
    ),
]
approvals = new_app("approvals", "Approvals of projects: reusable until their day, and revocable.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("requests")(requests)
    app.command("approve")(approve)
    app.command("refuse")(refuse)
    app.add_typer(approvals, name="approvals")


def requests(
    directory: DirOption = HERE,
    everything: Annotated[bool, typer.Option("--all", help="Also those decided, or whose time ended.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Print their ids only, one a line, for scripts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the questions that wait for you: who asks what, why, and what only you can say.

    The researcher sees "awaiting steward" and is answered when you approve, without asking again. The numbers of
    donors are exact, as of now, and for you only.
    """
    from connexon_node.approvals.model import State
    from connexon_node.approvals.store import ApprovalStore
    from connexon_node.consent.ledger import Ledger

    database = _database(directory)
    found = ApprovalStore(database).requests(everything=everything)
    donors = Ledger(database).donors_by_profile()
    if as_json:
        print_json({"requests": [_request_document(one, donors) for one in found]})
        return
    if ids:
        for one in found:
            OUT.print(one.query_id, soft_wrap=True)
        return
    if not found:
        OUT.print("Nothing waits for you." if not everything else "Nothing was ever put before you.")
    for one in found:
        _print_request(one, donors)
    waiting = [one.query_id[:8] for one in found if one.state is State.WAITING]
    if waiting:
        named = waiting[0] if len(waiting) == 1 else "REQUEST"
        approve_it, refuse_it = suggested(f"approve {named}", directory), suggested(f"refuse {named}", directory)
        OUT.print(f"Decide:  {escape(approve_it)}", soft_wrap=True)
        OUT.print(f"    or:  {escape(refuse_it)} --because WHY", soft_wrap=True)


def approve(
    request: RequestArgument,
    scope: Annotated[
        str, typer.Option("--scope", help="query: this question; project: its project's like ones, too.")
    ] = "query",
    everyone: Annotated[
        bool, typer.Option("--everyone", help="With --scope project: whoever names the project, not only who asked.")
    ] = False,
    until: Annotated[
        str, typer.Option("--until", help="With --scope project: its last day, 2027-01-31.", show_default="90 days")
    ] = "",
    because: Annotated[str, typer.Option("--because", help="Why, for your own record.")] = "",
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Approve a request. The serving node answers it within seconds, by the consents of that moment.

    An approval settles the reasons that the request shows, never a consent that denies. --scope project approves
    every question of the same project for the same purpose about the same dataset, until a day.
    """
    from connexon_node.approvals.model import Scope
    from connexon_node.approvals.store import ApprovalStore

    if scope not in (one.value for one in Scope):
        raise InvalidQuery("Write --scope query, or --scope project.", code="approval.scope")
    if scope == "query" and (everyone or until):
        raise InvalidQuery("--everyone and --until go with --scope project.", code="approval.scope")
    found, approval = ApprovalStore(_database(directory)).approve(
        request,
        scope=Scope(scope),
        everyone=everyone,
        until_ms=_end_of(until) if until else now_ms() + APPROVAL_DAYS * DAY,
        by=by_whom(by),
        because=because,
    )
    if as_json:
        print_json({"request": found.query_id, "approval": _approval_document(approval)})
        return
    OUT.print(f"[green]approved[/] {found.query_id}: {escape(found.question)}", soft_wrap=True)
    if approval.scope is Scope.PROJECT:
        who = approval.researcher or "whoever names it"
        OUT.print(
            f"  project {escape(approval.project)}, {escape(who)}, until {to_text(approval.expires_at_ms)}; "
            f"take it back with  {escape(suggested(f'approvals revoke {approval.approval_id}', directory))}",
            soft_wrap=True,
        )


def refuse(
    request: RequestArgument,
    because: Annotated[str, typer.Option("--because", help="Why. The researcher reads it.")],
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Refuse a request; the researcher is told why."""
    from connexon_node.approvals.store import ApprovalStore

    if not because.strip():
        raise InvalidQuery("Say why: the researcher reads it.", code="refusal.because")
    found = ApprovalStore(_database(directory)).refuse(request, by=by_whom(by), because=_line(because.strip()))
    if as_json:
        print_json({"request": found.query_id, "because": because})
        return
    OUT.print(f"[red]refused[/] {found.query_id}: {escape(found.question)}", soft_wrap=True)


@approvals.command("list")
def list_approvals(
    directory: DirOption = HERE,
    everything: Annotated[
        bool, typer.Option("--all", help="Also of single queries, and those that ended or were revoked.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the approvals of projects that are in force."""
    from connexon_node.approvals.store import ApprovalStore

    found = ApprovalStore(_database(directory)).approvals(everything=everything)
    if as_json:
        print_json({"approvals": [_approval_document(one) for one in found]})
        return
    if not found:
        OUT.print("No project is approved.")
    for one in found:
        what = f"project {one.project}" if one.scope.value == "project" else f"query {one.query_id}"
        OUT.print(f"[bold]{one.approval_id}[/] {escape(what)} · {escape(one.dataset)} · {escape(one.purpose_words)}")
        who = escape(one.researcher or "whoever names the project")
        OUT.print(indented(f"for {who}, until {to_text(one.expires_at_ms)}"))
        OUT.print(indented(f"settles {', '.join(sorted(one.rules))}"))
        OUT.print(indented(f"given {to_text(one.given_at_ms)} by {escape(one.given_by)}{why(one.because)}"))
        if one.revoked_at_ms is not None:
            revoked = f"revoked {to_text(one.revoked_at_ms)} by {escape(one.revoked_by)}{why(one.revoked_because)}"
            OUT.print(indented(f"[red]{revoked}[/]"))


@approvals.command("revoke")
def revoke(
    approval: Annotated[
        str,
        typer.Argument(metavar="APPROVAL", help="Its id from approvals list.", autocompletion=completing.approvals),
    ],
    because: Annotated[str, typer.Option("--because", help="Why, for your own record.")] = "",
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Take a project's approval back: its next questions wait for you again. What was answered stays answered."""
    from connexon_node.approvals.store import ApprovalStore

    found = ApprovalStore(_database(directory)).revoke(approval, by=by_whom(by), because=because)
    if as_json:
        print_json({"revoked": found.approval_id})
        return
    OUT.print(f"[red]revoked[/] {found.approval_id}: project {escape(found.project)}")


def _print_request(one: Request, donors: dict[int, int]) -> None:
    OUT.print(f"[bold]{one.query_id}[/] {one.state.value}{f', {one.outcome}' if one.outcome else ''}", soft_wrap=True)
    project = f", project {one.project}" if one.project else ""
    who = f"{one.researcher} ({one.role} at {one.center})"
    OUT.print(indented(escape(f"{who} asks to {one.question}, for {one.purpose_words}{project}")))
    for reason in one.reasons:
        OUT.print(indented(f"[yellow]•[/] {escape(reason.says)}"))
        OUT.print(indented(f"[dim]{reason.rule}, {counted(_donors(reason.profiles, donors), 'donor')}[/]", by=4))
    OUT.print(indented(f"asked {to_text(one.asked_at_ms)}, waits until {to_text(one.expires_at_ms)}"))
    if one.decided_at_ms is not None:
        decided = f"decided {to_text(one.decided_at_ms)} by {escape(one.decided_by)}{why(one.because)}"
        OUT.print(indented(decided))


def _donors(profiles: frozenset[int], donors: dict[int, int]) -> int:
    """Donors with these consents in force; with any, where a reason is not about consents."""
    return sum(count for number, count in donors.items() if number and (not profiles or number in profiles))


def _request_document(one: Request, donors: dict[int, int]) -> dict[str, Any]:
    return {
        "request": one.query_id,
        "state": one.state.value,
        "outcome": one.outcome,
        "researcher": one.researcher,
        "role": one.role,
        "center": one.center,
        "question": one.question,
        "dataset": one.dataset,
        "purpose": one.purpose_words,
        "project": one.project,
        "reasons": [
            {"rule": reason.rule, "says": reason.says, "donors": _donors(reason.profiles, donors)}
            for reason in one.reasons
        ],
        "asked_at": to_text(one.asked_at_ms),
        "waits_until": to_text(one.expires_at_ms),
        "decided_at": None if one.decided_at_ms is None else to_text(one.decided_at_ms),
        "decided_by": one.decided_by,
        "because": one.because,
    }


def _approval_document(one: Approval) -> dict[str, Any]:
    return {
        "approval": one.approval_id,
        "scope": one.scope.value,
        "query_id": one.query_id,
        "researcher": one.researcher,
        "project": one.project,
        "purpose": one.purpose_words,
        "dataset": one.dataset,
        "settles": sorted(one.rules),
        "given_at": to_text(one.given_at_ms),
        "given_by": one.given_by,
        "because": one.because,
        "until": to_text(one.expires_at_ms),
        "in_force": one.in_force(now_ms()),
        "revoked_at": None if one.revoked_at_ms is None else to_text(one.revoked_at_ms),
        "revoked_by": one.revoked_by,
        "revoked_because": one.revoked_because,
    }


def _end_of(day: str) -> int:
    try:
        return midnight(day) + DAY
    except ValueError as error:
        raise InvalidQuery(
            f"Write --until as a day, such as 2027-01-31, not {day!r}.",
            code="approval.until",
        ) from error


def _line(text: str) -> str:
    if len(text) > 300 or not text.isprintable():
        raise InvalidQuery("The reason must be one line of at most 300 characters.", code="refusal.because")
    return text


def _database(directory: DirOption) -> Database:
    from connexon_node.cli.context import opened

    return opened(directory).database
