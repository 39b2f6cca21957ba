"""Why a question got the answer it got: the whole story of it, center by center, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from connexon.clock import to_text
from connexon.conditions.where_text import to_text as condition_text
from connexon.query import purpose as purposes
from connexon.safe_text import plain

if TYPE_CHECKING:
    from connexon.client.answer import Answer
    from connexon.client.center_answer import CenterAnswer, Protection
    from connexon.identity.credential import Researcher

_CONSENT = (
    "Of its donors, only those count whose consent covers this purpose; how many these are, and how many not, it does "
    "not tell, since that would tell of single donors."
)


def story(answer: Answer, researcher: Researcher | None = None) -> list[tuple[str, list[str]]]:
    """Headings, each with its sentences, in the order in which it happened."""
    question, labels = answer.question, answer.labels
    who = f"{plain(researcher.name)} ({researcher.id}), {plain(researcher.role)}" if researcher else "you"
    asked = [f"Who: {who}, on {to_text(question.issued_at_ms)}."]
    disease = labels.get(question.purpose.disease)
    why = purposes.describe(question.purpose) + (f" ({disease})" if disease else "")
    project = f", project {question.purpose.project}" if question.purpose.project else ""
    asked.append(f"What for: {why}{project}.")
    what = answer.question.dataset or "the catalog"
    asked.append(f"What: {what}" + (f" where {condition_text(question.filter)}." if question.filter else "."))
    asked += [f"{term} is {label}." for term, label in labels.items() if term != question.purpose.disease]
    chapters = [("The question", asked)]
    chapters += [(f"{part.id}, {part.name}", list(_center(part))) for part in answer.centers]
    if answer.notes:
        chapters.append(("What to keep in mind", list(answer.notes)))
    return chapters


@dataclass(frozen=True)
class Story:
    """The story of one question; `chapters` are headings with their sentences."""

    query_id: str
    chapters: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, answer: Answer, researcher: Researcher | None = None) -> Story:
        """The story of an answer, as far as it has come."""
        return cls(answer.query_id, tuple((title, tuple(lines)) for title, lines in story(answer, researcher)))

    def to_json(self) -> dict[str, Any]:
        """As a document of the shape connexon.why/1; see docs/json.md."""
        told = [{"title": title, "says": list(lines)} for title, lines in self.chapters]
        return {"schema": "connexon.why/1", "query_id": self.query_id, "chapters": told}

    def __str__(self) -> str:
        return "\n".join(line for title, lines in self.chapters for line in (title, *(f"  {one}" for one in lines)))

    def __repr__(self) -> str:
        return str(self)


def _center(part: CenterAnswer) -> Iterator[str]:
    when = f" on {to_text(part.answered_at_ms)}" if part.answered_at_ms is not None else ""
    rule = f" The rule that decided: {part.rule}." if part.rule else ""
    yield f"It {_ENDED.get(part.status.value, part.status.words)}{when}. {part.message}{rule}".rstrip()
    if part.provenance is not None and part.protection is not None and part.protection.kind:
        if part.protection.kind != "published":
            yield _CONSENT
        yield _protected(part.protection)
    for duty in part.obligations:
        yield f"In return: {duty.message} ({duty.term})"
    if part.provenance is not None and part.provenance.policy:
        versions = [f"rules {part.provenance.policy}", f"roster {part.provenance.roster_serial}"]
        versions += [f"{name} {version}" for name, version in part.provenance.ontologies.items()]
        yield f"By {', '.join(versions)}."
    if part.receipt is not None:
        yield f"It is record {part.receipt.sequence} of the center's audit log, which can be proved."


_ENDED = {
    "released": "released its numbers",
    "suppressed": "showed no number",
    "refused": "refused",
    "referred": "leaves it to its steward",
    "awaiting_steward": "waits for its steward",
    "not_offered": "does not offer this",
    "budget_spent": "has no privacy budget left for it",
    "too_old": "came to it too late",
    "failed": "could not work it out",
    "waiting": "has not answered yet",
}


def _protected(protection: Protection) -> str:
    if protection.kind == "private" and protection.noise is not None:
        noise = protection.noise
        return (
            f"Each number has noise: with 95 % probability it lies within ± {noise.half_width:g} of the exact one, "
            f"which nobody outside the center learns. Asking again gives the same number. It cost "
            f"{noise.charged:.4f} of the center's privacy account."
        )
    if protection.kind == "granted":
        return (
            f"The numbers have no noise, by the steward's grant {protection.grant}; none rests on fewer than "
            f"{protection.minimum_donors} donors, and they are multiples of {protection.rounded_to}."
        )
    return "The numbers are of what the center has published, or of what belongs to no person; they are exact."
