"""A request described on the command line, or one that was received, and what the rules say to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from connexon.clock import now_ms, to_text
from connexon.console import OUT, counted, indented
from connexon.errors import InvalidQuery, NotFound
from connexon.identity import keys
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.keys import CenterId
from connexon.identity.roster import OrganisationKind, Roster
from connexon.query import purpose as purposes
from connexon.query import signed, wire_question
from connexon.query.question import Purpose
from connexon_node.analyses.registry import at_node
from connexon_node.consent.donor_state import Status
from connexon_node.consent.evaluation import Verdict
from connexon_node.folder import DirOption

if TYPE_CHECKING:
    from connexon_node.cli.context import OpenNode
    from connexon_node.consent.ledger import Ledger
    from connexon_node.consent.obligations import Duty
    from connexon_node.ontology import Ontologies
    from connexon_node.policy.request import Requester
    from connexon_node.policy.ruleset import RuleSet
    from connexon_node.policy_review.cases import Outcome
    from connexon_node.policy_review.explaining import Explanation
    from connexon_node.policy_review.replaying import Replay, Saying


@dataclass(frozen=True)
class Room:
    """What a request is judged with."""

    node: OpenNode
    roster: Roster
    rules: RuleSet
    ontologies: Ontologies
    ledger: Ledger


@dataclass(frozen=True)
class Described:
    """A request. `dataset` is empty where a description of all is asked for."""

    requester: Requester
    purpose: Purpose
    action: str
    dataset: str


def open_room(directory: DirOption) -> Room:
    """The node's rules, ontologies and ledger as they are now. Raises Misconfigured."""
    from connexon_node.cli.context import opened
    from connexon_node.consent.ledger import Ledger
    from connexon_node.membership.roster import open_keeper
    from connexon_node.ontology import Ontologies
    from connexon_node.policy.store import PolicyStore

    node = opened(directory)
    roster = open_keeper(node.settings, node.database).present
    policies = PolicyStore(node.folder.policies)
    policies.load(roster.policy_files)
    return Room(node, roster, policies.rules, Ontologies.open(node.folder.ontologies), Ledger(node.database))


def requester(
    room: Room,
    researcher: str,
    role: str,
    country: str,
    organisation: str,
    *,
    statuses: list[str] | None = None,
    grants: list[str] | None = None,
    terms: list[str] | None = None,
) -> Requester:
    """A requester as described; country and organisation are the home center's unless said otherwise."""
    from connexon_node.policy.request import Requester

    researcher = researcher or f"{room.node.settings.hub.center}/somebody"
    home = researcher.partition("/")[0]
    member = next((one for one in room.roster.members if one.center == home), None)
    if member is None and not (country and organisation):
        raise InvalidQuery(
            f"{home} is not in the roster: say --country and --organisation too.", code="policy.unknown_center"
        )
    at = keys.center_id(home)
    approvals = dict(_approval(text, at) for text in grants or [])
    return Requester(
        id=researcher,
        center=home,
        country=country or (member.country if member else ""),
        organisation=_organisation(organisation) if organisation or member is None else member.organisation_kind,
        role=role,
        statuses=frozenset(statuses or ()),
        grants=frozenset(approvals),
        terms=frozenset(terms or ()),
        approvals=approvals,
    )


def kinds(room: Room, country: str, grants: list[str] | None = None) -> dict[str, tuple[Requester, bool]]:
    """Kinds of requesters that consents tell apart, all with these grants, and whether the use is commercial."""
    asked = [
        ("a university or public body", "academic", False),
        ("a company, for research", "commercial", False),
        ("a company, for a product", "commercial", True),
    ]
    return {
        name: (requester(room, "", "researcher", country, organisation, grants=grants), commercial)
        for name, organisation, commercial in asked
    }


def described(
    who: Requester, purpose: str, commercial: bool, project: str, ethics_approval: str, action: str, dataset: str
) -> Described:
    """A request in the words of the command line. Raises InvalidQuery."""
    from connexon_node.policy.rules import ACCESS_ACTIONS

    if action not in ACCESS_ACTIONS:
        raise InvalidQuery(f"{action!r} is no action; there are {', '.join(ACCESS_ACTIONS)}.", code="policy.action")
    read = purposes.parse_purpose(purpose, commercial_use=commercial, project=project, ethics_approval=ethics_approval)
    return Described(who, read, action, dataset)


def received(room: Room, named: str) -> Described:
    """A request that this node received, named as audit.asked has it. Raises NotFound, or what does not hold."""
    from connexon_node.delivery import lookup as records
    from connexon_node.pipeline.verification import open_parcel
    from connexon_node.policy.request import Requester

    parcel = open_parcel(records.received(room.node.database, named).body)
    question = wire_question.from_bytes(parcel.payload)
    # Proved as of the moment when it was asked; the rules are today's.
    asked = signed.verify_query(parcel, room.roster, NOTHING_REVOKED, at_ms=question.issued_at_ms)
    action = at_node(question.analysis).traits.action
    return Described(Requester.of(asked.researcher, at_ms=now_ms()), question.purpose, action, question.dataset)


def replayed(directory: DirOption, since: str, other: Path) -> tuple[Replay, RuleSet]:
    """Past requests under the rules in force and under those of another own folder, which come with it."""
    from connexon_node.audit import AuditLog
    from connexon_node.cli.audit import moment
    from connexon_node.data.dictionary import DICTIONARY
    from connexon_node.delivery.inbox import Inbox
    from connexon_node.policy.store import compile_rules, read_folder
    from connexon_node.policy_review.replaying import past_requests, replay

    room = open_room(directory)
    if not other.is_dir():
        raise NotFound(f"There is no folder {other}.", code="policy.no_folder")
    rules = compile_rules(room.roster.policy_files, read_folder(other))
    database = room.node.database
    past = past_requests(AuditLog(database), Inbox(database), room.roster, since_ms=moment(since))
    found = replay(
        past,
        room.rules,
        rules,
        ontologies=room.ontologies,
        dictionary=DICTIONARY,
        profiles=room.ledger.profiles(),
        donors=room.ledger.donors_by_profile(),
    )
    return found, rules


def replay_document(found: Replay, rules: RuleSet) -> dict[str, Any]:
    """The replay as JSON."""

    def saying(one: Saying) -> dict[str, Any]:
        return {
            "verdict": one.verdict.value,
            "rules": list(one.rules),
            "donors": one.donors,
            "withheld": sorted(one.withheld),
        }

    return {
        "version": rules.version,
        "judged": found.judged,
        "unjudged": found.unjudged,
        "changes": [
            {
                "query_id": change.past.record.query_id,
                "at": to_text(change.past.record.at_ms),
                "researcher": change.past.record.researcher,
                "question": change.past.words,
                "purpose": change.past.record.purpose,
                "was": change.past.record.status,
                "before": saying(change.before),
                "after": saying(change.after),
            }
            for change in found.changes
        ],
    }


def explain(room: Room, request: Described) -> Explanation:
    """What the rules and consents of today say. Raises NotFound, or InvalidQuery for an unknown disease."""
    from connexon_node.data.dictionary import DICTIONARY
    from connexon_node.policy.access import Target
    from connexon_node.policy.request import ask
    from connexon_node.policy_review.explaining import explain

    dataset = DICTIONARY.named(request.dataset or "donors")
    purpose = request.purpose
    disease = room.ontologies.ancestors(purpose.disease) if purpose.disease else frozenset()
    asking = ask(request.requester, purpose, disease=disease, at_ms=now_ms(), switches=room.rules.switches)
    return explain(
        room.rules,
        room.ontologies,
        asking,
        action=request.action,
        target=Target(dataset.name, dataset.sensitivity.value),
        profiles=room.ledger.profiles(),
        donors=room.ledger.donors_by_profile(),
        standing=room.ledger.donors_by_status(),
    )


def stated(room: Room) -> frozenset[Duty]:
    """The duties that every answer about persons tells."""
    from connexon_node.consent.stated import StatedDuties

    return StatedDuties(room.node.database).in_force()


def explanation_document(request: Described, explanation: Explanation, stated: frozenset[Duty]) -> dict[str, Any]:
    """The explanation as JSON. `stated` are the duties that every answer about persons tells."""
    return {
        "request": {
            "researcher": request.requester.id,
            "action": request.action,
            "dataset": request.dataset,
            "purpose": purposes.describe(request.purpose),
        },
        "access": _outcome_document(explanation.access),
        "discover": _outcome_document(explanation.discover),
        "not_counted_statements": [
            {"type": one.grant.type, "value": one.grant.value, "because": one.because}
            for one in request.requester.dropped
        ],
        "consent": {
            "donors": explanation.donors(),
            "donors_in": explanation.donors(Verdict.PERMIT),
            "donors_referred": explanation.donors(Verdict.REFER),
            "donors_out": explanation.donors(Verdict.DENY),
            "donors_without_consent_in_force": {
                reason.status.value: reason.donors
                for reason in explanation.reasons
                if reason.status is not Status.IN_FORCE
            },
            "reasons": [
                {
                    "verdict": reason.verdict.value,
                    "rule": reason.rule,
                    "says": reason.says,
                    "profiles": list(reason.profiles),
                    "donors": reason.donors,
                }
                for reason in explanation.reasons
            ],
            "obligations": [
                {
                    "term": one.duty.term,
                    "message": one.message,
                    "rule": one.rule,
                    "donors": one.donors,
                    "stated": one.duty in stated,
                }
                for one in explanation.obligations
            ],
        },
    }


def print_explanation(request: Described, explanation: Explanation, stated: frozenset[Duty]) -> None:
    """The explanation for people. `stated` as in explanation_document."""
    OUT.print(
        f"[bold]{escape(request.requester.id)}[/] asks to {request.action} {escape(request.dataset or 'everything')} "
        f"for {escape(purposes.describe(request.purpose))}"
    )
    for one in request.requester.dropped:
        OUT.print(
            f"  [yellow]not counted:[/] {escape(one.grant.type)} {escape(one.grant.value)}: {escape(one.because)}"
        )
    access = explanation.access if explanation.discover.verdict.value == "permit" else explanation.discover
    OUT.print(f"\nAccess: {colored(access.verdict.value)} {', '.join(access.rules)}".rstrip())
    if access.verdict.value == "deny":
        OUT.print(indented("Nobody is counted, whatever the consents say."))
    for lacking in access.lacking:
        OUT.print(indented(f"{lacking.rule.id} would need {escape(' and '.join(lacking.needs))}"))
    _print_consent(explanation)
    for owed in explanation.obligations:
        asked_by = f"{owed.duty}, {counted(owed.donors, 'donor')}"
        OUT.print(indented(f"With it comes the duty: {escape(owed.message)} [dim]({escape(asked_by)})[/]"))
        if owed.duty not in stated:
            OUT.print(indented("[yellow]Answers do not tell it:[/] tell the researcher before publication.", by=4))


def _print_consent(explanation: Explanation) -> None:
    permitted, referred = explanation.donors(Verdict.PERMIT), explanation.donors(Verdict.REFER)
    asked = f"{referred:,} only if you agree, " if referred else ""
    OUT.print(
        f"\nConsent: of {counted(explanation.donors(), 'donor')}, {permitted:,} in, {asked}"
        f"{explanation.donors(Verdict.DENY):,} out"
    )
    for reason in explanation.reasons:
        if not reason.donors:
            continue
        OUT.print(f"  {colored(reason.verdict.value)} {counted(reason.donors, 'donor')}  {reason.rule}".rstrip())
        listed = ", ".join(map(str, sorted(reason.profiles)))
        numbers = f" [dim](consent profiles {listed})[/]" if listed else ""
        OUT.print(indented(escape(reason.says) + numbers, by=4))


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    return {
        "verdict": outcome.verdict.value,
        "rules": list(outcome.rules),
        "lacking": [{"rule": one.rule.id, "needs": list(one.needs)} for one in outcome.lacking],
        "errors": list(outcome.errors),
    }


def colored(verdict: str) -> str:
    """A verdict in its color."""
    color = {"permit": "green", "refer": "yellow"}.get(verdict, "red")
    return f"[{color}]{verdict}[/]"


def _organisation(text: str) -> OrganisationKind:
    try:
        return OrganisationKind(text)
    except ValueError as error:
        known = ", ".join(kind.value for kind in OrganisationKind)
        raise InvalidQuery(
            f"{text!r} is no kind of organisation; there are {known}.", code="policy.organisation"
        ) from error


def _approval(text: str, center: CenterId) -> tuple[str, int]:
    """A grant, and its day, as accredit --grant takes it."""
    from connexon_node.membership.accreditation import parse_grant
    from connexon_node.policy.request import ACCESS

    now = now_ms()
    grant = parse_grant(f"{ACCESS}={text}", center=center, issued_ms=now, expires_ms=now, given={})
    return grant.value, grant.asserted_ms
