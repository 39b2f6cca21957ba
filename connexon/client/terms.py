"""On what terms a question is asked: why, of whom, how long it may wait."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from types import UnionType

from connexon.client.answer import Answer
from connexon.client.home import Home
from connexon.clock import DAY, HOUR, MINUTE, SECOND
from connexon.errors import InvalidQuery, NotFound, Refused
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.query import purpose as purposes
from connexon.query import signed
from connexon.query.question import Purpose
from connexon.suggest import hint

WAIT_SECONDS = 60.0
EXPIRES_IN = "7d"
_DURATION = re.compile(r"(\d{1,6})\s*(s|m|h|d)\Z")
_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
Progress = Callable[[Answer], None]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms a question is asked; None takes the researcher's default.

    `wait` is in seconds, None without limit; centers that are not connected are waited for only with `wait_for_all`.
    `expires_in`, such as "90m" or "7d", is how long centers that are down
    may take to come back and answer; thirty days at most. `within` is how close numbers with noise must be
    to the exact ones, plus or minus with 95 %, at each center; None takes each center's default. `price_only` asks for
    the price of the answer and not for the answer. `on_progress` is called with the answer before the
    question is sent and at every news.
    """

    purpose: str | Purpose | None = None
    project: str | None = None
    commercial: bool = False
    ethics_approval: str = ""
    centers: Iterable[str] | None = None
    wait: float | None = WAIT_SECONDS
    wait_for_all: bool = False
    expires_in: str | datetime.timedelta = EXPIRES_IN
    within: int | None = None
    price_only: bool = False
    on_progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse what is not of its kind, before it fails somewhere inside. Raises InvalidQuery."""
        _require("purpose", self.purpose, str | Purpose | None, "a text such as 'health', or a Purpose")
        _require("project", self.project, str | None, "a text")
        _require("ethics_approval", self.ethics_approval, str, "a text")
        _require("centers", self.centers, Iterable | None, "a list of centers, such as ['lyon', 'kyoto']")
        _require("expires_in", self.expires_in, str | datetime.timedelta, "a text such as '12h', or a timedelta")
        _require("within", self.within, int | None, "a whole number, such as 15")
        _require("wait_for_all", self.wait_for_all, bool, "True or False")
        _require("price_only", self.price_only, bool, "True or False")
        require_wait(self.wait)


def require_wait(wait: object) -> None:
    """Raise InvalidQuery for what is no time to wait."""
    _require("wait", wait, Real | None, "seconds, or None to wait without limit")
    if isinstance(wait, Real) and not float(wait) >= 0:
        raise InvalidQuery("wait is in seconds, from 0 on; None waits without limit.", code="query.invalid_terms")


def _require(name: str, value: object, kind: type | UnionType, wanted: str) -> None:
    if not isinstance(value, kind):
        raise InvalidQuery(f"{name} is {wanted}; {str(value)[:40]!r} is none.", code="query.invalid_terms")


def kept(centers: object) -> Iterable[str] | None:
    """Centers that can be gone through again with the next question; what is no list stays, to be refused."""
    return tuple(centers) if isinstance(centers, Iterable) else centers  # type: ignore[return-value]  # refused by Terms


def purpose_of(terms: Terms, home: Home) -> Purpose:
    """The purpose, with the researcher's defaults where the terms leave it open. Raises InvalidQuery."""
    if isinstance(terms.purpose, Purpose):
        return purposes.checked(terms.purpose)
    text, project = terms.purpose, terms.project
    if text is None or project is None:
        defaults = home.defaults()
        text = defaults.purpose if text is None else text
        project = defaults.project if project is None else project
    return purposes.parse_purpose(
        text, commercial_use=terms.commercial, project=project, ethics_approval=terms.ethics_approval
    )


def duration_ms(text: str | datetime.timedelta) -> int:
    """A duration such as 90m, 12h or 7d, in milliseconds. Raises InvalidQuery."""
    if isinstance(text, datetime.timedelta):
        length = round(text.total_seconds() * 1000)
    else:
        match = _DURATION.match(text.strip())
        length = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < length <= signed.MAXIMUM_QUERY_LIFE_MS:
        raise InvalidQuery(
            f"{text!s} is not how long a question may wait: write for example 90m, 12h or 7d, thirty days at most.",
            code="query.life",
        )
    return length


def addressed(roster: Roster, asked: Iterable[str] | None) -> tuple[CenterId, ...]:
    """The centers to ask, all that take part for None. Raises NotFound or Refused where one does not."""
    active = [member.center for member in roster.active_members]
    if asked is None:
        if not active:
            raise Refused(f"No center takes part in {roster.federation} yet.", code="membership.none")
        return tuple(sorted(active))
    wanted = [asked] if isinstance(asked, str) else list(asked)
    if not wanted:
        raise InvalidQuery("Name at least one center, or leave centers out to ask all.", code="query.invalid_centers")
    for name in wanted:
        _require("centers", name, str, "a list of centers, such as ['lyon', 'kyoto']")
        if roster.member(CenterId(name)) is None:
            raise NotFound(
                f"{name!r} is not a member of {roster.federation}.{hint(name, active)}", code="membership.not_a_member"
            )
        roster.active(CenterId(name))
    return tuple(sorted({CenterId(name) for name in wanted}))
