"""What a serving hub does by itself, over and over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import Connection

from connexon.clock import DAY, HOUR, MINUTE, SECOND, now_ms, to_text
from connexon.errors import ConnexonError
from connexon.service.database import Database
from connexon.v1 import link_pb2
from connexon_hub.assembly import Hub
from connexon_hub.limits.connections import LOOK_SECONDS
from connexon_hub.membership import certificates
from connexon_hub.membership.standing import Standing
from connexon_hub.routing.sessions import Session
from connexon_hub.routing.validity import HELD

LOG = logging.getLogger("connexon.hub")
WRITING_SECONDS = 3.0
"""A database that takes nothing for so long makes the hub unhealthy."""
ROSTER_WARNING_MS = 7 * DAY
GIVING_BACK_SECONDS = 0.1
"""Between two pieces of a file that are given back, for those who write meanwhile."""


async def run(hub: Hub) -> None:
    """Keep house until cancelled."""
    chores: tuple[tuple[Callable[[Hub], Awaitable[None]], float], ...] = (
        (follow_standing, 1.0),
        (end_links, 1.0),
        (judge_what_is_under_way, 1.0),
        (expire_queries, 1.0),
        (keep_links_alive, 1.0),
        (note_sessions, 2.0),
        (remove_answers, _removal_seconds(hub)),
        (forget_queries, 60 * _removal_seconds(hub)),
        (thin_witness, HOUR / SECOND),
        (forget_certificates, HOUR / SECOND),
        (forget_revocations, HOUR / SECOND),
        (forget_proofs, MINUTE / SECOND),
        (look_at_clock, MINUTE / SECOND),
        (look_at_database, 5.0),
        (look_at_roster, HOUR / SECOND),
        (look_at_connections, LOOK_SECONDS),
        (sum_up_refusals, MINUTE / SECOND),
    )
    async with asyncio.TaskGroup() as group:
        for chore, seconds in chores:
            group.create_task(_over_and_over(hub, chore, seconds))


def _removal_seconds(hub: Hub) -> float:
    return min(60.0, hub.settings.answers_kept_days * DAY / SECOND / 2)


async def _over_and_over(hub: Hub, chore: Callable[[Hub], Awaitable[None]], seconds: float) -> None:
    while True:
        try:
            await chore(hub)
        except ConnexonError as error:
            LOG.warning("%s: %s", chore.__name__, error.public)
        except Exception:  # a chore that fails once is tried again; the others go on
            LOG.exception("%s failed", chore.__name__)
        await asyncio.sleep(seconds)


async def follow_standing(hub: Hub) -> None:
    """See what the operator has changed, and send a new roster to every center."""
    if await asyncio.to_thread(hub.rosters.revision) != hub.standing.revision:
        former, hub.standing = hub.standing, await asyncio.to_thread(hub.rosters.standing)
        if hub.standing.roster.serial != former.roster.serial:
            LOG.info("roster %d is in force", hub.standing.roster.serial)
            frame = link_pb2.AttachResponse(roster=hub.standing.signed_roster)
            for session in hub.sessions:
                session.tell(frame)


async def end_links(hub: Hub) -> None:
    """End the links of those who take no part, or whose certificate counts no more; a database is not needed for it."""
    for session in hub.sessions:
        error = reason_to_end(hub.standing, session, now_ms())
        if error is not None and not session.ending:
            LOG.info("%s must go: %s", session.center, error.public, extra={"party": session.center})
            session.end(error)


async def judge_what_is_under_way(hub: Hub) -> None:
    """End the calls of researchers who count no more; where something has changed, judge all that is open, too."""
    hub.places.reconsider(hub.under_way.caller)
    revision = hub.under_way.revision
    if revision == hub.judged:
        return
    for query_id, researcher_id in await asyncio.to_thread(hub.queries.under_way):
        if not hub.under_way.doubtful(researcher_id):
            continue
        body = await hub.bodies.get(query_id)
        because = None if body is None else hub.under_way.query(body.credential)
        if because is None:
            continue
        # A run does not wait for a suspension to end: its rounds have deadlines.
        await hub.runs.stop(query_id, because)
        if because.code != HELD:
            await hub.routing.cancel(query_id, researcher_id)
            LOG.info("query %s ended: %s", query_id, because.code, extra={"party": researcher_id})
    for session in hub.sessions:
        session.deliver_held()
    hub.judged = revision


def reason_to_end(standing: Standing, session: Session, at_ms: int) -> ConnexonError | None:
    """Why a live session may not go on, or None."""
    try:
        standing.require_certificate(session.peer.identity, session.peer.serial, session.peer.key)
        standing.require_active(session.center)
        session.peer.require_current(at_ms)
    except ConnexonError as error:
        return error
    return None


async def expire_queries(hub: Hub) -> None:
    """End the queries whose time is over, unless the clock is in doubt."""
    moment = hub.clock.probable_ms()
    if moment is not None:
        await hub.routing.expire(moment)


async def keep_links_alive(hub: Hub) -> None:
    """Heartbeats, and the end of links that are silent for too long."""
    for session in hub.sessions:
        session.keep_alive()


async def note_sessions(hub: Hub) -> None:
    """Write down what `status` shows, where it is something new."""
    changed = [(session, record) for session in hub.sessions if (record := session.record()) != session.noted]
    # Each by itself: what cannot be written of one center keeps nobody else's from being written.
    writes = [hub.writer.write(hub.watching.note_sessions, [record]) for _session, record in changed]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    for (session, record), outcome in zip(changed, outcomes, strict=True):
        if outcome is None:
            session.noted = record


async def remove_answers(hub: Hub) -> None:
    """Delete answers that were kept long enough."""
    sure = hub.clock.sure_ms()
    if sure is None:
        return
    before = sure - int(hub.settings.answers_kept_days * DAY)
    removed = await hub.writer.write(hub.steps.remove, before)
    if removed:
        LOG.info("%d answers removed after %g days", removed, hub.settings.answers_kept_days)


async def forget_queries(hub: Hub) -> None:
    """Delete queries that ended as long ago as answers are kept, and give the room back."""
    sure, gone = hub.clock.sure_ms(), 0
    if sure is None:
        return
    before = sure - int(hub.settings.answers_kept_days * DAY)
    while forgotten := await hub.writer.write(hub.steps.forget, before):
        gone += forgotten
    if gone:
        LOG.info("%d queries forgotten after %g days", gone, hub.settings.answers_kept_days)
    await asyncio.to_thread(_give_back, hub.database)


def _give_back(database: Database) -> None:
    while database.give_back():
        time.sleep(GIVING_BACK_SECONDS)


async def look_at_database(hub: Hub) -> None:
    """Whether the database takes anything: the hub is not healthy where it does not."""
    written = hub.writer.write(_nothing, None)
    try:
        await asyncio.wait_for(asyncio.shield(written), WRITING_SECONDS)
    except (TimeoutError, ConnexonError):
        await hub.is_healthy(False)
        LOG.error("the database takes nothing: the hub says that it does not serve")
    else:
        await hub.is_healthy(True)


def _nothing(_: Connection, items: Sequence[None]) -> Sequence[None]:
    return items


async def look_at_roster(hub: Hub) -> None:
    """Say in time that the roster runs out: no node answers by one that has."""
    roster = hub.standing.roster
    left = roster.expires_at_ms - now_ms()
    if left < ROSTER_WARNING_MS:
        when = f"expires on {to_text(roster.expires_at_ms)}" if left > 0 else "has expired; nobody is answered"
        hub.note("roster.expires", detail=f"roster {roster.serial} {when}: sign the next with the root key")


async def look_at_clock(hub: Hub) -> None:
    """Say that the clock is in doubt: nothing is ended or removed by it then."""
    if hub.clock.ahead_ms is not None and (doubt := hub.clock.doubt):
        hub.note("clock.doubted", detail=f"{doubt} Nothing is ended or removed until the clocks agree.")


async def thin_witness(hub: Hub) -> None:
    """Of the older heads of audit logs, keep one an hour."""
    if (sure := hub.clock.sure_ms()) is not None:
        await hub.writer.write(hub.witness.thin, sure)


async def forget_certificates(hub: Hub) -> None:
    """Forget the link certificates that ran out long ago."""
    if (sure := hub.clock.sure_ms()) is not None:
        await hub.writer.write(certificates.forget, sure)


async def forget_revocations(hub: Hub) -> None:
    """Forget what was revoked of credentials that have all run out."""
    if (sure := hub.clock.sure_ms()) is not None:
        await hub.revoked.forget(sure)


async def forget_proofs(hub: Hub) -> None:
    """Forget the proofs of calls that count no more."""
    if (moment := hub.clock.probable_ms()) is not None:
        await hub.callers.forget(moment)


async def look_at_connections(hub: Hub) -> None:
    """Cut the connections over which nobody proves anything, where they are too many or too old."""
    await asyncio.to_thread(hub.connections.look)
    await asyncio.to_thread(hub.link_connections.look)


async def sum_up_refusals(hub: Hub) -> None:
    """Log what was refused since the last time."""
    refused, cut = hub.refusals.sum_up(), hub.connections.take_cut() + hub.link_connections.take_cut()
    if refused or cut:
        LOG.info("refused calls: %s; connections cut: %d", refused or "none", cut)
