"""status: the health of the federation as the hub sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import DAY, ago, now_ms, to_text
from connexon.clock_check import TOLERANCE_MS
from connexon.console import OUT, print_json, table
from connexon.safe_text import plain
from connexon_hub.folder import HERE, DirOption, suggested

if TYPE_CHECKING:
    from rich.console import RenderableType

    from connexon_hub.cli.context import OpenHub
    from connexon_hub.health.events import SessionRecord
    from connexon_hub.health.log_witness import Seen

_EVENTS = 5
_ALIKE = 3
"""Events of one center and code: a center that does the same over and over must not hide what else has happened."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(doctor)


def status(
    directory: DirOption = HERE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Each center: connected since when, last answer, latency, version, days left of its certificate.

    Below, the last things an operator should know of: twin identities, refused versions, answers that did not
    hold, audit logs that contradict what the hub has witnessed of them.
    """
    import time

    from rich.live import Live

    from connexon_hub.cli.context import opened

    with opened(directory) as hub:
        if as_json:
            print_json(document(hub))
            return
        if not watch:
            OUT.print(_page(document(hub)))
            if not hub.members.all():
                OUT.print(f"No center was invited yet; use  {suggested('invite CENTER', directory)}", markup=False)
            return
        with Live(_page(document(hub)), console=OUT, screen=False, auto_refresh=False) as live:
            while True:
                time.sleep(2)
                live.update(_page(document(hub)), refresh=True)


def doctor(
    directory: DirOption = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every part of this hub that questions depend on, and name the broken one.

    Settings, database, disk, authority, roster, process, both ports, centers. Exit status 1 when something is broken;
    an absent center is only noted.
    """
    from connexon.findings import show
    from connexon_hub.cli.examination import checks
    from connexon_hub.folder import HubFolder

    show(checks(HubFolder.find(directory)), as_json=as_json)


def document(hub: OpenHub) -> dict[str, Any]:
    """The federation's health: {"hub": ..., "centers": [...], "events": [...]}. Times in ms since 1970-01-01 UTC."""
    from connexon_hub.health.events import WatchStore
    from connexon_hub.health.log_witness import WitnessStore
    from connexon_hub.routing.store import QueryStore

    watching = WatchStore(hub.database)
    process = hub.folder.present_process()
    content, _ = hub.rosters.in_force()
    sessions, waiting = watching.sessions(), QueryStore(hub.database).waiting_by_center()
    logs = WitnessStore(hub.database).seen()
    return {
        "hub": {
            "federation": content.federation,
            "serving": bool(process),
            "address": process.get("address"),
            "link_address": process.get("link_address"),
            "roster_serial": content.serial,
            "roster_days_left": _days_until(content.expires_at_ms),
        },
        "centers": [
            {
                "center": one.center,
                "status": one.status.value,
                **_link_document(sessions.get(one.center), serving=bool(process)),
                "waiting_queries": waiting.get(one.center, 0),
                **_log_document(logs.get(one.center)),
            }
            for one in hub.members.all()
        ],
        "events": [
            {"at_ms": event.at_ms, "code": event.code, "center": event.center_id, "detail": event.detail}
            for event in watching.events(50, alike=_ALIKE)
        ],
    }


def _link_document(link: SessionRecord | None, *, serving: bool) -> dict[str, Any]:
    connected = serving and link is not None and link.ended_ms is None
    return {
        "connected": connected,
        "connected_since_ms": link.connected_ms if link and connected else None,
        "last_seen_ms": link.seen_ms if link else None,
        "last_answer_ms": link.last_answer_ms if link else None,
        "latency_ms": link.latency_ms if link and connected else None,
        "software_version": link.software_version if link else None,
        "protocol": link.protocol if link else None,
        "dictionary_version": link.dictionary_version if link else None,
        "roster_serial": link.roster_serial if link else None,
        "clock_offset_ms": link.clock_offset_ms if link else None,
        "certificate_days_left": _days_until(link.certificate_expires_ms) if link else None,
    }


def _log_document(log: Seen | None) -> dict[str, Any]:
    return {
        "log_size": log.size if log else None,
        "log_witnessed_ms": log.received_ms if log else None,
        "log_contradicted_ms": log.contradicted_ms if log else None,
    }


def _days_until(at_ms: int) -> float:
    return round((at_ms - now_ms()) / DAY, 2)


def _page(found: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    hub = found["hub"]
    serving = f"serving on {hub['address']}" if hub["serving"] else "[red]not serving[/]"
    head = Text.from_markup(
        f"[bold]{hub['federation']}[/] {serving}; roster {hub['roster_serial']}, {_days(hub['roster_days_left'])} left"
    )
    centers = table("center", "link", "answered", "latency", "clock", "version", "cert", right=("latency", "clock"))
    for center in found["centers"]:
        centers.add_row(
            center["center"],
            _link(center),
            "" if center["last_answer_ms"] is None else ago(center["last_answer_ms"]),
            "" if center["latency_ms"] is None else f"{center['latency_ms']:.0f} ms",
            _clock(center),
            escape(plain(center["software_version"] or "")),
            _days(center["certificate_days_left"]),
        )
    events = [
        Text.from_markup(
            f"[dim]{to_text(event['at_ms'])}[/] "
            + escape(plain(f"{event['code']} {event['center']} {event['detail']}"))
        )
        for event in found["events"][:_EVENTS]
    ]
    return Group(head, centers, *_contradictions(found), *events)


def _contradictions(found: dict[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    return [
        Text.from_markup(
            f"[red]{center['center']}: its audit log contradicts what was witnessed, "
            f"since {to_text(center['log_contradicted_ms'])}[/]"
        )
        for center in found["centers"]
        if center["log_contradicted_ms"] is not None
    ]


def _link(center: dict[str, Any]) -> str:
    if center["status"] != "active":
        return f"[yellow]{center['status']}[/]"
    if center["connected"]:
        return f"[green]up {ago(center['connected_since_ms'])}[/]"
    seen = "never seen" if center["last_seen_ms"] is None else f"down {ago(center['last_seen_ms'])}"
    waits = f", {center['waiting_queries']} waiting" if center["waiting_queries"] else ""
    return f"[red]{seen}{waits}[/]"


def _clock(center: dict[str, Any]) -> str:
    """How far the center's clock is ahead of the hub's."""
    offset = center["clock_offset_ms"]
    if offset is None:
        return ""
    shown = f"{-offset / 1000:+.0f} s"
    return f"[red]{shown}[/]" if abs(offset) > TOLERANCE_MS else shown


def _days(days: float | None) -> str:
    if days is None:
        return ""
    return f"{days:.0f} d" if days >= 2 else f"{days * 24:.1f} h"
