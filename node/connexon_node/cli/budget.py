"""Commands on privacy budgets: who has spent what, refilling, and limits of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import OUT, new_app, print_json, table
from connexon.errors import InvalidQuery, NotFound
from connexon_node.cli import completing
from connexon_node.cli.options import ByOption, JsonOption, by_whom
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.privacy import Account, Budgets, Entry

ResearcherArgument = Annotated[str, typer.Argument(metavar="RESEARCHER", help="As budget list shows it: lyon/ada.")]
DatasetOption = Annotated[
    str, typer.Option("--dataset", help="About which dataset.", autocompletion=completing.datasets)
]
ProjectOption = Annotated[
    str, typer.Option("--project", help="A project that the researcher's credential vouches for.", show_default="none")
]
BecauseOption = Annotated[str, typer.Option("--because", help="Why, for your own record.")]
app = new_app("budget", "Privacy budgets: how much of a dataset's privacy each researcher and project has spent.")


@app.command("list")
def list_accounts(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """List every budget that was used or given a limit of its own: what is spent, and of how much."""
    budgets = _budgets(directory)
    accounts = budgets.accounts()
    if as_json:
        print_json({"budgets": [_document(budgets, one) for one in accounts]})
        return
    if not accounts:
        OUT.print("No privacy budget was used yet.")
        return
    listed = table("Researcher", "Project", "Dataset", "Spent", "Of", "", right=("Spent", "Of"))
    for one in accounts:
        spent, limit = _amount(budgets, one.spent), _amount(budgets, one.limit)
        remark = "closed" if one.limit == 0 else "own limit" if one.own_limit else ""
        listed.add_row(escape(one.researcher), escape(one.project or "-"), escape(one.dataset), spent, limit, remark)
    OUT.print(listed)
    OUT.print(
        f"Amounts are epsilons at delta {budgets.delta:g}. They do not simply add up: two charges of 1 come to less "
        "than 2.",
        style="dim",
    )


@app.command("show")
def show(
    researcher: ResearcherArgument,
    dataset: Annotated[str, typer.Option("--dataset", help="Only of this dataset.")] = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show a researcher's budgets line by line: each charge with its query, each refill with who made it and why."""
    budgets = _budgets(directory)
    found = [
        one for one in budgets.accounts() if one.researcher == researcher and (not dataset or one.dataset == dataset)
    ]
    if not found:
        raise NotFound(
            f"{researcher} has used no budget; connexon-node budget list shows who has.", code="budget.unknown"
        )
    lines = [budgets.entries(researcher=one.researcher, project=one.project, dataset=one.dataset) for one in found]
    if as_json:
        documents = [
            {**_document(budgets, one), "entries": [_entry_document(entry) for entry in entries]}
            for one, entries in zip(found, lines, strict=True)
        ]
        print_json({"budgets": documents})
        return
    for one, entries in zip(found, lines, strict=True):
        _print(budgets, one)
        for entry in entries:
            OUT.print(f"  {to_text(entry.at_ms)}  {escape(_in_words(budgets, entry))}", soft_wrap=True)


@app.command("refill")
def refill(
    researcher: ResearcherArgument,
    dataset: DatasetOption,
    because: BecauseOption,
    project: ProjectOption = "",
    to: Annotated[float, typer.Option("--to", min=0, help="The epsilon that stays spent.")] = 0.0,
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Give a budget back what was spent of it. Only you can; nothing refills by itself.

    What left stays known outside: the budget's whole spending is shown further on.
    """
    budgets = _budgets(directory)
    _require(because)
    names = {"researcher": researcher, "project": project, "dataset": dataset}
    before = next((one for one in budgets.accounts() if _is(one, names)), None)
    if before is None:
        raise NotFound("No such budget was used; connexon-node budget list shows which were.", code="budget.unknown")
    given = None if to == 0 else before.spent - budgets.rho(to)
    if given is not None and given <= 0:
        raise InvalidQuery(
            f"Only epsilon {_amount(budgets, before.spent)} is spent, which is not more than {to:g}.",
            code="budget.refill",
        )
    after = budgets.refill(**names, rho=given, by=by_whom(by), because=because)
    _changed(budgets, after, "refilled", as_json=as_json)


@app.command("limit")
def limit(
    researcher: ResearcherArgument,
    dataset: DatasetOption,
    epsilon: Annotated[float, typer.Option("--epsilon", min=0, max=1000, help="The new limit; 0 closes the budget.")],
    because: BecauseOption,
    project: ProjectOption = "",
    by: ByOption = "",
    directory: DirOption = HERE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also for a researcher who is not known here yet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give one budget a limit of its own, instead of budget_epsilon in node.toml."""
    from connexon_node.dictionary import DICTIONARY

    _require(because)
    DICTIONARY.named(dataset)
    if not yes:
        _require_known(directory, researcher)
    budgets = _budgets(directory)
    after = budgets.set_limit(
        researcher=researcher,
        project=project,
        dataset=dataset,
        rho=budgets.rho(epsilon),
        by=by_whom(by),
        because=because,
    )
    _changed(budgets, after, "limited", as_json=as_json)


def _changed(budgets: Budgets, after: Account, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"budget": _document(budgets, after)})
        return
    OUT.print(f"[green]{what}[/]")
    _print(budgets, after)


def _print(budgets: Budgets, one: Account) -> None:
    project = f" for project {one.project}" if one.project else ""
    OUT.print(f"[bold]{escape(one.researcher)}[/]{escape(project)} about {escape(one.dataset)}", soft_wrap=True)
    OUT.print(
        f"  epsilon {_amount(budgets, one.spent)} of {_amount(budgets, one.limit)} is spent"
        f"{', a limit of its own' if one.own_limit else ''}; in all, refills or not, "
        f"{_amount(budgets, one.ever_spent)} has left (delta {budgets.delta:g})",
        soft_wrap=True,
    )


def _in_words(budgets: Budgets, entry: Entry) -> str:
    match entry.kind.value:
        case "charge":
            task = f", {entry.task}" if entry.task else ""
            return f"charged epsilon {_amount(budgets, entry.rho)} for {entry.query_id}{task}"
        case "refill":
            return f"refilled epsilon {_amount(budgets, entry.rho)} by {entry.by}: {entry.note}"
        case _:
            return f"limited to epsilon {_amount(budgets, entry.rho)} by {entry.by}: {entry.note}"


def _document(budgets: Budgets, one: Account) -> dict[str, Any]:
    return {
        "researcher": one.researcher,
        "project": one.project,
        "dataset": one.dataset,
        "limit": {"epsilon": budgets.epsilon(one.limit), "rho": one.limit, "own": one.own_limit},
        "spent": {"epsilon": budgets.epsilon(one.spent), "rho": one.spent},
        "ever_spent": {"epsilon": budgets.epsilon(one.ever_spent), "rho": one.ever_spent},
        "left_rho": one.left,
        "delta": budgets.delta,
        "thresholds": {"limit_delta": one.delta_limit, "spent_delta": one.delta_spent},
    }


def _entry_document(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind.value,
        "rho": entry.rho,
        "delta": entry.delta,
        "query_id": entry.query_id,
        "task": entry.task,
        "by": entry.by,
        "because": entry.note,
        "at_ms": entry.at_ms,
    }


def _amount(budgets: Budgets, rho: float) -> str:
    return f"{budgets.epsilon(rho):.3g}"


def _is(one: Account, names: dict[str, str]) -> bool:
    return {"researcher": one.researcher, "project": one.project, "dataset": one.dataset} == names


def _require(because: str) -> None:
    if not because.strip():
        raise InvalidQuery("Say why, with --because.", code="budget.because")


def _require_known(directory: DirOption, researcher: str) -> None:
    """Raise NotFound for a researcher who was neither accredited here nor ever asked anything here."""
    from connexon.suggest import hint
    from connexon_node.accredit import Accreditations
    from connexon_node.audit import AuditLog
    from connexon_node.cli.opened import opened

    node = opened(directory)
    accredited = {f"{node.settings.hub.center}/{one.subject}" for one in Accreditations(node.database).all()}
    if researcher not in accredited and not AuditLog(node.database).has_asked(researcher):
        raise NotFound(
            f"{researcher} was not accredited here and has never asked anything here.{hint(researcher, accredited)} "
            "If the name is right, add --yes.",
            code="budget.unknown_researcher",
        )


def _budgets(directory: DirOption) -> Budgets:
    from connexon_node.cli.opened import opened
    from connexon_node.privacy import Budgets
    from connexon_node.release.floors import floors, stricter_privacy
    from connexon_node.roster_keeper import open_keeper

    node = opened(directory)
    least = floors(open_keeper(node.settings, node.database).present.policy_files)
    return Budgets(node.database, stricter_privacy(node.settings.privacy, least.privacy))
