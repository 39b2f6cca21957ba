"""What the shell completes, from the hub's own database."""

from __future__ import annotations

from pathlib import Path

import typer


def centers(context: typer.Context, incomplete: str) -> list[str]:
    """Centers that were ever invited."""
    from connexon.errors import ConnexonError
    from connexon_hub.cli.context import opened

    try:
        with opened(Path(context.params.get("directory") or ".")) as hub:
            return [one.center for one in hub.members.all() if one.center.startswith(incomplete)]
    except ConnexonError:
        # A line that is only being typed is nothing to complain about.
        return []
