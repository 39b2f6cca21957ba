"""Commands on release: what may leave and why, and what would leave of one question, rule by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.console import ERR, OUT, indented, new_app, print_json, table
from connexon_node.cli import completing
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon.analyses.count import Count
    from connexon.conditions.filters import Scalar
    from connexon.query.signed import Asked
    from connexon.v1 import answer_pb2
    from connexon_node.assembly import Opened
    from connexon_node.release import Decision
    from connexon_node.settings import PrivacySection, ReleaseSection

app = new_app("release", "What may leave this center, and why: minimum donors, comparing with what is known, rounding.")
MINUTE_MS = 60_000


@app.command("show")
def show(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show the rules in force, in their order, and what is known outside already."""
    from connexon_node.cli.context import opened
    from connexon_node.membership.roster import open_keeper
    from connexon_node.release.floors import floors, stricter, stricter_privacy
    from connexon_node.release.ledger import ReleaseLedger

    node = opened(directory)
    configured, database = node.settings, node.database
    least = floors(open_keeper(configured, database).present.policy_files)
    section = stricter(configured.release, least)
    privacy = stricter_privacy(configured.privacy, least.privacy)
    known = ReleaseLedger(database, section.minimum_donors).sizes()
    if as_json:
        asked = {"center": configured.release.model_dump(), "federation": least.model_dump()}
        private = {"in_force": privacy.model_dump(), "center": configured.privacy.model_dump()}
        print_json({"in_force": section.model_dump(), **asked, "privacy": private, "known_cohorts": known})
        return
    rules = [*_private_rules(privacy), *((f"granted numbers: {name}", says) for name, says in _rules(section))]
    for number, (name, says) in enumerate(rules, start=1):
        OUT.print(f"[bold]{number} {name}[/]")
        OUT.print(indented(escape(says)))
    counts = ", ".join(f"{count} of {dataset}" for dataset, count in known.items()) or "none"
    OUT.print(f"\nGroups of donors whose number is known outside: {counts}.")
    own = configured.release
    OUT.print(
        f"The federation asks for minimum_donors {least.minimum_donors} and round_to {least.round_to} at least; this "
        f"center for {own.minimum_donors} and {own.round_to}, in {node.folder.settings_file} (read at the next start "
        "of connexon-node serve). The stricter counts."
    )
    if not least.privacy.grants:
        OUT.print("The federation forbids granting exact numbers.")


def _rules(section: ReleaseSection) -> list[tuple[str, str]]:
    minimum = section.minimum_donors
    compared = (
        "One donor suffices, so answers are not compared with each other."
        if minimum == 1
        else f"A number that differs by fewer than {minimum} donors from a known one, or from what several known ones "
        "come to, whatever their dataset, leaves as the known one. This covers differencing, complements, margins, "
        "other words, other researchers, later imports and withdrawals."
    )
    parts = (
        "Every part of a condition counts."
        if minimum == 1
        else f"A part of a condition, a value of a list too, counts only where it decides whether {minimum} donors or "
        "more are counted, in each group by itself; dates count by month and numbers by bins."
    )
    rounding = "up or down by a draw that sticks" if section.rounding == "random" else "to the nearest"
    return [
        ("minimum_donors", f"No number rests on fewer than {minimum} distinct donors; none and a few look alike."),
        ("parts of conditions", parts),
        ("known outside", compared),
        (
            "independent_cohorts",
            f"A project may have exact numbers of {section.independent_cohorts:g} groups for each donor, all together "
            "three times that; connexon-node grant list tells what is used up.",
        ),
        ("round_to", f"Numbers are multiples of {section.round_to}, {rounding}, never down to zero; decided last."),
        ("unknown results", "A result that release does not understand does not leave."),
    ]


def _private_rules(privacy: PrivacySection) -> list[tuple[str, str]]:
    return [
        (
            "private numbers",
            f"All that rests on persons has noise that hides every single donor, within {privacy.within} where a "
            "question does not say how close. The same question gets the same numbers, and names of groups show only "
            "where noise hides on whom they rest.",
        ),
        (
            "account of persons",
            f"What numbers with noise tell is charged to one account, whoever asks: rho {privacy.year:g} a year, "
            f"{privacy.lifetime:g} in all years; {privacy.researcher:g} a year for one researcher. connexon-node "
            "budget list shows what is spent.",
        ),
    ]


@app.command("try")
def try_query(
    query: Annotated[
        str, typer.Argument(help="A query this node received: its number, id or the start of its id, from audit list.")
    ] = "",
    directory: DirOption = HERE,
    dataset: Annotated[
        str,
        typer.Option(help="Instead of a query: count records of this dataset.", autocompletion=completing.datasets),
    ] = "",
    where: Annotated[str, typer.Option(help="Which records, as researchers write it.")] = "",
    by: Annotated[list[str] | None, typer.Option("--by", help="A field to group by.")] = None,
    purpose: Annotated[str, typer.Option(help="As researchers write it: health, disease=MONDO:0005180.")] = "health",
    records: Annotated[bool, typer.Option("--records", help="Count records instead of donors.")] = False,
    within: Annotated[int | None, typer.Option("--within", min=1, max=1000, help="How close numbers must be.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would leave now, group by group and why. Nothing leaves, is recorded, or becomes known by it.

    The exact numbers are for you only. Name a query that was received, or describe one: it is then asked in the name
    of a researcher of your own center. Noise is drawn as it would be, but what you see is not what will leave.
    """
    from connexon.analyses.count import Count
    from connexon.analyses.spec import Unit
    from connexon.errors import InvalidQuery
    from connexon_node.assembly import opened
    from connexon_node.data.dictionary import DICTIONARY

    if bool(query) == bool(dataset):
        raise InvalidQuery("Name a query that was received, or a --dataset to count.", code="release.what")
    if dataset:
        DICTIONARY.named(dataset)
    with ERR.status("Working it out ..."):
        node = opened(NodeFolder.find(directory))
        count = Count(tuple(by or ()), Unit.RECORDS if records else Unit.DONORS)
        asked = _received(node, query) if query else _own(node, dataset, where, count, purpose, within)
        decision = _decided(node, asked)
    if as_json:
        print_json(_document(decision))
    else:
        _print(decision)


def _received(node: Opened, query: str) -> Asked:
    from connexon.identity.credential import NOTHING_REVOKED
    from connexon.query import signed, wire_question
    from connexon_node.delivery.lookup import received
    from connexon_node.pipeline.verification import open_parcel

    parcel = open_parcel(received(node.database, query).body)
    question = wire_question.from_bytes(parcel.payload)
    # Proved as of the moment when it was asked: what has been revoked since makes no difference to what would leave.
    return signed.verify_query(parcel, node.keeper.present, NOTHING_REVOKED, at_ms=question.issued_at_ms)


def _own(node: Opened, dataset: str, where: str, count: Count, purpose: str, within: int | None) -> Asked:
    """A question asked, signed and proved as every question is, by a key that this center accredits for a minute."""
    import uuid

    from connexon.clock import now_ms
    from connexon.conditions import where as wheres
    from connexon.identity import credential, keys
    from connexon.identity.keys import SigningKey
    from connexon.query import purpose as purposes
    from connexon.query import signed
    from connexon.query.question import Question
    from connexon_node.membership.revocations import RevocationStore

    key, moment, home = SigningKey.generate(), now_ms(), keys.center_id(node.settings.hub.center)
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
        analysis=count,
        within=within,
    )
    query = signed.sign_query(question, key, token)
    return signed.verify_query(query, node.keeper.present, RevocationStore(node.database))


def _decided(node: Opened, asked: Asked) -> Decision:
    from connexon.clock import now_ms
    from connexon_node.pipeline.values import Work

    steps = node.steps
    cohort = steps.consent.cohort(steps.access.authorise(asked))
    work = Work(deadline_ms=now_ms() + int(node.settings.engine.seconds * 1000))
    return node.release.decide(steps.engine.run(asked.question, cohort, work))


def _document(decision: Decision) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    from connexon_node.audit.recorder import STATUS_WORDS

    private = decision.private
    has_noise = decision.answer.protection.HasField("noise")
    noise = MessageToDict(decision.answer.protection.noise, preserving_proto_field_name=True) if has_noise else None
    return {
        "noise": noise,
        "from_tables_of_edition": decision.from_tables or None,
        "edition": decision.answer.protection.edition or None,
        "costs_rho": private.charge.rho if private and private.charge else 0.0,
        "status": STATUS_WORDS[decision.answer.status],
        "groups": [
            {
                "key": [None if value is None else str(value) for value in one.cell.key],
                "records": None if decision.from_tables else one.cell.records,
                "donors": None if decision.from_tables else one.cell.donors,
                "leaves": one.number,
                "why": one.why,
            }
            for one in decision.judged
        ],
    }


def _print(decision: Decision) -> None:
    from connexon_node.audit.recorder import STATUS_WORDS

    OUT.print(f"Outcome: [bold]{STATUS_WORDS[decision.answer.status].replace('_', ' ')}[/]")
    if decision.from_tables:
        _print_from_tables(decision)
        return
    groups = table("Group", "Records", "Donors", "Leaves", "Why", right=("Records", "Donors", "Leaves"))
    for one in decision.judged:
        key = _key_in_words(one.cell.key)
        leaves = "nothing" if one.number is None else str(one.number)
        groups.add_row(escape(key), str(one.cell.records), str(one.cell.donors), leaves, escape(one.why))
    OUT.print(groups if decision.judged else "This question counts no groups.")
    if decision.private is not None:
        _print_noise(decision.answer.protection.noise)
    OUT.print("Exact numbers are for you only. Nothing left, and nothing became known.", style="dim")


def _print_from_tables(decision: Decision) -> None:
    groups = table("Group", "Leaves", right=("Leaves",))
    for one in decision.judged:
        groups.add_row(escape(_key_in_words(one.cell.key)), str(one.number))
    OUT.print(groups)
    noise = decision.answer.protection.noise
    OUT.print(
        f"From the first-ask tables of edition {decision.from_tables}: ± {noise.half_width:g} with 95 % probability, "
        "the same for everybody, and free. No row was read.",
        soft_wrap=True,
    )


def _key_in_words(key: tuple[Scalar | None, ...]) -> str:
    return ", ".join("missing" if value is None else str(value) for value in key) or "all"


def _print_noise(noise: answer_pb2.Noise) -> None:
    paid = f"{noise.charged:.4f} would be charged" if noise.charged else "Drawn before, it costs nothing"
    OUT.print(
        f"Noise of scale {noise.scale:.3g}, so ± {noise.half_width:g} with 95 % probability. {paid}.", soft_wrap=True
    )
    if noise.shown_from:
        OUT.print(f"Groups below {noise.shown_from} are left out, since their names are not known beforehand.")
    if noise.charged:
        OUT.print("The noise shown is an example: what leaves is drawn when it leaves.", style="dim")
