"""The duties that a center states of its donors in general: with every answer about persons, decided by its steward."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from connexon.clock import now_ms
from connexon.errors import Conflict, InvalidQuery, NotFound
from connexon.service.database import Database
from connexon_node.consent.obligations import CarriedDuty, Duty
from connexon_node.consent.tables import StatedDutyRow

_STATED = StatedDutyRow.metadata.tables[str(StatedDutyRow.__tablename__)]
_IN_FORCE = _STATED.c.ended_at_ms.is_(None)
_NOW_STATED = select(_STATED.c.term, _STATED.c.value).where(_IN_FORCE)


@dataclass(frozen=True)
class StatedDuty:
    """A statement, and the number of donors who carried the duty when it was made."""

    duty: Duty
    donors: int
    stated_at_ms: int
    stated_by: str


class StatedDuties:
    """The table stated_duties. A statement stands until the steward ends it, whatever consents do meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def in_force(self) -> frozenset[Duty]:
        """What answers tell from the next question on."""
        with self._database.reading() as connection:
            return frozenset(Duty(term, value) for term, value in connection.execute(_NOW_STATED))

    def statements(self) -> tuple[StatedDuty, ...]:
        """The statements in force, oldest first."""
        query = select(_STATED).where(_IN_FORCE).order_by(_STATED.c.id)
        with self._database.reading() as connection:
            return tuple(
                StatedDuty(Duty(row["term"], row["value"]), row["donors"], row["stated_at_ms"], row["stated_by"])
                for row in connection.execute(query).mappings()
            )

    def state(self, duty: Duty, known: tuple[CarriedDuty, ...], *, minimum: int, by: str) -> None:
        """State a duty that at least `minimum` donors carry by consents in force; `known` are all that are carried.

        Raises NotFound where nobody carries it, InvalidQuery where too few do, Conflict where it is stated already.
        """
        found = [one.donors for one in known if one.duty == duty]
        if not found:
            raise NotFound(
                f"No consent in force asks for {duty}; consent duties lists what is asked for.",
                code="consent.duty_unknown",
            )
        if min(found) < minimum:
            raise InvalidQuery(
                f"Only {min(found)} of your donors ask for {duty}, and {minimum} are needed for it to be told with "
                "every answer; tell it to those whose question counts them.",
                code="consent.duty_of_few",
            )
        with self._database.writing() as connection:
            if duty in {Duty(term, value) for term, value in connection.execute(_NOW_STATED)}:
                raise Conflict(f"Answers tell {duty} already.", code="consent.duty_stated")
            row = {"term": duty.term, "value": duty.value, "donors": min(found)}
            ending = {"ended_at_ms": None, "ended_by": ""}
            connection.execute(insert(_STATED), {**row, "stated_at_ms": now_ms(), "stated_by": by, **ending})

    def end(self, duty: Duty, *, by: str) -> None:
        """Tell a duty no more. Raises NotFound where it is not stated."""
        found = _IN_FORCE & (_STATED.c.term == duty.term) & (_STATED.c.value == duty.value)
        with self._database.writing() as connection:
            ended = connection.execute(update(_STATED).where(found).values(ended_at_ms=now_ms(), ended_by=by))
            if not ended.rowcount:
                raise NotFound(f"Answers do not tell {duty}.", code="consent.duty_not_stated")
