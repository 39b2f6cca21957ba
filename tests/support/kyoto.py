"""Kyoto's node in this process: its real link, inbox and audit log over small rooms that do what a test wants."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from connexon.identity.keys import SpiffeId
from connexon_node.approvals import ApprovalStore
from connexon_node.audit import AuditLog, verify
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.audit.witness import Witness
from connexon_node.delivery.inbox import Inbox
from connexon_node.delivery.outbox import Outlet
from connexon_node.delivery.question_worker import Workshop
from connexon_node.folder import NodeFolder
from connexon_node.link.client import Link, LinkState
from connexon_node.link.session import Times
from connexon_node.membership import keys
from connexon_node.membership.keys import LinkCertificate, NodeKeys
from connexon_node.membership.revocations import RevocationStore
from connexon_node.membership.roster import RosterKeeper
from connexon_node.pipeline.question_pipeline import Steps, Story
from connexon_node.pipeline.verification import QueryVerifier
from connexon_node.state import open_state
from tests.support.federation import Federation
from tests.support.small_rooms import SmallAccess, SmallConsent, SmallEngine, SmallRelease, SmallSteward

QUICK = Times(heartbeat=0.1, silence=0.6, first_wait=0.02, longest_wait=0.1, refused_wait=0.3, settled=30.0)
PATIENT = Times(first_wait=0.02, longest_wait=0.1, refused_wait=0.3)


class Reached(Protocol):
    """Where the hub is for the node: a SmallHub itself, or the near end of a line to it."""

    @property
    def address(self) -> str:
        """host:port."""
        ...


@dataclass
class Kyoto:
    """A center: federation, folder and rooms. Its process is `running`."""

    federation: Federation
    folder: NodeFolder

    def __post_init__(self) -> None:
        self.folder.make()
        node_keys = NodeKeys.load_or_make(self.folder)
        center = self.federation.centers["kyoto"]
        self.answering = center.answering
        self.node_keys = node_keys
        self.identity = SpiffeId("alliance", center.id)
        self.consent = SmallConsent()
        self.engine = SmallEngine(self.consent)
        self.states: list[LinkState] = []
        keys.save_authority(self.folder, self.federation.authority.der)
        self.certify(datetime.timedelta(days=1))

    def certify(self, life: datetime.timedelta) -> None:
        request = self.node_keys.link.request()
        issued = self.federation.authority.issue_link(request, self.identity, life=life)
        LinkCertificate(issued).save(self.folder)

    @property
    def log_problem(self) -> str:
        """What the node has last noticed of its log at the hub; nothing before it first said how it is."""
        return self.states[-1].log_problem if self.states else ""

    @asynccontextmanager
    async def running(self, hub: Reached, times: Times = PATIENT) -> AsyncIterator[RosterKeeper]:
        database = open_state(self.folder.default_state_url)
        keeper = RosterKeeper(database, root_fingerprint=self.federation.root_fingerprint, federation="alliance")
        keeper.receive(
            self.federation.signed_roster(self.federation.roster(issued_at_ms=1_700_000_000_000, life_ms=10**12))
        )
        revocations = RevocationStore(database)
        steps = Steps(
            QueryVerifier(self.identity.center, lambda: keeper.present, revocations),
            SmallAccess(),
            self.consent,
            SmallSteward(),
            self.engine,
            SmallRelease(),
            SigningRecorder(database, AuditLog(database), self.answering, epoch=lambda _: self.consent.now),
        )
        outlet = Outlet()
        story = Story(self.identity.center, steps, roster_serial=lambda: keeper.serial)
        workshop = Workshop(Inbox(database), story, outlet, requests=ApprovalStore(database), workers=2)
        link = Link(
            self.folder,
            address=hub.address,
            public_address=hub.address,
            identity=self.identity,
            node_keys=self.node_keys,
            keeper=keeper,
            workshop=workshop,
            outlet=outlet,
            witness=Witness(database, AuditLog(database), center=self.identity.center, key=self.answering),
            revocations=revocations,
            dictionary_version="1.0",
            on_state=self.states.append,
            times=times,
        )
        await workshop.resume()
        task = asyncio.create_task(link.run())
        try:
            yield keeper
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await workshop.close(grace_seconds=5)
            database.close()

    def records(self) -> int:
        database = open_state(self.folder.default_state_url)
        try:
            report = verify(database)
            assert report.faults == ()
            return report.records
        finally:
            database.close()
