"""Commands on release: what may leave and why, and what would leave of one question, rule by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from connexon.console import ERR, OUT, new_app, print_json
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon.signed import Asked
    from connexon_node.release import Decision
    from connexon_node.serving import Opened
    from connexon_node.settings import ReleaseSection

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
app = new_app("release", "What may leave this center, and why: minimum donors, comparing with what is known, rounding.")
MINUTE_MS = 60_000


@app.command("show")
def show(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show the rules in force, in their order, and what is known outside already."""
    from connexon_node import settings
    from connexon_node.release.floors import floors, stricter
    from connexon_node.release.ledger import ReleaseLedger
    from connexon_node.serving import open_keeper
    from connexon_node.state import open_state

    folder = NodeFolder.find(directory)
    configured = settings.load(folder)
    database = open_state(configured.state_url or folder.default_state_url)
    least = floors(open_keeper(configured, database).present.policy_files)
    section = stricter(configured.release, least)
    known = ReleaseLedger(database, section.minimum_donors).sizes()
    if as_json:
        asked = {"center": configured.release.model_dump(), "federation": least.model_dump()}
        print_json({"in_force": section.model_dump(), **asked, "known_cohorts": known})
        return
    for number, (name, says) in enumerate(_rules(section), start=1):
        OUT.print(f"[bold]{number} {name}[/]")
        OUT.print(f"  {escape(says)}")
    counts = ", ".join(f"{count} of {dataset}" for dataset, count in known.items()) or "none"
    OUT.print(f"\nCohorts known outside: {counts}.")
    OUT.print(
        f"The federation asks for minimum_donors {least.minimum_donors} and round_to {least.round_to} at least; this "
        f"center for {configured.release.minimum_donors} and {configured.release.round_to}, in {folder.settings_file} "
        "(read at the next start of connexon-node serve). The stricter counts.",
        soft_wrap=True,
    )


def _rules(section: ReleaseSection) -> list[tuple[str, str]]:
    minimum = section.minimum_donors
    compared = (
        "One donor suffices, so answers are not compared with each other."
        if minimum == 1
        else f"A number that differs by fewer than {minimum} donors from a known one, from the sum or difference of "
        "two, or from what a table adds up to, leaves as the known one. This covers differencing, complements, "
        "margins, other words, other researchers, later imports and withdrawals."
    )
    rounding = "up or down by a draw that sticks" if section.rounding == "random" else "to the nearest"
    return [
        ("minimum_donors", f"No number rests on fewer than {minimum} distinct donors; none and a few look alike."),
        ("known outside", compared),
        ("round_to", f"Numbers are multiples of {section.round_to}, {rounding}, never down to zero; decided last."),
        ("unknown results", "A result that release does not understand does not leave."),
    ]


@app.command("try")
def try_query(
    query: Annotated[str, typer.Argument(help="The id of a query this node received, from audit list.")] = "",
    directory: DirOption = HERE,
    dataset: Annotated[str, typer.Option(help="Instead of a query: count records of this dataset.")] = "",
    where: Annotated[str, typer.Option(help="Which records, as researchers write it.")] = "",
    by: Annotated[list[str] | None, typer.Option("--by", help="A field to group by.")] = None,
    purpose: Annotated[str, typer.Option(help="As researchers write it: health, disease=MONDO:0005180.")] = "health",
    as_json: JsonOption = False,
) -> None:
    """Show what would leave now, group by group and why. Nothing leaves, is recorded, or becomes known by it.

    The exact numbers are for you only. Name a query that was received, or describe one: it is then asked in the name
    of a researcher of your own center.
    """
    from connexon.errors import InvalidQuery
    from connexon_node.serving import opened

    if bool(query) == bool(dataset):
        raise InvalidQuery("Name a query that was received, or a --dataset to count.", code="release.what")
    with ERR.status("Working it out ..."):
        node = opened(NodeFolder.find(directory))
        asked = _received(node, query) if query else _own(node, dataset, where, tuple(by or ()), purpose)
        decision = _decided(node, asked)
    if as_json:
        print_json(_document(decision))
    else:
        _print(decision)


def _received(node: Opened, query: str) -> Asked:
    from connexon import signed, wire_question
    from connexon.errors import NotFound
    from connexon_node.inbox import Inbox
    from connexon_node.verify import open_parcel

    delivery = Inbox(node.database).delivery(query)
    if delivery is None:
        raise NotFound(f"No query {query} is kept here; audit list shows those received.", code="query.unknown")
    parcel = open_parcel(delivery.body)
    question = wire_question.from_bytes(parcel.payload)
    return signed.verify_query(parcel, node.keeper.present, at_ms=question.issued_at_ms)


def _own(node: Opened, dataset: str, where: str, by: tuple[str, ...], purpose: str) -> Asked:
    """A question asked, signed and proved as every question is, by a key that this center accredits for a minute."""
    import uuid

    from connexon import credential, identity, signed
    from connexon import purpose as purposes
    from connexon import where as wheres
    from connexon.clock import now_ms
    from connexon.identity import SigningKey
    from connexon.question import Count, Question

    key, moment, home = SigningKey.generate(), now_ms(), identity.center_id(node.settings.hub.center)
    token = credential.issue(
        node.keys.accrediting,
        center=home,
        federation=node.settings.hub.federation,
        subject="steward-trial",
        name="A trial by the steward",
        role="researcher",
        researcher_key=key.public,
        life_ms=MINUTE_MS,
    )
    question = Question(
        query_id=str(uuid.uuid4()),
        federation=node.settings.hub.federation,
        centers=(home,),
        issued_at_ms=moment,
        expires_at_ms=moment + MINUTE_MS,
        purpose=purposes.parse_purpose(purpose),
        dataset=dataset,
        filter=wheres.parse(where) if where else None,
        analysis=Count(by),
    )
    return signed.verify_query(signed.sign_query(question, key, token), node.keeper.present)


def _decided(node: Opened, asked: Asked) -> Decision:
    from connexon.clock import now_ms
    from connexon_node.pipeline import Work

    steps = node.steps
    cohort = steps.consent.cohort(steps.access.authorise(asked))
    work = Work(deadline_ms=now_ms() + int(node.settings.engine.seconds * 1000))
    return node.release.decide(steps.engine.run(asked.question, cohort, work))


def _document(decision: Decision) -> dict[str, Any]:
    from connexon_node.recorder import STATUS_WORDS

    return {
        "status": STATUS_WORDS[decision.answer.status],
        "groups": [
            {
                "key": [None if value is None else str(value) for value in one.cell.key],
                "records": one.cell.records,
                "donors": one.cell.donors,
                "leaves": one.number,
                "why": one.why,
            }
            for one in decision.judged
        ],
    }


def _print(decision: Decision) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("Group", "Records", "Donors", "Leaves", "Why"):
        table.add_column(column, justify="right" if column in ("Records", "Donors", "Leaves") else "left")
    for one in decision.judged:
        key = ", ".join("missing" if value is None else str(value) for value in one.cell.key) or "all"
        leaves = "nothing" if one.number is None else str(one.number)
        table.add_row(escape(key), str(one.cell.records), str(one.cell.donors), leaves, escape(one.why))
    OUT.print(table)
    OUT.print("Exact numbers are for you only. Nothing left, and nothing became known.", style="dim")
