"""The roster the node believes: signed by the pinned root, never an older one, kept across restarts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from connexon.clock import now_ms
from connexon.errors import Misconfigured
from connexon.identity import roster as rosters
from connexon.identity.roster import Roster, RosterPin
from connexon.service.database import Database
from connexon.v1 import roster_pb2
from connexon_node.settings import NodeSettings
from connexon_node.state.requests import RosterRow

_ROSTERS = RosterRow.__table__  # type: ignore[attr-defined]  # SQLModel gives a table class its __table__ at run time


class RosterKeeper:
    """Holds the roster in force and everybody who must hear of a newer one. Thread-safe."""

    def __init__(self, database: Database, *, root_fingerprint: bytes, federation: str) -> None:
        self._database = database
        self._root = root_fingerprint
        self._federation = federation
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Roster], None]] = []
        self._signed = self._newest()
        # Checked again on every start: somebody may have written to the database.
        self._present = (
            None if self._signed is None else rosters.believe(self._signed, root_fingerprint=root_fingerprint)
        )

    @property
    def present(self) -> Roster:
        """The roster in force. Raises Misconfigured where there has never been one."""
        if self._present is None:
            raise Misconfigured(
                "No roster is known; join the federation again with connexon-node join.", code="roster.none"
            )
        return self._present

    @property
    def serial(self) -> int:
        """Serial number of the roster in force; 0 without one."""
        return self._present.serial if self._present else 0

    @property
    def pin(self) -> RosterPin:
        """The roster in force by serial number and digest. Raises Misconfigured where there has never been one."""
        _, signed = self.present, self._signed
        assert signed is not None, "who has a roster has its signed form"
        return RosterPin.of(signed)

    def on_change(self, listener: Callable[[Roster], None]) -> None:
        """Call `listener` with the roster in force, now and whenever a newer one is believed."""
        with self._lock:
            self._listeners.append(listener)
            if self._present is not None:
                listener(self._present)

    def receive(self, signed: roster_pb2.SignedRoster) -> bool:
        """Believe a roster, keep it and put it in force; True where it is newer than the one before.

        Raises roster.RosterRefused, and then the present one stays.
        """
        with self._lock:
            roster = rosters.believe(signed, root_fingerprint=self._root, present=self._present)
            if roster.federation != self._federation:
                raise rosters.RosterRefused(
                    f"The roster is of {roster.federation}, not of {self._federation}.", code="roster.other_federation"
                )
            if self._present is not None and roster.serial == self._present.serial:
                return False
            self._keep(roster.serial, signed)
            self._signed, self._present = signed, roster
            for listener in self._listeners:
                listener(roster)
        return True

    def _keep(self, serial: int, signed: roster_pb2.SignedRoster) -> None:
        row = {"serial": serial, "signed_roster": signed.SerializeToString(), "received_at_ms": now_ms()}
        # Another command of this node may have kept the same serial meanwhile, which is the same roster.
        with contextlib.suppress(IntegrityError), self._database.writing() as connection:
            connection.execute(insert(_ROSTERS).values(row))

    def _newest(self) -> roster_pb2.SignedRoster | None:
        newest = select(_ROSTERS.c.signed_roster).order_by(_ROSTERS.c.serial.desc()).limit(1)
        with self._database.reading() as connection:
            kept = connection.execute(newest).scalar_one_or_none()
        return None if kept is None else roster_pb2.SignedRoster.FromString(bytes(kept))


def open_keeper(settings: NodeSettings, database: Database) -> RosterKeeper:
    """The roster keeper that these settings pin."""
    return RosterKeeper(
        database,
        root_fingerprint=bytes.fromhex(settings.hub.root_fingerprint),
        federation=settings.hub.federation,
    )
