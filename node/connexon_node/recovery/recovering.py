"""The steward's recovery of a node that is older than what left it, in two steps that may be repeated.

First what can be known again is brought back: answers and charges from the hub, withdrawals from the journal. Then,
with the steward's statement, what cannot be known is charged at its worst, grants of exact numbers end, and the node
answers again. The audit log goes on from what the database has, and says so in a record; the hub keeps the heads that
it no longer continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select, update

from connexon.clock import now_ms
from connexon.errors import Misconfigured
from connexon.identity import keys as identity_keys
from connexon.query.signed import parcel_sha256
from connexon.service.database import Database
from connexon.transparency import receipt
from connexon.transparency.receipt import TreeHead
from connexon.v1 import log_pb2
from connexon_node.audit import AuditLog, AuditRecord, witness
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.tables import DonorNumber
from connexon_node.editions import Editions
from connexon_node.folder import NodeFolder
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.roster import open_keeper
from connexon_node.privacy import Account, Share
from connexon_node.recovery import StateGone, marker, standing
from connexon_node.recovery.bringing_back import Own, bring_back, prove, write_charge
from connexon_node.recovery.hub_calls import HubCalls, fetch_roster
from connexon_node.recovery.journal import AMENDED, Entry, Journal
from connexon_node.recovery.standing import Trouble
from connexon_node.release.grants import GrantRow
from connexon_node.settings import NodeSettings
from connexon_node.state import MIGRATIONS, open_state

SOURCE = "recovery"
STATUS = "recovered"
_GRANTS = GrantRow.metadata.tables[str(GrantRow.__tablename__)]
_NUMBERS = DonorNumber.metadata.tables["donor_numbers"]


@dataclass(frozen=True)
class Report:
    """What was brought back, and what cannot be. Amounts are rho.

    `records` the database has, of which the hub witnessed the first `kept`; the hub was told of `told` and the marker
    has seen `marked`. `missing` records of those that the hub was told of are lost. `to_charge` is what is still to be
    charged when the node answers again, by share. `withdrawn` were entered again from the journal, which names
    `unknown` more donors that this database does not know; `amended` are to be amended again by hand. `journal_whole`:
    marker and journal are not older than what the hub was told.
    """

    records: int
    kept: int
    told: int
    marked: int
    answers: int
    draws: int
    charged: float
    refused: int
    missing: int
    to_charge: Mapping[str, float]
    delta_to_charge: float
    withdrawn: tuple[str, ...]
    unknown: int
    amended: tuple[str, ...]
    grants: tuple[str, ...]
    journal_whole: bool


class Recovery:
    """The recovery of one node. Opening it raises Misconfigured where there is nothing to recover."""

    def __init__(self, folder: NodeFolder, settings: NodeSettings, *, by: str, new_database: bool = False) -> None:
        with closing(Database(settings.state_url)) as database:
            if database.version() is not None:
                database.require_newest(MIGRATIONS, upgrade="connexon-node upgrade")
        trouble = standing.assess(folder, settings)
        if trouble is None:
            raise Misconfigured(
                "Nothing is known to be lost here. A node that serves finds out by itself, from its marker, its "
                "journal and the hub.",
                code="recovery.nothing",
            )
        self.trouble: Trouble = trouble
        self._folder, self._settings, self._by = folder, settings, by
        self._center = identity_keys.center_id(settings.hub.center)
        self._key = NodeKeys.load(folder).answering
        self._journal = Journal(folder, self._key)
        self._database = self._opened(new_database)
        self._log = AuditLog(self._database)

    def _opened(self, new_database: bool) -> Database:
        database = Database(self._settings.state_url)
        if database.version() is None and not new_database:
            raise StateGone(
                "There is no database where the settings say. Put back the newest copy there is, and run this again. "
                "Only where there is none at all, begin a new one with --new-database; then all consents and data have "
                "to be imported again, and the journal's withdrawals are entered with them."
            )
        database = open_state(self._settings.state_url)
        keeper = open_keeper(self._settings, database)
        if not keeper.serial:
            keeper.receive(fetch_roster(self._folder, self._settings.hub.public_address))
        self._roster = keeper.present
        return database

    def bring_back(self) -> Report:
        """Bring back what can be known again, and say what cannot. Raises as the link where the hub is away."""
        with HubCalls.opened(self._folder, self._settings.hub.link_address) as hub:
            told, kept = hub.told(), self._kept()
            size = 0 if told is None else self._head(told).size
            own, refused = self._own(hub, after=kept)
        edition = Editions(self._database).latest()
        charged, drawn, new = 0.0, 0, 0
        for one in own:
            with self._database.writing() as connection:
                brought = bring_back(connection, one, edition=0 if edition is None else edition.number)
            charged, drawn, new = charged + brought.charged, drawn + brought.drawn, new + brought.new
        ledger = Ledger(self._database, self._journal)
        withdrawn = ledger.withdraw_again(by=self._by, source=SOURCE)
        mark = marker.read(self._folder)
        missing = max(0, size - kept - len({one.sequence for one in own if kept < one.sequence <= size}))
        report = Report(
            records=self._log.size(),
            kept=kept,
            told=size,
            marked=mark.size if mark else 0,
            answers=new,
            draws=drawn,
            charged=charged,
            refused=refused,
            missing=missing,
            to_charge={},
            delta_to_charge=0.0,
            withdrawn=tuple(withdrawn),
            unknown=0,
            amended=(),
            grants=self._grants(),
            journal_whole=mark is not None and mark.size >= size,
        )
        return self._with_donors(self._with_charges(report, mark))

    def resume(self, *, because: str) -> Report:
        """Bring back, charge the rest, end the grants, write it down, and let the node answer again."""
        if not because.strip():
            raise Misconfigured("Say with --because what happened and what you have seen to.", code="recovery.because")
        report = self.bring_back()
        told = self._told()
        with self._database.writing() as connection:
            for share, rho in report.to_charge.items():
                if rho > 0:
                    write_charge(connection, Share(share), rho, report.delta_to_charge, "recovery")
                    report = replace(report, delta_to_charge=0.0)
            self._end_grants(connection)
            self._log.append(connection, self._record(report, because))
            size, root = self._log.head(connection)
        head = receipt.sign_head(TreeHead(self._center, size, root, now_ms()), self._key)
        if told is not None and report.told > report.kept:
            with HubCalls.opened(self._folder, self._settings.hub.link_address) as hub:
                hub.give_up(told, kept=report.kept, head=head)
        self._journal.close(epoch=Ledger(self._database).epoch())
        marker.Marker(self._folder, self._database).reset()
        standing.clear(self._folder)
        return report

    def _told(self) -> log_pb2.SignedTreeHead | None:
        with HubCalls.opened(self._folder, self._settings.hub.link_address) as hub:
            return hub.told()

    def _head(self, told: log_pb2.SignedTreeHead) -> TreeHead:
        return receipt.read_head(told, center=self._center, keys=[self._key.public])

    def _kept(self) -> int:
        """The longest log that the hub witnessed and that this one begins with."""
        size = self._log.size()
        heads = witness.own(witness.fetch(self._folder, self._settings.hub.link_address), self._center, self._key)
        return max((one for one, root in heads.items() if one <= size and self._log.root_at(one) == root), default=0)

    def _own(self, hub: HubCalls, *, after: int) -> tuple[list[Own], int]:
        """The answers that are proved to be this node's, by their records' numbers; and how many were not."""
        found, refused = [], 0
        for kept in hub.answers(after=after):
            own = prove(kept, self._center, self._key.public, self._roster)
            if own is None:
                refused += 1
            else:
                found.append(own)
        return sorted(found, key=lambda one: one.sequence), refused

    def _with_charges(self, report: Report, mark: marker.Mark | None) -> Report:
        """What is still to be charged: to the last bit where the marker knows it, else at its worst."""
        now = marker.present(self._database)
        if mark is not None and report.journal_whole:
            lacking = {share: rho - now.spent.get(share, 0.0) for share, rho in mark.spent.items()}
            rest = {share: rho for share, rho in lacking.items() if rho > 1e-9}
            return replace(report, to_charge=rest, delta_to_charge=max(0.0, mark.delta - now.delta) if rest else 0.0)
        if not report.missing:
            return report
        privacy = self._settings.privacy
        shares = Account(self._database, privacy).state().shares
        # Nobody can have spent more with one answer than a researcher has for a year.
        worst = {share.value: min(shares[share].left, report.missing * privacy.researcher) for share in Share}
        return replace(report, to_charge={share: rho for share, rho in worst.items() if rho > 0})

    def _with_donors(self, report: Report) -> Report:
        withdrawn = self._journal.withdrawals()
        amended = {one.donor for one in self._lost_amendments()}
        named: dict[str, str] = {}
        if withdrawn or amended:
            with self._database.reading() as connection:
                for donor in connection.execute(select(_NUMBERS.c.donor_id)).scalars():
                    named[self._journal.name(donor)] = donor
        again = tuple(sorted(named[one] for one in amended if one in named))
        return replace(report, unknown=sum(1 for one in withdrawn if one not in named), amended=again)

    def _lost_amendments(self) -> list[Entry]:
        """Those that were noted after the newest event that the database has."""
        newest = Ledger(self._database).newest_event_ms(apart_from=SOURCE)
        return [one for one in self._journal.entries() if one.kind == AMENDED and one.at_ms > newest]

    def _grants(self) -> tuple[str, ...]:
        with self._database.reading() as connection:
            ids = select(_GRANTS.c.id).where(_GRANTS.c.withdrawn_at_ms.is_(None), _GRANTS.c.ends_at_ms > now_ms())
            return tuple(connection.execute(ids.order_by(_GRANTS.c.id)).scalars())

    def _end_grants(self, connection: Connection) -> None:
        """What was released exactly since the copy was made is not known any more: no exact number beside it."""
        open_still = _GRANTS.c.withdrawn_at_ms.is_(None)
        why = "the node was restored from an older copy"
        connection.execute(update(_GRANTS).where(open_still).values(withdrawn_at_ms=now_ms(), withdrawn_because=why))

    def _record(self, report: Report, because: str) -> AuditRecord:
        said = f"{report.told} records were known outside, {report.missing} of them are lost: {because.strip()}"
        return AuditRecord(
            at_ms=now_ms(),
            query_id="",
            query_sha256=parcel_sha256(b""),
            researcher="",
            purpose=said[:1000],
            dataset="",
            analysis=SOURCE,
            status=STATUS,
            code=self.trouble.code,
            rule=self._by[:200],
            policy_version="",
            duration_ms=0,
            result_sha256=parcel_sha256(b""),
        )
