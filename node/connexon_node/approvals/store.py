"""Requests and approvals in the node's database. The steward's commands write here, the serving node reads."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update

from connexon.clock import now_ms
from connexon.errors import Conflict, InvalidQuery, NotFound
from connexon.service.database import Database
from connexon_node.approvals.model import Approval, Request, Scope, State, reasons_from_json
from connexon_node.approvals.tables import ApprovalRow, EarlierAnswerRow, StewardRequestRow
from connexon_node.state.requests import RevocationRow

_TABLES = StewardRequestRow.metadata.tables
_REQUESTS = _TABLES[str(StewardRequestRow.__tablename__)]
_APPROVALS = _TABLES[str(ApprovalRow.__tablename__)]
_EARLIER = _TABLES[str(EarlierAnswerRow.__tablename__)]
_REVOCATIONS = _TABLES[str(RevocationRow.__tablename__)]
_DECIDED = (State.APPROVED.value, State.REFUSED.value, State.CANCELLED.value)
_UNDECIDED: dict[str, Any] = {"decided_at_ms": None, "decided_by": "", "because": "", "outcome": ""}
MINIMUM_PREFIX = 6
"""Letters of a query id that may stand for the whole."""


class ApprovalStore:
    """The tables steward_requests and approvals."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def requests(self, *, everything: bool = False) -> list[Request]:
        """What waits for the steward, oldest first; or every request there was."""
        query = select(_REQUESTS).order_by(_REQUESTS.c.asked_at_ms, _REQUESTS.c.query_id)
        if not everything:
            query = query.where(_REQUESTS.c.state == State.WAITING.value)
        with self._database.reading() as connection:
            return [_request(row) for row in connection.execute(query).mappings()]

    def approvals(self, *, everything: bool = False) -> list[Approval]:
        """Approvals of projects that are in force, newest first; or every approval there was."""
        query = select(_APPROVALS).order_by(_APPROVALS.c.given_at_ms.desc(), _APPROVALS.c.approval_id)
        if not everything:
            query = query.where(_APPROVALS.c.scope == Scope.PROJECT.value, _standing(now_ms()))
        with self._database.reading() as connection:
            return [_approval(row) for row in connection.execute(query).mappings()]

    def approve(
        self, request: str, *, scope: Scope, everyone: bool = False, until_ms: int | None, by: str, because: str
    ) -> tuple[Request, Approval]:
        """Say yes to a request, named by its query id or the beginning of it.

        A project's approval also settles every other waiting request that it covers. Raises NotFound, InvalidQuery
        where the scope does not fit, Conflict where the request was answered or its time is over.
        """
        moment = now_ms()
        with self._database.writing() as connection:
            found = _open_request(connection, request, moment)
            if scope is Scope.PROJECT and not found.project:
                raise InvalidQuery(
                    "The question names no project, so only this one query can be approved.", code="approval.no_project"
                )
            if scope is Scope.PROJECT and (until_ms is None or until_ms <= moment):
                raise InvalidQuery("A project's approval needs a day in the future.", code="approval.until")
            _revoke_of_query(connection, found.query_id, moment, by, "decided again")
            approval = Approval(
                approval_id=uuid.uuid4().hex[:12],
                scope=scope,
                query_id=found.query_id,
                query_sha256=found.query_sha256,
                researcher="" if everyone and scope is Scope.PROJECT else found.researcher,
                center=found.center,
                purpose=found.purpose,
                purpose_words=found.purpose_words,
                project=found.project,
                dataset=found.dataset,
                rules=found.rules,
                given_at_ms=moment,
                given_by=by,
                because=because,
                expires_at_ms=found.expires_at_ms if scope is Scope.QUERY or until_ms is None else until_ms,
                revoked_at_ms=None,
                revoked_by="",
                revoked_because="",
            )
            row = {**vars(approval), "scope": scope.value, "rules": json.dumps(sorted(approval.rules))}
            connection.execute(insert(_APPROVALS), row)
            for one in [found, *_others_covered(connection, approval, found)]:
                _decide(connection, one.query_id, State.APPROVED, moment, by, because)
        return found, approval

    def refuse(self, request: str, *, by: str, because: str) -> Request:
        """Say no to a request. Raises as approve does."""
        moment = now_ms()
        with self._database.writing() as connection:
            found = _open_request(connection, request, moment)
            _revoke_of_query(connection, found.query_id, moment, by, because)
            _decide(connection, found.query_id, State.REFUSED, moment, by, because)
        return found

    def revoke(self, approval: str, *, by: str, because: str) -> Approval:
        """Take a project's approval back: later questions wait again. Raises NotFound, or Conflict where it is over."""
        moment = now_ms()
        with self._database.writing() as connection:
            rows = connection.execute(
                select(_APPROVALS).where(
                    _APPROVALS.c.approval_id.startswith(approval, autoescape=True),
                    _APPROVALS.c.scope == Scope.PROJECT.value,
                )
            )
            found = [_approval(row) for row in rows.mappings()]
            if len(found) != 1 or not approval:
                raise NotFound(
                    f"No approval {approval!r}; connexon-node approvals list shows those in force.",
                    code="approval.unknown",
                )
            if not found[0].in_force(moment):
                raise Conflict("This approval is not in force any more.", code="approval.over")
            connection.execute(
                update(_APPROVALS)
                .where(_APPROVALS.c.approval_id == found[0].approval_id)
                .values(revoked_at_ms=moment, revoked_by=by, revoked_because=because)
            )
        return found[0]

    def cancel(self, query_id: str) -> bool:
        """The researcher took a question back that the steward has not decided. False where there is none such."""
        waiting = (_REQUESTS.c.query_id == query_id) & (_REQUESTS.c.state != State.ANSWERED.value)
        with self._database.writing() as connection:
            return connection.execute(update(_REQUESTS).where(waiting).values(state=State.CANCELLED.value)).rowcount > 0

    def due(self) -> list[tuple[str, int, bool]]:
        """Questions that can be answered now: decided, taken back, out of time, or of a researcher revoked since.

        Query id, expiry, taken back.
        """
        revoked = exists().where(
            _REVOCATIONS.c.center_id == _REQUESTS.c.center,
            _REQUESTS.c.researcher == _REVOCATIONS.c.center_id + "/" + _REVOCATIONS.c.subject,
            # Who was accredited anew meanwhile is referred again, once, and asked later than that.
            _REQUESTS.c.asked_at_ms <= _REVOCATIONS.c.received_at_ms,
        )
        over = and_(_REQUESTS.c.state == State.WAITING.value, or_(_REQUESTS.c.expires_at_ms <= now_ms(), revoked))
        query = select(_REQUESTS.c.query_id, _REQUESTS.c.expires_at_ms, _REQUESTS.c.state).where(
            or_(_REQUESTS.c.state.in_(_DECIDED), over)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [(query_id, expires, state == State.CANCELLED.value) for query_id, expires, state in rows]

    def find(self, query_id: str) -> Request | None:
        """One request, by its whole query id."""
        with self._database.reading() as connection:
            row = connection.execute(select(_REQUESTS).where(_REQUESTS.c.query_id == query_id)).mappings().one_or_none()
        return None if row is None else _request(row)

    def covering(self, **question: Any) -> list[Approval]:
        """Approvals, in force or not, that were given for such a question; see Approval.covers."""
        given = or_(
            _APPROVALS.c.query_id == question["query_id"],
            and_(_APPROVALS.c.scope == Scope.PROJECT.value, _APPROVALS.c.project == question["project"]),
        )
        with self._database.reading() as connection:
            rows = connection.execute(select(_APPROVALS).where(given).order_by(_APPROVALS.c.given_at_ms)).mappings()
            return [one for one in map(_approval, rows) if one.covers(**question)]

    def knows_project(self, project: str, center: str) -> bool:
        """Whether the steward once approved something of this project of that home center, and did not take it back."""
        known = select(_APPROVALS.c.approval_id).where(
            _APPROVALS.c.project == project, _APPROVALS.c.center == center, _APPROVALS.c.revoked_at_ms.is_(None)
        )
        with self._database.reading() as connection:
            return bool(project) and connection.execute(known.limit(1)).first() is not None


def put_before(connection: Connection, row: dict[str, Any]) -> None:
    """Keep a question for the steward; the same question again waits again, with its reasons of now."""
    connection.execute(delete(_REQUESTS).where(_REQUESTS.c.query_id == row["query_id"]))
    connection.execute(insert(_REQUESTS), {**row, "state": State.WAITING.value, **_UNDECIDED})


def all_in_force(connection: Connection, approvals: Sequence[str], at_ms: int) -> bool:
    """Whether each of these approvals counts."""
    query = select(func.count()).where(_APPROVALS.c.approval_id.in_(list(approvals)), _standing(at_ms))
    return connection.execute(query).scalar_one() == len(set(approvals))


def follow(connection: Connection, kept: dict[str, Any], outcome: str, *, final: bool) -> None:
    """An answer follows `kept`, which said that it awaits the steward; where it is final, the request is closed."""
    number = select(func.count()).where(_EARLIER.c.query_id == kept["query_id"])
    connection.execute(insert(_EARLIER), {**kept, "number": connection.execute(number).scalar_one() + 1})
    if final:
        closed = update(_REQUESTS).where(_REQUESTS.c.query_id == kept["query_id"])
        connection.execute(closed.values(state=State.ANSWERED.value, outcome=outcome))


def forget(connection: Connection, ids: Any) -> None:
    """Remove the requests and earlier answers of these queries, which were removed from the inbox."""
    for table in (_REQUESTS, _EARLIER):
        connection.execute(delete(table).where(table.c.query_id.in_(ids)))


def _standing(at_ms: int) -> Any:
    return and_(_APPROVALS.c.revoked_at_ms.is_(None), _APPROVALS.c.expires_at_ms > at_ms)


def _open_request(connection: Connection, request: str, moment: int) -> Request:
    if len(request) < MINIMUM_PREFIX:
        raise InvalidQuery(f"Give at least {MINIMUM_PREFIX} letters of the request's id.", code="request.too_short")
    named = _REQUESTS.c.query_id.startswith(request.lower(), autoescape=True)
    found = [_request(row) for row in connection.execute(select(_REQUESTS).where(named)).mappings()]
    if not found:
        raise NotFound(f"No request {request}; connexon-node requests lists those that wait.", code="request.unknown")
    if len(found) > 1:
        raise InvalidQuery(f"Several requests begin with {request}; give more of the id.", code="request.ambiguous")
    if found[0].state in (State.ANSWERED, State.CANCELLED):
        over = "was taken back by the researcher" if found[0].state is State.CANCELLED else "has its answer already"
        raise Conflict(f"The request {over}: {found[0].outcome or 'cancelled'}.", code="request.over")
    if moment >= found[0].expires_at_ms:
        raise Conflict("The question's time is over; the researcher must ask again.", code="request.expired")
    return found[0]


def _others_covered(connection: Connection, approval: Approval, first: Request) -> list[Request]:
    if approval.scope is Scope.QUERY:
        return []
    waiting = select(_REQUESTS).where(
        _REQUESTS.c.state == State.WAITING.value,
        _REQUESTS.c.project == approval.project,
        _REQUESTS.c.query_id != first.query_id,
    )
    others = [_request(row) for row in connection.execute(waiting).mappings()]
    return [one for one in others if one.rules <= approval.rules and _covers(approval, one)]


def _covers(approval: Approval, request: Request) -> bool:
    return approval.covers(
        query_id=request.query_id,
        query_sha256=request.query_sha256,
        researcher=request.researcher,
        purpose=request.purpose,
        project=request.project,
        dataset=request.dataset,
    )


def _revoke_of_query(connection: Connection, query_id: str, moment: int, by: str, because: str) -> None:
    """A query's own approval ends where the steward decides again before it was used."""
    connection.execute(
        update(_APPROVALS)
        .where(
            _APPROVALS.c.query_id == query_id,
            _APPROVALS.c.scope == Scope.QUERY.value,
            _APPROVALS.c.revoked_at_ms.is_(None),
        )
        .values(revoked_at_ms=moment, revoked_by=by, revoked_because=because)
    )


def _decide(connection: Connection, query_id: str, state: State, moment: int, by: str, because: str) -> None:
    decided = {"state": state.value, "decided_at_ms": moment, "decided_by": by, "because": because}
    connection.execute(update(_REQUESTS).where(_REQUESTS.c.query_id == query_id).values(decided))


def _request(row: Any) -> Request:
    values = {**row, "query_sha256": bytes(row["query_sha256"]), "state": State(row["state"])}
    return Request(**{**values, "reasons": reasons_from_json(row["reasons"])})


def _approval(row: Any) -> Approval:
    values = {**row, "query_sha256": bytes(row["query_sha256"]), "scope": Scope(row["scope"])}
    return Approval(**{**values, "rules": frozenset(json.loads(row["rules"]))})
