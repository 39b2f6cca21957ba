"""Records of the audit log as a steward reads them: who asked what, for which purpose, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from connexon.safe_text import plain

if TYPE_CHECKING:
    from connexon_node.audit import AuditRecord

_COLORS = {"released": "green", "suppressed": "yellow", "referred": "yellow", "awaiting_steward": "yellow"}


def asked(record: AuditRecord, *, dataset: str = "") -> str:
    """Who asked what, for which purpose, escaped; `dataset` where the record is of a catalog and one is meant."""
    # Of the questions, only one for the catalog names no dataset.
    about = record.dataset or dataset or "the catalog"
    what = f"{record.analysis} {about}" if record.analysis else "what cannot be read"
    purpose = f", for {record.purpose}" if record.purpose else ""
    return escape(plain(f"{record.researcher or 'not proved'}: {what}{purpose}"))


def outcome(record: AuditRecord) -> str:
    """What became of it, in its color, and the rule or the code that says why."""
    why = record.rule or record.code
    color = _COLORS.get(record.status, "red")
    return f"[{color}]{escape(record.status.replace('_', ' '))}[/]" + (f" ({escape(why)})" if why else "")
