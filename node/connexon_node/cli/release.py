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
    from connexon.question import DifferentialPrivacy
    from connexon.signed import Asked
    from connexon.v1 import answer_pb2
    from connexon_node.release import Decision
    from connexon_node.release.floors import PrivacyFloors
    from connexon_node.rooms import Opened
    from connexon_node.settings import PrivacySection, ReleaseSection

app = new_app("release", "What may leave this center, and why: minimum donors, comparing with what is known, rounding.")
MINUTE_MS = 60_000


@app.command("show")
def show(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show the rules in force, in their order, and what is known outside already."""
    from connexon_node.cli.opened import opened
    from connexon_node.release.floors import floors, stricter, stricter_privacy
    from connexon_node.release.ledger import ReleaseLedger
    from connexon_node.roster_keeper import open_keeper

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
    for number, (name, says) in enumerate([*_rules(section), *_private_rules(section, privacy)], start=1):
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
    OUT.print(_who_asks_for_noise(configured.privacy, least.privacy))


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


def _private_rules(section: ReleaseSection, privacy: PrivacySection) -> list[tuple[str, str]]:
    who = "every count of donors and what is theirs" if privacy.required else "counts whose researcher asks for it"
    small = "" if section.minimum_donors == 1 else f"; groups of fewer than {section.minimum_donors} donors stay inside"
    return [
        (
            "differential privacy",
            f"In place of the rules above, {who}: noise that hides every single donor. At most "
            f"{privacy.records_per_donor} records of a donor count, noise is drawn once for the same question, numbers "
            f"too small to show through it are left out{small}, and what is left is rounded.",
        ),
        (
            "privacy budget",
            f"One question gets epsilon {privacy.maximum_epsilon:g} and delta {privacy.delta:g} at most"
            + (f", and {privacy.epsilon:g} where it names none" if privacy.required else "")
            + f"; a researcher, project and dataset {privacy.budget_epsilon:g} in all (delta "
            f"{privacy.budget_delta:g}). connexon-node budget list shows what is spent.",
        ),
    ]


def _who_asks_for_noise(own: PrivacySection, least: PrivacyFloors) -> str:
    if least.required:
        return "The federation demands differential privacy for every count."
    if own.required:
        return "This center demands differential privacy for every count; the federation does not."
    return "Neither the federation nor this center demands differential privacy; researchers may ask for it."


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
    epsilon: Annotated[
        float | None, typer.Option(help="With differential privacy, as a researcher asks for it.")
    ] = None,
    delta: Annotated[float, typer.Option(help="With --epsilon.", show_default="0.000001")] = 1e-6,
    as_json: JsonOption = False,
) -> None:
    """Show what would leave now, group by group and why. Nothing leaves, is recorded, or becomes known by it.

    The exact numbers are for you only. Name a query that was received, or describe one: it is then asked in the name
    of a researcher of your own center. Noise is drawn as it would be, but what you see is not what will leave.
    """
    from connexon.errors import InvalidQuery
    from connexon.question import DifferentialPrivacy
    from connexon_node.dictionary import DICTIONARY
    from connexon_node.rooms import opened

    if bool(query) == bool(dataset):
        raise InvalidQuery("Name a query that was received, or a --dataset to count.", code="release.what")
    if dataset:
        DICTIONARY.named(dataset)
    with ERR.status("Working it out ..."):
        node = opened(NodeFolder.find(directory))
        privacy = None if epsilon is None else DifferentialPrivacy(epsilon, delta)
        asked = _received(node, query) if query else _own(node, dataset, where, tuple(by or ()), purpose, privacy)
        decision = _decided(node, asked)
    if as_json:
        print_json(_document(decision))
    else:
        _print(decision)


def _received(node: Opened, query: str) -> Asked:
    from connexon import signed, wire_question
    from connexon.credential import NOTHING_REVOKED
    from connexon_node.audit.asked import received
    from connexon_node.verify import open_parcel

    parcel = open_parcel(received(node.database, query).body)
    question = wire_question.from_bytes(parcel.payload)
    # Proved as of the moment when it was asked: what has been revoked since makes no difference to what would leave.
    return signed.verify_query(parcel, node.keeper.present, NOTHING_REVOKED, at_ms=question.issued_at_ms)


def _own(
    node: Opened, dataset: str, where: str, by: tuple[str, ...], purpose: str, privacy: DifferentialPrivacy | None
) -> Asked:
    """A question asked, signed and proved as every question is, by a key that this center accredits for a minute."""
    import uuid

    from connexon import credential, identity, signed
    from connexon import purpose as purposes
    from connexon import where as wheres
    from connexon.clock import now_ms
    from connexon.identity import SigningKey
    from connexon.question import Count, Question
    from connexon_node.revocations import RevocationStore

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
        privacy=privacy,
    )
    query = signed.sign_query(question, key, token)
    return signed.verify_query(query, node.keeper.present, RevocationStore(node.database))


def _decided(node: Opened, asked: Asked) -> Decision:
    from connexon.clock import now_ms
    from connexon_node.pipeline import Work

    steps = node.steps
    cohort = steps.consent.cohort(steps.access.authorise(asked))
    work = Work(deadline_ms=now_ms() + int(node.settings.engine.seconds * 1000))
    return node.release.decide(steps.engine.run(asked.question, cohort, work))


def _document(decision: Decision) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    from connexon_node.recorder import STATUS_WORDS

    private = decision.private
    noise = MessageToDict(decision.answer.protection.noise, preserving_proto_field_name=True) if private else None
    return {
        "noise": noise,
        "costs_rho": sum(one.rho for one in private.charges) if private and not private.stood else 0.0,
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
    from connexon_node.recorder import STATUS_WORDS

    OUT.print(f"Outcome: [bold]{STATUS_WORDS[decision.answer.status].replace('_', ' ')}[/]")
    groups = table("Group", "Records", "Donors", "Leaves", "Why", right=("Records", "Donors", "Leaves"))
    for one in decision.judged:
        key = ", ".join("missing" if value is None else str(value) for value in one.cell.key) or "all"
        leaves = "nothing" if one.number is None else str(one.number)
        groups.add_row(escape(key), str(one.cell.records), str(one.cell.donors), leaves, escape(one.why))
    OUT.print(groups if decision.judged else "This question counts no groups.")
    if decision.private is not None:
        _print_noise(decision.answer.protection.noise, drawn_before=bool(decision.private.stood))
    OUT.print("Exact numbers are for you only. Nothing left, and nothing became known.", style="dim")


def _print_noise(noise: answer_pb2.Noise, *, drawn_before: bool) -> None:
    paid = "It was drawn before and costs nothing." if drawn_before else "It would be paid from the privacy budget."
    OUT.print(
        f"Differential privacy, epsilon {noise.epsilon:g}, delta {noise.delta:g}: noise of scale {noise.scale:.3g}, so "
        f"± {noise.half_width:g} with 95 % probability. {paid}",
        soft_wrap=True,
    )
    if noise.shown_from:
        OUT.print(f"Numbers below {noise.shown_from} are left out.")
    if not drawn_before:
        OUT.print("The noise shown is an example: what leaves is drawn when it leaves.", style="dim")
