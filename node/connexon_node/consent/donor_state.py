"""Where a donor's consent stands, and how one more record moves it. Pure: values in, values out.

The newest consent decides. Records may come in any order and more than once and add up to the same standing:
`obtained_on` and `withdrawn_on` only grow, and two different consents of one day deny until a steward amends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Status(Enum):
    """Why a profile is in force or none is."""

    NONE = "none"
    IN_FORCE = "in_force"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True)
class Standing:
    """The newest consent of one donor and the latest withdrawal. Dates are ISO 8601 text, empty for never.

    `expires_on` is the day from which on the newest consent no longer counts. Time itself does not move a standing:
    the ledger does, by `ended`, on that day.
    """

    latest_profile: int = 0
    obtained_on: str = ""
    newest: Status = Status.NONE
    withdrawn_on: str = ""
    amended: bool = False
    expires_on: str = ""

    @property
    def status(self) -> Status:
        """What the newest consent comes to. A withdrawal counts until a later consent is given."""
        if self.withdrawn_on and self.withdrawn_on >= self.obtained_on:
            return Status.WITHDRAWN
        return self.newest

    @property
    def profile(self) -> int:
        """The profile in force; 0 where none is."""
        return self.latest_profile if self.status is Status.IN_FORCE else 0


NEVER = Standing()


def recorded(
    now: Standing, profile: int, obtained_on: str, *, expired: bool, expires_on: str = "", known: bool = False
) -> Standing:
    """The standing after one consent more.

    `known` says that this very consent was in the ledger before a steward amended it: then it is no news but for its
    end. Of two ends of one day's consents the earlier counts.
    """
    newest = Status.EXPIRED if expired else Status.IN_FORCE
    known = known and now.amended
    if obtained_on > now.obtained_on and not known:
        return replace(
            now, latest_profile=profile, obtained_on=obtained_on, newest=newest, amended=False, expires_on=expires_on
        )
    if obtained_on < now.obtained_on:
        return now
    now = replace(now, expires_on=min(filter(None, (now.expires_on, expires_on)), default=""))
    if expired and now.newest is not Status.EXPIRED:
        return replace(now, newest=Status.EXPIRED)
    if profile != now.latest_profile and now.newest is Status.IN_FORCE and not known:
        return replace(now, newest=Status.CONTRADICTED, amended=False)
    return now


def amended(now: Standing, profile: int, obtained_on: str, *, expires_on: str | None = None) -> Standing:
    """The standing after a steward set the newest consent right. A withdrawal stands.

    Without `expires_on` (empty: it has no end) its end stays as it was, also where that has come.
    """
    over = expires_on is None and now.newest is Status.EXPIRED
    return replace(
        now,
        latest_profile=profile,
        obtained_on=obtained_on,
        newest=Status.EXPIRED if over else Status.IN_FORCE,
        amended=True,
        expires_on=now.expires_on if expires_on is None else expires_on,
    )


def ended(now: Standing) -> Standing:
    """The standing after the newest consent's own end has come."""
    return replace(now, newest=Status.EXPIRED) if now.newest is Status.IN_FORCE else now


def withdrawn(now: Standing, withdrawn_on: str) -> Standing:
    """The standing after a withdrawal."""
    return replace(now, withdrawn_on=max(now.withdrawn_on, withdrawn_on))
