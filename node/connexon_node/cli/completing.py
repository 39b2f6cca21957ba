"""What the shell completes, from the dictionary and from the node's own database; never from the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from connexon.service.database import Database


def datasets(incomplete: str) -> list[str]:
    """Datasets of the dictionary."""
    from connexon_node.data.dictionary import DICTIONARY

    return [one.name for one in DICTIONARY.datasets if one.name.startswith(incomplete)]


def requests(context: typer.Context, incomplete: str) -> list[str]:
    """Requests that wait for the steward."""
    from connexon_node.approvals.store import ApprovalStore

    return _known(context, incomplete, lambda database: [one.query_id for one in ApprovalStore(database).requests()])


def approvals(context: typer.Context, incomplete: str) -> list[str]:
    """Approvals of projects that are in force."""
    from connexon_node.approvals.store import ApprovalStore

    return _known(
        context, incomplete, lambda database: [one.approval_id for one in ApprovalStore(database).approvals()]
    )


def subjects(context: typer.Context, incomplete: str) -> list[str]:
    """Researchers who were accredited here."""
    from connexon_node.membership.accreditation import Accreditations

    return _known(context, incomplete, lambda database: sorted({one.subject for one in Accreditations(database).all()}))


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Training runs that are under way."""
    from connexon_node.training.ledger import TrainingLedger

    return _known(context, incomplete, lambda database: [one.run_id for one in TrainingLedger(database).running()])


def _known(context: typer.Context, incomplete: str, names: Callable[[Database], list[str]]) -> list[str]:
    from connexon.errors import ConnexonError
    from connexon_node.cli.context import opened

    try:
        database = opened(Path(context.params.get("directory") or ".")).database
        return [name for name in names(database) if name.startswith(incomplete)]
    except ConnexonError:
        # A line that is only being typed is nothing to complain about.
        return []
