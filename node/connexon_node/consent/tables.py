"""Tables of the consent ledger. Dates are ISO 8601 text, times milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from connexon_node.state import NodeTable


class DonorNumber(NodeTable, table=True):
    """The dense number that stands for a donor in the tables of data. Assigned once, never reused."""

    __tablename__ = "donor_numbers"

    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    donor_id: str = Field(unique=True)


class ConsentProfileRow(NodeTable, table=True):
    """One distinct consent profile, as ConsentProfile.to_json writes it."""

    __tablename__ = "consent_profiles"

    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sha256: str = Field(unique=True)
    profile: str


class ConsentEvent(NodeTable, table=True):
    """The ledger: what happened to a donor's consent. Rows are added, never changed or deleted."""

    __tablename__ = "consent_events"

    sequence: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    epoch: int = Field(sa_type=BigInteger)
    donor: int = Field(index=True)
    kind: str = Field(description="recorded, amended, withdrawn, expired or contradicted")
    profile: int = Field(description="the profile that the event is about; 0 where it is about none")
    effective_on: str = Field(description="the day the consent was obtained, or withdrawn")
    at_ms: int = Field(sa_type=BigInteger)
    by: str
    source: str
    because: str


class DonorConsent(NodeTable, table=True):
    """What the ledger adds up to for one donor."""

    __tablename__ = "donor_consents"
    __table_args__ = (
        # Few consents have an end of their own: what is due is found without looking at the others.
        Index(
            "ix_donor_consents_due",
            "expires_on",
            sqlite_where=text("expires_on != ''"),
            postgresql_where=text("expires_on != ''"),
        ),
    )

    donor: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    profile: int = Field(description="the profile in force; 0 where none is")
    newest: str = Field(description="the newest consent by itself: in_force, expired or contradicted; none without one")
    latest_profile: int = Field(description="of the newest consent, whether in force or not")
    obtained_on: str = Field(description="of the newest consent; empty where none was ever recorded")
    withdrawn_on: str = Field(description="the latest day of withdrawal; empty where there is none")
    amended: bool = Field(description="the newest consent was set right by a steward")
    epoch: int = Field(sa_type=BigInteger, index=True, description="the epoch of the last change")
    expires_on: str = Field(
        sa_column_kwargs={"server_default": ""},
        description="from which day on the newest consent no longer counts; empty where it has no end",
    )


class StatedDutyRow(NodeTable, table=True):
    """A duty that answers about persons tell in its own words, from the steward's statement until its end."""

    __tablename__ = "stated_duties"

    id: int | None = Field(default=None, primary_key=True)
    term: str = Field(max_length=64)
    value: str
    donors: int = Field(description="who carried it when it was stated")
    stated_at_ms: int = Field(sa_type=BigInteger)
    stated_by: str = Field(max_length=200)
    ended_at_ms: int | None = Field(sa_type=BigInteger)
    ended_by: str = Field(max_length=200)


class ConsentCounters(NodeTable, table=True):
    """The one row whose lock a writer of the ledger holds: no two write at a time."""

    __tablename__ = "consent_counters"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    epoch: int = Field(sa_type=BigInteger)
    last_event: int = Field(sa_type=BigInteger)
    last_donor: int
    last_profile: int
