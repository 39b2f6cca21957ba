"""Commands on the account of persons: what may still be told of this center's donors, and who has spent what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import OUT, indented, new_app, print_json, table
from connexon.errors import InvalidQuery, NotFound
from connexon_node.cli.options import ByOption, JsonOption, by_whom
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.privacy.account import Account, Balance, Entry, State

ResearcherArgument = Annotated[str, typer.Argument(metavar="RESEARCHER", help="As budget list shows it: lyon/ada.")]
BecauseOption = Annotated[str, typer.Option("--because", help="Why, for your own record.")]
app = new_app("budget", "The account of persons: how much may still be told of this center's donors, and who spent it.")
_SHARES = {"tables": "first-ask tables", "questions": "researchers' questions", "models": "statistics and models"}


@app.command("list")
def list_accounts(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show where the account stands, what that means for a donor, and what each researcher has spent this year."""
    account = _account(directory)
    state, researchers = account.state(), account.researchers()
    if as_json:
        print_json({"account": _state_document(state), "researchers": _researcher_documents(researchers)})
        return
    OUT.print(f"Year {state.year}, until {to_text(state.ends_ms)}")
    whole = table("", "Spent", "Of", "Left", right=("Spent", "Of", "Left"))
    whole.add_row("everything this year", *_amounts(state.total))
    for share, balance in state.shares.items():
        whole.add_row(f"  {_SHARES[share.value]}", *_amounts(balance))
    whole.add_row("all years together", *_amounts(state.lifetime))
    OUT.print(whole)
    trained = "1 model was" if state.models == 1 else f"{state.models} models were"
    OUT.print(f"{trained} trained with noise this year.", style="dim")
    OUT.print(indented(_meaning(state)))
    if not researchers:
        OUT.print("No researcher has asked for numbers with noise yet.")
        return
    listed = table("Researcher", "Spent", "Of", "Left", right=("Spent", "Of", "Left"))
    for name, balance in researchers.items():
        listed.add_row(escape(name), *_amounts(balance))
    OUT.print(listed)
    OUT.print("Amounts are rho of zero-concentrated differential privacy about one donor.", style="dim")


@app.command("show")
def show(researcher: ResearcherArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show what a researcher was charged, answer by answer."""
    account = _account(directory)
    balance = account.researchers().get(researcher)
    if balance is None:
        raise NotFound(
            f"{researcher} has spent nothing here; connexon-node budget list shows who has.", code="budget.unknown"
        )
    entries = account.entries(researcher)
    if as_json:
        document = {"researcher": researcher, **_balance_document(balance)}
        print_json({"budget": document, "entries": [_entry_document(entry) for entry in entries]})
        return
    OUT.print(f"[bold]{escape(researcher)}[/]  {balance.spent:.4f} of {balance.limit:.4f} is spent this year")
    for entry in entries:
        OUT.print(f"  {to_text(entry.at_ms)}  {escape(_in_words(entry))}", soft_wrap=True)


@app.command("limit")
def limit(
    researcher: ResearcherArgument,
    rho: Annotated[float, typer.Option("--rho", min=0, max=100, help="The new yearly share; 0 closes it.")],
    because: BecauseOption,
    by: ByOption = "",
    directory: DirOption = HERE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also for a researcher who is not known here yet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give a researcher a yearly share of their own. The center's own limits stay: nothing refills those."""
    if not because.strip():
        raise InvalidQuery("Say why, with --because.", code="budget.because")
    if not yes:
        require_known(directory, researcher)
    after = _account(directory).set_share(researcher, rho=rho, by=by_whom(by), because=because)
    if as_json:
        print_json({"budget": {"researcher": researcher, **_balance_document(after)}})
        return
    OUT.print(f"[green]limited[/] {escape(researcher)}: {after.spent:.4f} of {after.limit:.4f} is spent this year")


def _meaning(state: State) -> str:
    from connexon.zcdp import best_guess

    counts, tables = best_guess(state.lifetime.spent), best_guess(2 * state.lifetime.spent)
    return (
        f"A clever stranger who knows everything but one yes-or-no secret of one donor, and has seen every answer so "
        f"far, guesses it right in at most {counts:.0%} of cases by counts, {tables:.0%} by tables; 50% is a coin."
    )


def _amounts(balance: Balance) -> tuple[str, str, str]:
    return (f"{balance.spent:.4f}", f"{balance.limit:.4f}", f"{balance.left:.4f}")


def _in_words(entry: Entry) -> str:
    from connexon_node.privacy.account import Share

    charge = entry.charge
    task = f", {entry.task}" if entry.task else ""
    what = "the model of " if charge.share is Share.MODELS else ""
    whom = f", donors with {charge.stratum} only" if charge.stratum else ""
    project = f" for project {charge.project}" if charge.project else ""
    return f"{charge.rho:.4f} for {what}{entry.query_id}{task}{project}{whom}"


def _balance_document(balance: Balance) -> dict[str, float]:
    return {"limit": balance.limit, "spent": balance.spent, "left": balance.left}


def _state_document(state: State) -> dict[str, Any]:
    return {
        "year": state.year,
        "begins_ms": state.begins_ms,
        "ends_ms": state.ends_ms,
        "total": _balance_document(state.total),
        "shares": {share.value: _balance_document(balance) for share, balance in state.shares.items()},
        "lifetime": _balance_document(state.lifetime),
        "models": state.models,
    }


def _researcher_documents(researchers: dict[str, Balance]) -> list[dict[str, Any]]:
    return [{"researcher": name, **_balance_document(balance)} for name, balance in researchers.items()]


def _entry_document(entry: Entry) -> dict[str, Any]:
    return {
        "share": entry.charge.share.value,
        "rho": entry.charge.rho,
        "delta": entry.charge.delta,
        "project": entry.charge.project,
        "stratum": entry.charge.stratum,
        "query_id": entry.query_id,
        "task": entry.task,
        "at_ms": entry.at_ms,
    }


def require_known(directory: DirOption, researcher: str) -> None:
    """Raise NotFound for a researcher who was neither accredited here nor ever asked anything here."""
    from connexon.suggest import hint
    from connexon_node.audit import AuditLog
    from connexon_node.cli.context import opened
    from connexon_node.membership.accreditation import Accreditations

    node = opened(directory)
    accredited = {f"{node.settings.hub.center}/{one.subject}" for one in Accreditations(node.database).all()}
    if researcher not in accredited and not AuditLog(node.database).has_asked(researcher):
        raise NotFound(
            f"{researcher} was not accredited here and has never asked anything here.{hint(researcher, accredited)} "
            "If the name is right, add --yes.",
            code="budget.unknown_researcher",
        )


def _account(directory: DirOption) -> Account:
    from connexon_node.cli.context import opened
    from connexon_node.membership.roster import open_keeper
    from connexon_node.privacy import Account
    from connexon_node.release.floors import floors, stricter_privacy

    node = opened(directory)
    least = floors(open_keeper(node.settings, node.database).present.policy_files)
    return Account(node.database, stricter_privacy(node.settings.privacy, least.privacy))
