"""The hub's tables. Times are milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Table, text
from sqlmodel import Field, SQLModel

from connexon_hub.state import HubTable


class InvitationRow(HubTable, table=True):
    """A one-time invitation; the token itself is never kept."""

    __tablename__ = "invitations"

    token_sha256: str = Field(primary_key=True)
    center_id: str = Field(index=True)
    legal_name: str
    country: str
    organisation_kind: str
    created_ms: int = Field(sa_type=BigInteger)
    expires_ms: int = Field(sa_type=BigInteger)
    voided_ms: int | None = Field(default=None, sa_type=BigInteger)
    used_ms: int | None = Field(default=None, sa_type=BigInteger)
    used_by: str = ""
    """SHA-256, hexadecimal, over the three keys that used it."""


class MemberRow(HubTable, table=True):
    """A center as the hub's operator sees it; `status` is connexon_hub.membership.standing.HubStatus."""

    __tablename__ = "members"

    center_id: str = Field(primary_key=True)
    legal_name: str
    country: str
    organisation_kind: str
    status: str
    because: str = ""
    accrediting_key: bytes | None = None
    answering_key: bytes | None = None
    link_key: bytes | None = None
    """SubjectPublicKeyInfo in DER of the key behind its link certificates."""
    joined_ms: int | None = Field(default=None, sa_type=BigInteger)
    changed_ms: int = Field(sa_type=BigInteger)
    revision: int = Field(sa_type=BigInteger, index=True)
    """Grows over the whole table with every change, so that `serve` sees it."""


class CertificateRow(HubTable, table=True):
    """A link certificate that was issued."""

    __tablename__ = "certificates"

    serial: str = Field(primary_key=True)
    center_id: str = Field(index=True)
    issued_ms: int = Field(sa_type=BigInteger)
    expires_ms: int = Field(sa_type=BigInteger)
    revoked_ms: int | None = Field(default=None, sa_type=BigInteger)


class RosterRow(HubTable, table=True):
    """A published roster; the one with the highest serial is in force."""

    __tablename__ = "rosters"

    serial: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    published_ms: int = Field(sa_type=BigInteger)
    signed: bytes


class RevocationRow(HubTable, table=True):
    """That credentials of a researcher issued before a moment do not count, as their home center signed it."""

    __tablename__ = "revocations"

    center_id: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    issued_before_ms: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    received_ms: int = Field(sa_type=BigInteger)
    signed: bytes


class ProofRow(HubTable, table=True):
    """A proof of a call that was used, kept as long as it would count again."""

    __tablename__ = "proofs"

    researcher_id: str = Field(primary_key=True)
    proof_id: str = Field(primary_key=True)
    until_ms: int = Field(sa_type=BigInteger, index=True)


class QueryRow(HubTable, table=True):
    """A query as it was asked."""

    __tablename__ = "queries"
    __table_args__ = (
        Index("ix_queries_researcher", "researcher_id", "accepted_ms"),
        Index("ix_queries_open", "closed_ms", "expires_ms"),
        # Those that are not closed are few, however many a researcher ever asked.
        Index(
            "ix_queries_open_of_researcher",
            "researcher_id",
            sqlite_where=text("closed_ms IS NULL"),
            postgresql_where=text("closed_ms IS NULL"),
        ),
        # Forgetting looks at those only whose bytes are kept.
        Index(
            "ix_queries_kept",
            "closed_ms",
            sqlite_where=text("length(signed) > 0"),
            postgresql_where=text("length(signed) > 0"),
        ),
    )

    query_id: str = Field(primary_key=True)
    researcher_id: str
    signed: bytes
    traceparent: str = ""
    accepted_ms: int = Field(sa_type=BigInteger)
    expires_ms: int = Field(sa_type=BigInteger)
    cancelled_ms: int | None = Field(default=None, sa_type=BigInteger)
    closed_ms: int | None = Field(default=None, sa_type=BigInteger)
    """When the last delivery became final."""


class DeliveryRow(HubTable, table=True):
    """One center's part of a query; `state` is connexon.v1.DeliveryState."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("ix_deliveries_center", "center_id", "state"),
        Index("ix_deliveries_answered", "state", "answered_ms"),
    )

    query_id: str = Field(primary_key=True)
    center_id: str = Field(primary_key=True)
    state: int
    received_ms: int | None = Field(default=None, sa_type=BigInteger)
    answered_ms: int | None = Field(default=None, sa_type=BigInteger)
    answer_status: int = 0
    answer: bytes | None = None
    """A serialised SignedAnswer."""


class SessionRow(HubTable, table=True):
    """The latest link of a center, written by `serve` for `status`."""

    __tablename__ = "sessions"

    center_id: str = Field(primary_key=True)
    process_id: str
    connected_ms: int = Field(sa_type=BigInteger)
    ended_ms: int | None = Field(default=None, sa_type=BigInteger)
    seen_ms: int = Field(sa_type=BigInteger)
    last_answer_ms: int | None = Field(default=None, sa_type=BigInteger)
    latency_ms: float | None = None
    """Round trip of the last heartbeat."""
    software_version: str
    protocol: str
    dictionary_version: str
    roster_serial: int = Field(sa_type=BigInteger)
    certificate_expires_ms: int = Field(sa_type=BigInteger)
    clock_offset_ms: int | None = Field(default=None, sa_type=BigInteger)


class EventRow(HubTable, table=True):
    """Something the operator should know of, security above all."""

    __tablename__ = "events"

    event_id: int | None = Field(default=None, primary_key=True)
    at_ms: int = Field(sa_type=BigInteger, index=True)
    code: str
    center_id: str = ""
    detail: str = ""


class LogHeadRow(HubTable, table=True):
    """A head of a center's audit log that the hub witnessed; `signed` is a serialised SignedTreeHead."""

    __tablename__ = "log_heads"

    center_id: str = Field(primary_key=True)
    size: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    root_sha256: bytes
    received_ms: int = Field(sa_type=BigInteger)
    signed: bytes


class LogContradictionRow(HubTable, table=True):
    """The first head of a center that does not continue what was witnessed: evidence, with the center's signature."""

    __tablename__ = "log_contradictions"

    center_id: str = Field(primary_key=True)
    size: int = Field(sa_type=BigInteger)
    root_sha256: bytes
    received_ms: int = Field(sa_type=BigInteger)
    signed: bytes


class LogToldRow(HubTable, table=True):
    """The longest log that a center has shown in an answer; `signed` is a serialised SignedTreeHead, as it came."""

    __tablename__ = "log_told"

    center_id: str = Field(primary_key=True)
    size: int = Field(sa_type=BigInteger)
    signed: bytes


class LogGivenUpRow(HubTable, table=True):
    """A head that a center's log no longer continues, by its steward's own statement: kept as evidence."""

    __tablename__ = "log_given_up"

    center_id: str = Field(primary_key=True)
    size: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    given_up_ms: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    signed: bytes


class RunRow(HubTable, table=True):
    """A training run; `state` is connexon.v1.RunState. It began as the query of the same id."""

    __tablename__ = "runs"

    query_id: str = Field(primary_key=True)
    researcher_id: str = Field(index=True)
    state: int = Field(index=True)
    rounds: int
    """As the recipe asks for."""
    code: str = ""
    message: str = ""
    centers: str = ""
    """Those that take part, JSON; decided once."""
    noise_seed: bytes
    """16 bytes that nobody outside knows: of the noise that the hub adds, the same when a run is taken up again."""
    model_id: str = ""
    created_ms: int = Field(sa_type=BigInteger)
    started_ms: int | None = Field(default=None, sa_type=BigInteger)
    ended_ms: int | None = Field(default=None, sa_type=BigInteger)


class RunTaskRow(HubTable, table=True):
    """One task of a run, the same for every center it goes to; its parcel is a file."""

    __tablename__ = "run_tasks"

    query_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    action: str
    round: int
    deadline_ms: int = Field(sa_type=BigInteger)
    size: int = Field(sa_type=BigInteger)


class RunPartRow(HubTable, table=True):
    """One center's part in a task; `state` is connexon_hub.training.store.PartState."""

    __tablename__ = "run_parts"
    __table_args__ = (Index("ix_run_parts_center", "center_id", "state"),)

    query_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    center_id: str = Field(primary_key=True)
    state: int
    answer: bytes | None = None
    """A serialised SignedAnswer, the head of the reply's parcel."""
    settled_ms: int | None = Field(default=None, sa_type=BigInteger)


class RunChoiceRow(HubTable, table=True):
    """What was decided in a run by what was the case at that moment; taken up again, it is decided alike."""

    __tablename__ = "run_choices"

    query_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    value: str


class RunRoundRow(HubTable, table=True):
    """A round as it came out; `report` is a serialised RoundReport."""

    __tablename__ = "run_rounds"

    query_id: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    report: bytes


class ModelRow(HubTable, table=True):
    """A model in the registry; its arrays are a file."""

    __tablename__ = "models"

    researcher_id: str = Field(primary_key=True)
    model_id: str = Field(primary_key=True)
    query_id: str = Field(index=True)
    name: str
    version: int
    created_ms: int = Field(sa_type=BigInteger)
    signed: bytes
    """A serialised SignedModel, without flags."""
    summary: bytes
    """A serialised ModelSummary, without flags."""


class ModelFlagRow(HubTable, table=True):
    """What a center said of a run's model afterwards; `answer` is the serialised SignedAnswer that says so."""

    __tablename__ = "model_flags"

    query_id: str = Field(primary_key=True)
    center_id: str = Field(primary_key=True)
    code: str = Field(primary_key=True)
    message: str
    at_ms: int = Field(sa_type=BigInteger)
    answer: bytes


def _table(model: type[SQLModel]) -> Table:
    table = model.__table__  # type: ignore[attr-defined]  # SQLModel adds it, without telling the type checker
    assert isinstance(table, Table)
    return table


INVITATIONS = _table(InvitationRow)
MEMBERS = _table(MemberRow)
CERTIFICATES = _table(CertificateRow)
ROSTERS = _table(RosterRow)
REVOCATIONS = _table(RevocationRow)
PROOFS = _table(ProofRow)
QUERIES = _table(QueryRow)
DELIVERIES = _table(DeliveryRow)
SESSIONS = _table(SessionRow)
EVENTS = _table(EventRow)
LOG_HEADS = _table(LogHeadRow)
LOG_CONTRADICTIONS = _table(LogContradictionRow)
LOG_TOLD = _table(LogToldRow)
LOG_GIVEN_UP = _table(LogGivenUpRow)
RUNS = _table(RunRow)
RUN_TASKS = _table(RunTaskRow)
RUN_PARTS = _table(RunPartRow)
RUN_CHOICES = _table(RunChoiceRow)
RUN_ROUNDS = _table(RunRoundRow)
MODELS = _table(ModelRow)
MODEL_FLAGS = _table(ModelFlagRow)
