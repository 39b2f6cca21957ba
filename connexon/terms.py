"""On what terms a question is asked: why, of whom, how long it may wait."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from types import UnionType

from connexon import purpose as purposes
from connexon import signed
from connexon.answer import Answer
from connexon.clock import DAY, HOUR, MINUTE, SECOND
from connexon.config import Home
from connexon.errors import InvalidQuery, NotFound, Refused
from connexon.identity import CenterId
from connexon.question import DifferentialPrivacy, Purpose
from connexon.roster import Roster
from connexon.suggest import hint

WAIT_SECONDS = 60.0
EXPIRES_IN = "7d"
DELTA = 1e-6
"""Where only an epsilon is named."""
_DURATION = re.compile(r"(\d{1,6})\s*(s|m|h|d)\Z")
_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
Progress = Callable[[Answer], None]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms a question is asked; None takes the researcher's default.

    `wait` is in seconds, None without limit. `expires_in`, such as "90m" or "7d", is how long centers that are down
    may take to come back and answer; thirty days at most. `epsilon`, with `delta` beside it, asks for noise that hides
    every single donor (differential privacy): the smaller, the more. `on_progress` is called with the answer before the
    question is sent and at every news.
    """

    purpose: str | Purpose | None = None
    project: str | None = None
    commercial: bool = False
    ethics_approval: str = ""
    centers: Iterable[str] | None = None
    wait: float | None = WAIT_SECONDS
    expires_in: str | datetime.timedelta = EXPIRES_IN
    epsilon: float | None = None
    delta: float | None = None
    on_progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse what is not of its kind, before it fails somewhere inside. Raises InvalidQuery."""
        _require("purpose", self.purpose, str | Purpose | None, "a text such as 'health', or a Purpose")
        _require("project", self.project, str | None, "a text")
        _require("ethics_approval", self.ethics_approval, str, "a text")
        _require("centers", self.centers, Iterable | None, "a list of centers, such as ['lyon', 'kyoto']")
        _require("expires_in", self.expires_in, str | datetime.timedelta, "a text such as '12h', or a timedelta")
        _require("epsilon", self.epsilon, Real | None, "a number, such as 1")
        _require("delta", self.delta, Real | None, "a number, such as 1e-6")
        require_wait(self.wait)


def require_wait(wait: object) -> None:
    """Raise InvalidQuery for what is no time to wait."""
    _require("wait", wait, Real | None, "seconds, or None to wait without limit")
    if isinstance(wait, Real) and not float(wait) >= 0:
        raise InvalidQuery("wait is in seconds, from 0 on; None waits without limit.", code="query.invalid_terms")


def _require(name: str, value: object, kind: type | UnionType, wanted: str) -> None:
    if not isinstance(value, kind):
        raise InvalidQuery(f"{name} is {wanted}; {str(value)[:40]!r} is none.", code="query.invalid_terms")


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


def privacy_of(terms: Terms) -> DifferentialPrivacy | None:
    """The noise asked for, if any. Raises InvalidQuery on a delta without an epsilon."""
    if terms.epsilon is None:
        if terms.delta is not None:
            raise InvalidQuery("A delta needs an epsilon beside it.", code="query.invalid_privacy")
        return None
    return DifferentialPrivacy(float(terms.epsilon), DELTA if terms.delta is None else float(terms.delta))


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
