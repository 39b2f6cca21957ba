"""The doctor: every hop between this node and an answer, checked by itself, with what to do where it is broken."""

from __future__ import annotations

import contextlib
import datetime
import shutil
from functools import cached_property

from connexon.clock import DAY, now_ms, to_text
from connexon.console import counted
from connexon.errors import ConnexonError, Misconfigured
from connexon.findings import Broken, Checks, Seen, State
from connexon.identity import keys as identity_keys
from connexon.identity.keys import CenterId, SigningKey, SpiffeId
from connexon.identity.roster import Roster
from connexon.service.database import Database
from connexon_node import sandbox, settings
from connexon_node.folder import NodeFolder
from connexon_node.health import connection_probes, installed
from connexon_node.health.status import served_state
from connexon_node.link.session import CLOCK_TOLERANCE_MS
from connexon_node.membership.keys import LinkCertificate, NodeKeys, is_for
from connexon_node.membership.roster import RosterKeeper, open_keeper
from connexon_node.recovery import marker, standing
from connexon_node.settings import NodeSettings
from connexon_node.state import open_present

LOW_DISK_BYTES = 1024**3
ROSTER_WARNING_MS = 7 * DAY


def checks(folder: NodeFolder) -> Checks:
    """Everything that is looked at, in order; connexon.findings runs and shows it."""
    patient = _Patient(folder)
    return (
        ("packages", patient.packages),
        ("settings", patient.settings_read),
        ("name resolution", patient.name_resolution),
        ("port", patient.port),
        ("TLS", patient.tls),
        ("hub session", patient.hub_session),
        ("clock", patient.clock),
        ("roster", patient.roster),
        ("certificate", patient.certificate),
        ("database", patient.writable),
        ("memory", patient.memory),
        ("audit log", patient.audit_log),
        ("disk", patient.disk),
        ("policy", patient.policy),
        ("ontologies", patient.ontologies),
        ("engine", patient.engine),
        ("data", patient.data),
        ("imports", patient.imports),
        ("edition", patient.edition),
        ("training", patient.training),
    )


def _told(key: SigningKey) -> str:
    return identity_keys.readable(identity_keys.fingerprint(key.public))


class _Patient:
    """The node under examination. What several checks need is looked up once."""

    def __init__(self, folder: NodeFolder) -> None:
        self.folder = folder

    @cached_property
    def _settings(self) -> NodeSettings:
        return settings.load(self.folder)

    @cached_property
    def _database(self) -> Database:
        return open_present(self._settings.state_url)

    @cached_property
    def _keeper(self) -> RosterKeeper:
        return open_keeper(self._settings, self._database)

    @cached_property
    def _served(self) -> dict[str, object] | None:
        return served_state(self.folder)

    @cached_property
    def _center(self) -> CenterId:
        return identity_keys.center_id(self._settings.hub.center)

    @cached_property
    def _attachment(self) -> connection_probes.Attachment | ConnexonError:
        """What a short attachment showed, or why there was none; tried once, since it may take long to fail."""
        try:
            return connection_probes.attach_once(self.folder, self._settings.hub.link_address, self._keeper.serial)
        except ConnexonError as error:
            return error

    def packages(self) -> Seen:
        faults = installed.faults()
        if faults:
            raise Broken(
                f"{' '.join(faults)} The node cannot serve so; in this environment run:  pip install 'connexon[node]'"
            )
        return Seen("All that the node needs is installed and loads.")

    def settings_read(self) -> Seen:
        hub = self._settings.hub
        return Seen(f"{hub.center} in {hub.federation}.")

    def name_resolution(self) -> Seen:
        return Seen(connection_probes.resolve(self._settings.hub.link_address))

    def port(self) -> Seen:
        return Seen(connection_probes.reach(self._settings.hub.link_address))

    def tls(self) -> Seen:
        return Seen(connection_probes.handshake(self.folder, self._settings.hub.link_address))

    def hub_session(self) -> Seen:
        if self._served is not None:
            # Attaching beside the serving process would look like a second node with this identity.
            since, problem = self._served.get("attached_since_ms"), self._served.get("problem")
            if since is None:
                raise Broken(f"The serving node is not attached: {problem or 'it is still trying.'}")
            return Seen("The serving node is attached.")
        if isinstance(self._attachment, ConnexonError):
            raise self._attachment
        return Seen(f"The hub accepts this node (hub version {self._attachment.hub_version}).")

    def _is_attached(self) -> bool:
        """Whether a serving node is attached, and so knows the newest roster."""
        return self._served is not None and self._served.get("attached_since_ms") is not None

    def clock(self) -> Seen:
        offset = self._clock_offset()
        if not isinstance(offset, int):
            return Seen("Unknown until the hub has accepted this node once.", State.NOTE)
        if abs(offset) > CLOCK_TOLERANCE_MS:
            ahead = "ahead of" if offset > 0 else "behind"
            raise Broken(f"This clock is {abs(offset) / 1000:.0f} s {ahead} the hub's; set it, for example by NTP.")
        return Seen(f"Within {max(1, round(abs(offset) / 1000))} s of the hub's.")

    def _clock_offset(self) -> object:
        if self._served is not None:
            return self._served.get("clock_offset_ms")
        # That the hub does not accept this node is the finding of the hop before.
        return self._attachment.clock_offset_ms if isinstance(self._attachment, connection_probes.Attachment) else None

    def roster(self) -> Seen:
        roster = self._keeper.present
        roster.require_fresh(now_ms())
        if roster.member(self._center) is None and not self._is_attached():
            return self._roster_of_joining(roster)
        roster.active(self._center)
        self._require_known_keys()
        until = to_text(roster.expires_at_ms)
        if roster.expires_at_ms - now_ms() < ROSTER_WARNING_MS:
            return Seen(f"Serial {roster.serial}, believed, but it expires on {until}; ask for a new one.", State.NOTE)
        return Seen(f"Serial {roster.serial}, believed, until {until}; this center is active.")

    def _roster_of_joining(self, roster: Roster) -> Seen:
        """What a roster is worth that does not name the center: newer ones come only to a node that is attached."""
        issued = to_text(roster.issued_at_ms)
        known = f"The one known here, serial {roster.serial} of {issued}, does not name this center"
        if self._served is not None:
            raise Broken(f"{known}. Newer ones come once the node is attached.")
        if isinstance(self._attachment, connection_probes.Attachment):
            return Seen(
                f"{known}, but the hub accepts it, so there is a newer one: connexon-node serve fetches it.", State.NOTE
            )
        raise Broken(
            f"{known}. Newer ones come while the node serves: start it with connexon-node serve; it waits there until "
            "the root key has signed one that names this center."
        )

    def _require_known_keys(self) -> None:
        keys = NodeKeys.load(self.folder)
        member = self._keeper.present.active(self._center)
        if keys.answering.public not in member.answering_keys or keys.accrediting.public not in member.accrediting_keys:
            raise Broken(
                "The roster names other keys for this center than the node holds, so nobody believes its answers. Tell "
                f"the holder of the root key this node's fingerprints: answers {_told(keys.answering)}; accredits "
                f"{_told(keys.accrediting)}."
            )

    def certificate(self) -> Seen:
        held = LinkCertificate.load(self.folder)
        if not is_for(held.certificate, NodeKeys.load(self.folder).link):
            raise Broken("The link certificate is for another key; join again with a new invitation.")
        hub = self._settings.hub
        LinkCertificate.checked(
            held.certificate.public_bytes(connection_probes.DER),
            NodeKeys.load(self.folder).link,
            SpiffeId(hub.federation, self._center),
        )
        left = held.expires - datetime.datetime.now(datetime.UTC)
        if left.total_seconds() <= 0:
            raise Broken(
                f"The link certificate expired on {held.expires:%Y-%m-%d}; ask the hub's operator for a new invitation "
                "and join again."
            )
        days = f"{left.total_seconds() / 86_400:.1f} days left"
        if left < (held.expires - held.certificate.not_valid_before_utc) / 4:
            return Seen(f"{days}, and it has not renewed itself: is connexon-node serve running?", State.NOTE)
        return Seen(f"{days}; it renews itself while the node serves.")

    def memory(self) -> Seen:
        """Whether the state is as far as what left the node."""
        trouble = standing.noted(self.folder)
        if trouble is not None:
            raise Broken(f"{trouble.sentence} Nothing is answered; see:  connexon-node recover")
        mark = marker.read(self.folder)
        if mark is None:
            return Seen("There is no marker yet; the node makes one when it serves.", State.NOTE)
        if mark.is_beyond(marker.present(self._database)):
            raise Broken(
                f"The marker beside the keys has seen {mark.size} records, more than the database has: it was put back "
                "to an earlier state. Run connexon-node serve, and then connexon-node recover."
            )
        return Seen(f"The database is as far as the marker beside the keys, {counted(mark.size, 'record')}.")

    def writable(self) -> Seen:
        self._require_room()
        # An empty transaction proves that it may write.
        with self._database.writing():
            pass
        damage = self._database.damage()
        if damage:
            raise Broken(
                f"The database file is damaged ({damage}); restore it from a copy, then connexon-node recover."
            )
        kind = "SQLite" if self._database.is_sqlite else "PostgreSQL"
        return Seen(f"{kind}, writable and up to date.")

    def _require_room(self) -> None:
        """Raise Broken where a file cannot be written into the folders that this node writes to."""
        for folder in (self.folder.root, self.folder.keys, self.folder.data):
            scratch = folder / ".doctor"
            try:
                scratch.write_bytes(bytes(4096))
            except OSError as error:
                raise Broken(
                    f"Nothing can be written into {folder} ({error.strerror}): make room, or give the node's user the "
                    "right to write there."
                ) from error
            finally:
                with contextlib.suppress(OSError):
                    scratch.unlink(missing_ok=True)

    def audit_log(self) -> Seen:
        from connexon_node.audit import AuditLog, witness

        log = AuditLog(self._database)
        try:
            heads = witness.fetch(self.folder, self._settings.hub.link_address, newest=1)
        except ConnexonError as error:
            words = f"{log.size()} records; the hub could not be asked what it witnessed: {error.public}"
            return Seen(words, State.NOTE)
        for size, root in witness.own(heads, self._center, NodeKeys.load(self.folder).answering).items():
            witness.require_same(log, size, root)
            return Seen(f"{log.size()} records, of which the hub witnessed the first {size}.")
        return Seen(f"{log.size()} records; the hub has witnessed nothing yet.")

    def disk(self) -> Seen:
        free = shutil.disk_usage(self.folder.root).free
        if free < LOW_DISK_BYTES:
            raise Broken(f"Only {free / 1024**2:.0f} MiB are free; make room before imports or answers fail.")
        return Seen(f"{free / 1024**3:.0f} GiB free.")

    def policy(self) -> Seen:
        from connexon_node.policy.store import PolicyStore

        policies = PolicyStore(self.folder.policies)
        try:
            policies.load(self._keeper.present.policy_files)
        except Misconfigured as error:
            raise Broken(
                f"{error.public} Until it is fixed, a serving node goes on with the rules it had, and one that starts "
                "answers nothing."
            ) from error
        return Seen(f"Loaded, version {policies.version}; connexon-node policy check runs its cases.")

    def ontologies(self) -> Seen:
        from connexon_node.ontology import Ontologies

        known = Ontologies.open(self.folder.ontologies)
        versions = {prefix: known.version(prefix) for prefix in ("MONDO", "CL", "EFO", "HANCESTRO")}
        words = ", ".join(f"{prefix} {version}" for prefix, version in versions.items() if version)
        if not words:
            return Seen(
                f"None in {self.folder.ontologies}: questions about a term and what is under it are refused.",
                State.NOTE,
            )
        return Seen(f"{words}.")

    def engine(self) -> Seen:
        if self._settings.engine.kind == "duckdb":
            return Seen("DuckDB, on this machine.")
        from connexon_node.engine import spark

        spark.require_installed()
        return Seen(f"Spark, at {self._settings.engine.spark_master}.")

    def data(self) -> Seen:
        from connexon_node.data.generations import Generations

        generations = Generations(self._database, self.folder.data)
        current = generations.all_current()
        for generation in current.values():
            generations.verify(generation)
        if not current:
            return Seen("Nothing is imported yet; connexon-node import loads a file.", State.NOTE)
        rows = counted(sum(generation.rows for generation in current.values()), "row")
        return Seen(f"{counted(len(current), 'dataset')}, {rows}, as imported; connexon-node data lists them.")

    def imports(self) -> Seen:
        found = sandbox.support()
        if found.whole:
            return Seen("Foreign files are read by a process that can reach nothing but the file and a scratch folder.")
        if self._settings.imports.require_sandbox:
            raise Broken(
                f"This kernel has no {found.lacking}, and [imports] require_sandbox is set: nothing can be imported. "
                "Use a kernel that has it, or set require_sandbox = false."
            )
        return Seen(
            f"This kernel has no {found.lacking}: a file that is made to do harm could reach other files of this "
            "machine while it is read. Use a newer kernel, or import only files from people you know.",
            State.NOTE,
        )

    def edition(self) -> Seen:
        from connexon_node.data.dictionary import DICTIONARY
        from connexon_node.data.generations import Generations
        from connexon_node.editions import Editions

        editions, generations = Editions(self._database), Generations(self._database, self.folder.data)
        edition, current = editions.latest(), generations.all_current()
        if edition is None:
            wait = "; import data first" if not current else ": connexon-node edition open"
            return Seen(f"None is open, so questions about persons are refused{wait}.", State.NOTE)
        for generation in generations.numbered(edition.generations).values():
            generations.verify(generation)
        words = f"Edition {edition.number} of {to_text(edition.opened_at_ms)}"
        later = [name for name in sorted(current.keys() - edition.generations) if DICTIONARY.dataset(name).personal]
        if later:
            return Seen(f"{words} is without {', '.join(later)}, imported later: questions are refused.", State.NOTE)
        if editions.tables(edition) is None:
            return Seen(f"{words} has no first-ask tables: every question is charged.", State.NOTE)
        if now_ms() >= edition.next_is_usual_from_ms:
            return Seen(f"{words} is a year old; connexon-node edition open makes the next.", State.NOTE)
        return Seen(f"{words}, with first-ask tables.")

    def training(self) -> Seen:
        from connexon_node.training.capabilities import lacks
        from connexon_node.training.ledger import TrainingLedger

        if not self._settings.training.enabled:
            return Seen("Off by node.toml: this center takes part in no training.")
        if lacks("flwr"):
            return Seen(
                "Flower is not installed, so this center takes part in no training: pip install 'connexon[learn]', or "
                "set enabled = false under [training] in node.toml.",
                State.NOTE,
            )
        trees, layers = not lacks("xgboost"), not lacks("torch")
        kinds = ["linear models", *["boosted trees"] * trees, *["perceptrons"] * layers]
        words = f"Offers {', '.join(kinds)}"
        if not layers:
            words += "; perceptrons need torch"
        running = len(TrainingLedger(self._database).running())
        return Seen(f"{words}. {running} under way.")
