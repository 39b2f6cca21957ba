"""Why: the whole story of one question, in the order in which it happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import OUT, counted, indented, print_json
from connexon.errors import ConnexonError, NotFound
from connexon.safe_text import plain
from connexon_node.cli.audit import NamedArgument
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.audit.record import AuditEntry
    from connexon_node.cli.requests import Room
    from connexon_node.policy_review.explaining import Explanation

_BECAME = {
    "released": "Numbers left.",
    "suppressed": "No number left: too few donors, which is all that the researcher was told.",
    "refused": "It was refused.",
    "awaiting_steward": "It was put before you; see connexon-node requests.",
    "not_offered": "The researcher was told that this center does not offer it.",
    "budget_spent": "No number left: the account of persons has no more for it.",
    "too_old": "It came too late to be answered.",
    "failed": "It could not be worked out; the node's log says why.",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(why)


def why(named: NamedArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Tell the whole story of one question: who, what for, which rule, whose consent, and what left.

    What was written down then is told as it was; what rules and consents say is worked out anew, as of today.
    """
    from connexon_node.audit import AuditLog
    from connexon_node.audit.proving import find
    from connexon_node.cli import requests

    room = requests.open_room(directory)
    chapters = [chapter for entry in find(AuditLog(room.node.database), named) for chapter in _written(room, entry)]
    chapters += _today(room, named)
    if as_json:
        print_json({"chapters": [{"title": title, "says": lines} for title, lines in chapters]})
        return
    for title, lines in chapters:
        OUT.print(f"[bold]{escape(title)}[/]")
        for line in lines:
            OUT.print(indented(escape(plain(line))))


def _written(room: Room, entry: AuditEntry) -> list[tuple[str, list[str]]]:
    """What the audit log says, with the question as long as the node keeps it."""
    from connexon_node.delivery.lookup import question_in_words

    record = entry.record
    asked = question_in_words(room.node.database, record)
    who = [f"Who: {record.researcher or 'not proved to be anybody'}", f"What for: {record.purpose or 'not readable'}"]
    who.append(f"What: {asked or f'{record.analysis} {record.dataset}'.strip() or 'not readable'}")
    rule = [f"The rule that decided: {record.rule}"] if record.rule else []
    code = [f"The code that the researcher saw: {record.code}"] if record.code else []
    became = [_BECAME.get(record.status, record.status), *rule, *code]
    became.append(f"It took {record.duration_ms:,} ms, by the rules of version {record.policy_version or 'unknown'}.")
    return [(f"Record {entry.sequence}, {to_text(record.at_ms)}", who), ("What became of it", became)]


def _today(room: Room, named: str) -> list[tuple[str, list[str]]]:
    """What the rules and consents of today say to it."""
    from connexon_node.cli import requests

    title = "Rules and consents, as they are today"
    try:
        request = requests.received(room, named)
        found = requests.explain(room, request)
    except NotFound as error:
        return [(title, [f"Not worked out: {error.public}"])]
    except ConnexonError as error:
        return [(title, [f"It would be refused today: {error.public} ({error.code})"])]
    return [(title, [*_access(found), *_consent(found)]), ("How numbers are protected", _protection(room))]


def _access(found: Explanation) -> list[str]:
    from connexon_node.consent.evaluation import Verdict

    access = found.access if found.discover.verdict is Verdict.PERMIT else found.discover
    rules = f", by {', '.join(access.rules)}" if access.rules else ", since no rule allows it"
    lacking = [f"{one.rule.id} would need {' and '.join(one.needs)}." for one in access.lacking]
    return [f"Access: {access.verdict.value}{rules}.", *lacking]


def _consent(found: Explanation) -> list[str]:
    from connexon_node.consent.evaluation import Verdict

    inside, out = found.donors(Verdict.PERMIT), found.donors(Verdict.DENY)
    referred = found.donors(Verdict.REFER)
    agree = f", {referred:,} only if you agree" if referred else ""
    lines = [f"Consent: of {counted(found.donors(), 'donor')}, {inside:,} in, {out:,} out{agree}."]
    lines += [
        f"{reason.verdict.value}, {counted(reason.donors, 'donor')}: {reason.says} {reason.rule}".rstrip()
        for reason in found.reasons
        if reason.donors
    ]
    return [*lines, *(f"In return: {one.message} ({one.duty})" for one in found.obligations)]


def _protection(room: Room) -> list[str]:
    privacy, release = room.node.settings.privacy, room.node.settings.release
    return [
        f"About persons: noise that hides every donor, within ± {privacy.within} unless closer was asked for; charged "
        "to the account of persons (connexon-node budget list). The same question gets the same number.",
        f"By your grant: exact, of at least {release.minimum_donors} donors, in multiples of {release.round_to}.",
        "The exact numbers beside those that leave, for you alone: connexon-node release try with this question's id.",
    ]
