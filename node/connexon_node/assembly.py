"""The rooms of a node, put together: for the process that serves, and for commands that look at what it would do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from connexon.clock_check import ClockCheck
from connexon.errors import ConnexonError, Refused
from connexon.identity import keys as identity_keys
from connexon.identity.roster import Roster
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon_node import settings as node_settings
from connexon_node.approvals import Desk
from connexon_node.audit import AuditLog
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.consent.cohort import CedarConsent
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.stated import StatedDuties
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.data.generations import Generations
from connexon_node.editions import Editions
from connexon_node.editions.lists import listed_terms
from connexon_node.editions.opening import EditionOpener
from connexon_node.engine import SqlEngine, open_engine
from connexon_node.folder import NodeFolder
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.revocations import RevocationStore
from connexon_node.membership.roster import RosterKeeper, open_keeper
from connexon_node.ontology import Ontologies
from connexon_node.ontology.vocabulary import Vocabulary
from connexon_node.pipeline.question_pipeline import Steps
from connexon_node.pipeline.values import AccessPolicy, Permit
from connexon_node.pipeline.verification import QueryVerifier
from connexon_node.policy.access import CedarAccess
from connexon_node.policy.store import PolicyStore
from connexon_node.recovery.marker import Marker
from connexon_node.release import ReleaseControl
from connexon_node.release.floors import Floors, floors
from connexon_node.settings import NodeSettings
from connexon_node.state import open_present
from connexon_node.training.capabilities import Able

LOG = logging.getLogger("connexon.node")


class PoliciesInForce:
    """The access policy while the federation's newest policies could be put in force; refuses everything otherwise."""

    def __init__(
        self, policies: PolicyStore, access: AccessPolicy, *, raise_to: Callable[[Floors], None] = lambda _: None
    ) -> None:
        """`raise_to` makes release keep to a roster's floors."""
        self._raise_to = raise_to
        self._policies = policies
        self._access = access
        self._problem: ConnexonError | None = None
        self._roster: Roster | None = None
        self._lock = threading.Lock()

    def apply(self, roster: Roster) -> None:
        """Put a roster's policies in force, or remember that they could not be; not after those of a newer one.

        Thread-safe: a roster may come while a question tries the last one again.
        """
        with self._lock:
            if self._roster is None or roster.serial >= self._roster.serial:
                self._apply(roster)

    def _apply(self, roster: Roster) -> None:
        former, self._roster = self._problem, roster
        try:
            least = floors(roster.policy_files)
            self._policies.load(roster.policy_files)
            self._raise_to(least)
            self._problem = None
        except ConnexonError as error:
            # Going on with older rules could answer what the newer ones forbid.
            if former is None or former.public != error.public:
                LOG.error("no question is answered until this is fixed: %s (%s)", error.public, error.code)
            self._problem = error

    def require_in_force(self) -> None:
        """Raise Refused where the policies cannot be applied."""
        if self._problem is not None and self._roster is not None:
            # The steward may have mended it since.
            self.apply(self._roster)
        if self._problem is not None:
            raise Refused(
                "The center cannot apply its policies at the moment and answers nothing; its steward must fix them.",
                code="policy.not_in_force",
            )

    def authorise(self, asked: Asked) -> Permit:
        """Return the permit or raise Refused."""
        self.require_in_force()
        return self._access.authorise(asked)


def open_rooms(
    folder: NodeFolder,
    settings: NodeSettings,
    database: Database,
    keeper: RosterKeeper,
    *,
    warm: Callable[[], None] = lambda: None,
    clock: ClockCheck | None = None,
) -> Steps:
    """Every room a question passes through, with the roster's policies in force. `warm` as for Able."""
    ledger = Ledger(database, clock=clock)
    ontologies = Ontologies.open(folder.ontologies)
    policies = PolicyStore(folder.policies)
    editions = Editions(database)
    release = ReleaseControl(
        settings.release,
        DICTIONARY,
        database,
        training=settings.training,
        privacy=settings.privacy,
        editions=editions,
        vocabulary=Vocabulary(ontologies, lambda: listed_terms(settings.edition)),
    )
    access = PoliciesInForce(policies, CedarAccess(policies, DICTIONARY), raise_to=release.raise_to)
    keeper.on_change(access.apply)
    generations = Generations(database, folder.data)
    steward = Desk(database, DICTIONARY, settings.approvals)
    engine = open_engine(generations, ledger, ontologies, DICTIONARY, settings.engine, editions)
    engine.minimum = lambda: release.in_force.minimum_donors
    return Steps(
        verifier=QueryVerifier(
            identity_keys.center_id(settings.hub.center), lambda: keeper.present, RevocationStore(database)
        ),
        access=access,
        consent=CedarConsent(ledger, policies, ontologies, steward, StatedDuties(database)),
        steward=steward,
        engine=engine,
        release=release,
        recorder=SigningRecorder(
            database,
            AuditLog(database),
            NodeKeys.load(folder).answering,
            epoch=ledger.epoch,
            mark=Marker(folder, database).reach,
        ),
        able=Able(lambda: release.training_in_force, warm).require,
    )


@dataclass(frozen=True)
class Opened:
    """A node's rooms for a command that looks at what they would do; nothing is served."""

    settings: NodeSettings
    database: Database
    keeper: RosterKeeper
    keys: NodeKeys
    steps: Steps
    release: ReleaseControl


def opened(folder: NodeFolder) -> Opened:
    """Open the rooms of a node beside the process that may serve it. Raises Misconfigured."""
    settings = node_settings.load(folder)
    database = open_present(settings.state_url)
    keeper = open_keeper(settings, database)
    steps = open_rooms(folder, settings, database, keeper)
    assert isinstance(steps.release, ReleaseControl)
    return Opened(settings, database, keeper, NodeKeys.load(folder), steps, steps.release)


def edition_opener(folder: NodeFolder) -> EditionOpener:
    """What opens editions of the node in a folder, for its steward. Raises Misconfigured."""
    node = opened(folder)
    access, consent, engine = node.steps.access, node.steps.consent, node.steps.engine
    assert isinstance(access, PoliciesInForce)
    assert isinstance(consent, CedarConsent)
    assert isinstance(engine, SqlEngine)
    return EditionOpener(
        database=node.database,
        editions=Editions(node.database),
        generations=Generations(node.database, folder.data),
        ledger=Ledger(node.database),
        consent=consent,
        engine=engine,
        ontologies=Ontologies.open(folder.ontologies),
        dictionary=DICTIONARY,
        rules=access,
        roster=lambda: node.keeper.present,
        privacy=node.release.privacy_in_force,
        section=node.settings.edition,
        mark=Marker(folder, node.database).touch,
    )
