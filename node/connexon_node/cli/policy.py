"""Commands on policy: check the rules and their cases, show them, and explain what they say to a request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import ERR, OUT, indented, new_app, print_json
from connexon_node.cli import completing
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon_node.policy.ruleset import RuleSet
    from connexon_node.policy_review.checking import Report

PoliciesOption = Annotated[
    Path | None,
    typer.Option("--policies", help="A policies folder to look at instead of the node's rules; needs no node."),
]
app = new_app(
    "policy",
    "The rules: the federation's from the roster, and your own from the folder [bold]policies[/], which only narrow.",
)


@app.command("check")
def check(
    directory: DirOption = HERE,
    policies: PoliciesOption = None,
    write_formatted: Annotated[
        bool, typer.Option("--format", help="Also write your own files (or those of --policies) in Cedar's format.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check syntax, schema, format and every case. Exit status 1 when anything is wrong.

    Your own cases go into policies/cases/*.yaml. Each says who asks what for which purpose over which consent, and
    the verdict and the rule that must come of it.
    """
    from connexon_node.policy_review import checking

    with ERR.status("Checking ..."):
        sources = checking.Sources.of_folder(policies) if policies else _sources(directory)
        if write_formatted:
            checking.write_formatted(policies or NodeFolder.find(directory).policies)
            sources = checking.Sources.of_folder(policies) if policies else _sources(directory)
        report = checking.check(sources)
    if as_json:
        print_json(_report_document(report))
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command("show")
def show(
    rule: Annotated[str, typer.Argument(help="The id of one rule, to see its text.")] = "",
    directory: DirOption = HERE,
    policies: PoliciesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the rules in force, in order, each with its sentence."""
    from connexon.errors import NotFound
    from connexon_node.policy_review import checking

    rules = (checking.Sources.of_folder(policies) if policies else _sources(directory)).compile()
    if rule and rule not in rules.rules:
        raise NotFound(f"There is no rule {rule!r}; connexon-node policy show lists them.", code="policy.unknown_rule")
    chosen = [one for one in rules.rules.values() if rule in ("", one.id)]
    if as_json:
        print_json(
            {"version": rules.version, "switches": sorted(rules.switches), "rules": [_rule(one) for one in chosen]}
        )
        return
    if rule:
        OUT.print(f"[dim]{escape(chosen[0].place)}[/]")
        OUT.print(escape(chosen[0].text))
        return
    _print_rules(rules)


def _print_rules(rules: RuleSet) -> None:
    from connexon_node.policy.rules import BASELINE_MAY, OWN_MAY

    for action in dict.fromkeys((*BASELINE_MAY, *OWN_MAY)):
        about = sorted(rules.for_action(action), key=lambda one: (one.effect != "permit", one.own, one.id))
        if not about:
            continue
        OUT.print(f"\n[bold]{action}[/]")
        for one in about:
            color = "green" if one.effect == "permit" else "red"
            OUT.print(f"  [{color}]{one.effect}[/] {one.id}" + (" [dim](this center's own)[/]" if one.own else ""))
            OUT.print(indented(escape(one.says), by=4))
    for switch in sorted(rules.switches):
        OUT.print(f"\nSwitched on: {switch}")
    OUT.print(f"\n{len(rules.rules)} rules, version {rules.version}. What no rule permits is denied; forbid wins.")


def _sources(directory: DirOption) -> Any:
    from connexon.service import policy_files
    from connexon_node.cli.context import opened
    from connexon_node.membership.roster import open_keeper
    from connexon_node.ontology import Ontologies
    from connexon_node.policy_review.checking import Sources

    node = opened(directory)
    folder, keeper = node.folder, open_keeper(node.settings, node.database)
    return Sources.of_node(
        keeper.present.policy_files, policy_files.shipped(), folder.policies, Ontologies.open(folder.ontologies)
    )


def _rule(rule: Any) -> dict[str, Any]:
    return {
        "id": rule.id,
        "effect": rule.effect,
        "actions": list(rule.actions),
        "says": rule.says,
        "needs": list(rule.needs),
        "own": rule.own,
        "file": rule.file,
        "line": rule.line,
    }


def _report_document(report: Report) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "version": report.version,
        "rules": report.rules,
        "cases": [
            {
                "case": one.case.name,
                "place": one.case.place,
                "ok": not one.problems,
                "verdict": one.outcome.verdict.value,
                "rules": list(one.outcome.rules),
                "obligations": list(one.outcome.duties),
                "problems": list(one.problems),
            }
            for one in report.cases
        ],
        "uncovered": report.uncovered,
        "unformatted": list(report.unformatted),
    }


def _print_report(report: Report) -> None:
    for one in report.cases:
        for problem in one.problems:
            OUT.print(f"[red]✗[/] {escape(one.case.place)}: {escape(one.case.name)}")
            OUT.print(indented(escape(problem), by=4))
            for lacking in one.outcome.lacking:
                OUT.print(
                    indented(f"{lacking.rule.id} would need {escape(' and '.join(lacking.needs))}", by=4), style="dim"
                )
    for rule, what in report.uncovered.items():
        OUT.print(f"[red]✗[/] {rule}: {what}")
    for file in report.unformatted:
        OUT.print(f"[red]✗[/] {escape(file)} is not in Cedar's format; write it with  policy check --format")
    passed = sum(not one.problems for one in report.cases)
    mark = "[green]✓[/]" if report.ok else "[red]✗[/]"
    count = len(report.cases)
    OUT.print(f"{mark} {report.rules} rules, {passed} of {count} cases as they should be, version {report.version}")


@app.command("explain")
def explain(
    directory: DirOption = HERE,
    query: Annotated[
        str,
        typer.Option(
            "--query", help="A query this node received: its number, id or the start of its id, from audit list."
        ),
    ] = "",
    purpose: Annotated[str, typer.Option(help="As a researcher writes it: health, disease=MONDO:0005180.")] = "health",
    commercial: Annotated[bool, typer.Option("--commercial", help="The result serves a commercial use.")] = False,
    project: Annotated[str, typer.Option(help="The project with the purpose.")] = "",
    ethics_approval: Annotated[str, typer.Option(help="Reference of the ethics approval.")] = "",
    researcher: Annotated[str, typer.Option(help="Who asks: home center and name.")] = "",
    role: Annotated[str, typer.Option(help="The researcher's role.")] = "researcher",
    country: Annotated[str, typer.Option(help="Of the home center.", show_default="as in the roster")] = "",
    organisation: Annotated[
        str, typer.Option(help="academic, public, non_profit or commercial.", show_default="as in the roster")
    ] = "",
    status: Annotated[list[str] | None, typer.Option("--status", help="A researcher status: bona-fide.")] = None,
    grant: Annotated[
        list[str] | None,
        typer.Option("--grant", help="A controlled access grant; its day unless it is today: atlas@2026-01-15."),
    ] = None,
    term: Annotated[list[str] | None, typer.Option("--term", help="Terms accepted: model-training.")] = None,
    action: Annotated[
        str, typer.Option("--do", help="What they want to do: count, describe, statistics ...")
    ] = "count",
    dataset: Annotated[
        str, typer.Option(help="The dataset asked about.", autocompletion=completing.datasets)
    ] = "donors",
    as_json: JsonOption = False,
) -> None:
    """Explain what becomes of a request: which rule decides, and how many donors are in and out and why.

    Describe the request with the options, or name one that was received with --query. It is judged by the rules and
    consents of today. The numbers are exact and for you only.
    """
    from connexon_node.cli import requests

    with ERR.status("Judging ..."):
        room = requests.open_room(directory)
        if query:
            described = requests.received(room, query)
        else:
            who = requests.requester(
                room, researcher, role, country, organisation, statuses=status, grants=grant, terms=term
            )
            described = requests.described(who, purpose, commercial, project, ethics_approval, action, dataset)
        explanation = requests.explain(room, described)
        stated = requests.stated(room)
    if as_json:
        print_json(requests.explanation_document(described, explanation, stated))
    else:
        requests.print_explanation(described, explanation, stated)


@app.command("replay")
def replay(
    since: Annotated[str, typer.Option(help="Requests since then: 2026-11-01, or 2026-11-01T14:00, UTC.")],
    other: Annotated[
        Path, typer.Option("--with", help="A folder to take the place of the node's own policies: copy and change it.")
    ],
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show which past requests changed rules would judge otherwise, before you change them.

    Past requests are judged by the rules in force and by those of --with, each with the federation's, over the
    consents of today. Nothing is released or recorded. Exit status 1 when the changed rules are not sound.
    """
    from connexon_node.cli import requests
    from connexon_node.policy_review.replaying import Change, Saying

    with ERR.status("Judging past requests ..."):
        found, rules = requests.replayed(directory, since, other)

    def words(saying: Saying) -> str:
        donors = f" {saying.donors:,} donors" if saying.donors else ""
        withheld = f", without {', '.join(sorted(saying.withheld))}" if saying.withheld else ""
        return f"{requests.colored(saying.verdict.value)}{donors} {', '.join(saying.rules)}{withheld}"

    if as_json:
        print_json(requests.replay_document(found, rules))
        return
    change: Change
    for change in found.changes:
        record = change.past.record
        OUT.print(f"[bold]{record.query_id}[/] {to_text(record.at_ms)}, was {record.status}", soft_wrap=True)
        OUT.print(
            indented(f"{escape(record.researcher)} asked to {escape(change.past.words)} for {escape(record.purpose)}")
        )
        OUT.print(indented(f"before {words(change.before)}"))
        OUT.print(indented(f"after  {words(change.after)}"))
    OUT.print(f"{len(found.changes)} of {found.judged} past requests would be judged otherwise.")
    if found.unjudged:
        OUT.print(f"{found.unjudged} more were not judged: they are not kept any more, or cannot be proved.")


@app.command("switch")
def switch(
    name: Annotated[str, typer.Argument(help="The switch; without it, all are listed.")] = "",
    state: Annotated[str, typer.Argument(metavar="[on|off]")] = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List or turn the switches by which a center chooses the stricter reading of a rule."""
    from connexon.errors import InvalidQuery
    from connexon.suggest import hint
    from connexon_node.policy.store import SWITCHES, read_switches, write_switches

    folder = NodeFolder.find(directory).policies
    on = set(read_switches(folder))
    if name:
        if name not in SWITCHES or state not in ("on", "off"):
            known = ", ".join(SWITCHES)
            raise InvalidQuery(
                f"Write the name of a switch, then on or off.{hint(name, SWITCHES)} Known are {known}.",
                code="policy.switches",
            )
        on = on | {name} if state == "on" else on - {name}
        write_switches(folder, frozenset(on))
    if as_json:
        print_json({"switches": {one: one in on for one in SWITCHES}})
        return
    for one, meaning in SWITCHES.items():
        OUT.print(f"{'[green]on[/] ' if one in on else '[dim]off[/]'} {one}")
        OUT.print(indented(escape(meaning), by=4))
