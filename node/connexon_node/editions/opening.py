"""Opening an edition: measure its first-ask tables, and keep them with the charge that pays for them, or neither.

INVARIANT: what was drawn leaves this module only through the transaction that charges it. A crash before that loses
draws that nobody has seen; after it, edition, charge and tables are all there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import Connection

from connexon.clock import MINUTE, now_ms, to_text
from connexon.errors import Conflict, ConnexonError, InvalidQuery, Refused
from connexon.identity.roster import OrganisationKind, Roster
from connexon.service.database import Database
from connexon_node.analyses.spec import DONOR
from connexon_node.consent.cohort import CedarConsent
from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import DONORS, Dictionary
from connexon_node.data.generations import Generation, Generations
from connexon_node.editions import first_ask
from connexon_node.editions.lists import standard_frame
from connexon_node.editions.store import Edition, Editions
from connexon_node.editions.told import STANDING
from connexon_node.engine import SqlEngine
from connexon_node.ontology import Ontologies
from connexon_node.pipeline.values import ConsentMoved, StandingCohort, Work
from connexon_node.policy.request import Requester
from connexon_node.privacy import Account, BudgetSpent, Charge, Share
from connexon_node.privacy.first_ask import Plan, measure, plan
from connexon_node.settings import EditionSection, PrivacySection

_ATTEMPTS = 5
_MEASURING_MS = 30 * MINUTE


class InForce(Protocol):
    """The rules of the center, and whether they are in force."""

    def require_in_force(self) -> None:
        """Raise Refused where they are not."""
        ...


@dataclass(frozen=True)
class Quote:
    """What opening an edition now would mean. `rho` is the price of its tables, 0 where it would have none: `why_not`.

    `too_early`: the last one was opened less than a year ago, so that the steward has to say why.
    """

    number: int
    rho: float
    left: float
    why_not: str
    too_early: bool


@dataclass(frozen=True)
class _Measured:
    cohort: StandingCohort
    rho: float
    row: Mapping[str, object]


class EditionOpener:
    """Opens editions of one center, for its steward alone. Nothing that serves holds one."""

    def __init__(
        self,
        *,
        database: Database,
        editions: Editions,
        generations: Generations,
        ledger: Ledger,
        consent: CedarConsent,
        engine: SqlEngine,
        ontologies: Ontologies,
        dictionary: Dictionary,
        rules: InForce,
        roster: Callable[[], Roster],
        privacy: PrivacySection,
        section: EditionSection,
        mark: Callable[[], None] = lambda: None,
    ) -> None:
        """`privacy` is the account in force, held to the federation's floors; `roster` gives the one believed.

        `mark` has the charge for the tables known outside the database.
        """
        self._mark = mark
        self._database = database
        self._editions = editions
        self._generations = generations
        self._ledger = ledger
        self._consent = consent
        self._engine = engine
        self._ontologies = ontologies
        self._dictionary = dictionary
        self._rules = rules
        self._roster = roster
        self._account = Account(database, privacy)
        self._frame = standard_frame(section)

    def quote(self) -> Quote:
        """What opening an edition now would cost."""
        last = self._editions.latest()
        number = 1 if last is None else last.number + 1
        too_early = last is not None and now_ms() < last.next_is_usual_from_ms
        state = self._account.state()
        share = state.shares[Share.TABLES]
        left = min(share.left, state.total.left)
        if share.limit <= 0:
            return Quote(number, 0.0, left, "The settings give first-ask tables nothing to spend.", too_early)
        priced = self._plan(share.limit).rho
        try:
            with self._database.reading() as connection:
                self._account.require(connection, Charge(Share.TABLES, priced))
        except BudgetSpent:
            why_not = f"They would cost {priced:.4f}, and {left:.4f} is left for them until {to_text(state.ends_ms)}."
            return Quote(number, 0.0, left, why_not, too_early)
        return Quote(number, priced, left, "", too_early)

    def open(self, *, by: str, because: str = "") -> Edition:
        """Open the next edition, of what is in force now.

        Its tables are measured where the account can pay for them; else it has none, and says why. Raises Conflict
        where nothing is imported or an import is under way, InvalidQuery within a year of the last one unless
        `because` says why, Refused where the rules are not in force.
        """
        self._rules.require_in_force()
        quote = self.quote()
        if quote.too_early and not because.strip():
            raise InvalidQuery(_too_early(quote), code="edition.because")
        with self._generations.undisturbed(), self._generations.held() as current:
            if not current:
                raise Conflict(
                    "Nothing is imported, so there is nothing to make an edition of: connexon-node import first.",
                    code="edition.no_data",
                )
            for _ in range(_ATTEMPTS):
                measured, why_not = self._measured_or_why(current, quote)
                edition = Edition(
                    number=quote.number,
                    opened_at_ms=now_ms(),
                    opened_by=by,
                    because=because.strip(),
                    generations={name: one.number for name, one in current.items()},
                    without_tables=why_not,
                )
                try:
                    return self._write(edition, measured)
                except ConsentMoved:
                    # What was drawn has not left, and nothing was charged for it.
                    continue
        raise Conflict("Donors' consent kept changing while tables were measured; try again.", code="consent.moved")

    def _measured_or_why(self, current: Mapping[str, Generation], quote: Quote) -> tuple[_Measured | None, str]:
        if quote.why_not:
            return None, quote.why_not
        if DONORS not in current:
            return None, f"The dataset {DONORS} is not imported, and tables count donors."
        try:
            cohort = self._consent.standing(STANDING, requesters(self._roster()))
        except Refused as refused:
            return None, refused.public
        return self._measured(current, cohort, quote), ""

    def _measured(self, current: Mapping[str, Generation], cohort: StandingCohort, quote: Quote) -> _Measured:
        frame = self._frame
        work = Work(deadline_ms=now_ms() + _MEASURING_MS)
        rows = self._engine.donor_values(cohort, current, first_ask.fields_of(frame), work)
        try:
            codes = first_ask.coded(frame, rows, DONOR, self._resolved)
        except ValueError as error:
            raise Conflict(
                f"The data does not fit the dictionary any more ({error}); import it again.", code="edition.misfit"
            ) from error
        planned = self._plan(quote.rho)
        drawn, spent = measure(frame, planned, codes)
        document, arrays = first_ask.kept(planned, frame, drawn)
        row = {
            "rho": spent,
            "consent_epoch": cohort.epoch,
            "policy_version": cohort.policy_version,
            "dictionary_version": self._dictionary.version,
            "frame": document,
            "arrays": arrays,
        }
        return _Measured(cohort, spent, row)

    def _write(self, edition: Edition, measured: _Measured | None) -> Edition:
        """All of it or nothing. Raises ConsentMoved where consents changed since the tables were measured."""
        with self._database.writing() as connection:
            self._editions.write(connection, edition)
            if measured is None:
                return edition
            self._require_unmoved(connection, measured.cohort)
            charge = Charge(Share.TABLES, measured.rho)
            self._account.charge(connection, charge, query_id=f"edition {edition.number}", at_ms=edition.opened_at_ms)
            self._editions.write_tables(connection, edition, measured.row)
        self._mark()
        return replace(edition, rho=measured.rho)

    def _require_unmoved(self, connection: Connection, cohort: StandingCohort) -> None:
        if self._ledger.epoch(connection) != cohort.epoch:
            raise ConsentMoved("Donors' consent changed while tables were measured.")

    def _plan(self, rho: float) -> Plan:
        return plan(self._frame, rho=rho)

    def _resolved(self, term: str) -> str:
        try:
            return self._ontologies.resolve(term)
        except ConnexonError:
            return term  # not in the center's ontologies: counted as other, unless a list has it


def requesters(roster: Roster) -> Iterable[Requester]:
    """Everybody who might ask, as far as rules can tell them apart: strangers of each kind, and every member's own.

    A stranger has no country and no statuses, grants or terms, so that conditions on these hold a consent back.
    """
    strangers = [Requester(id="", center="", country="", organisation=kind) for kind in OrganisationKind]
    members = [
        Requester(id="", center=str(one.center), country=one.country, organisation=one.organisation_kind)
        for one in roster.members
    ]
    return (*strangers, *members)


def _too_early(quote: Quote) -> str:
    tables = (
        f"Its first-ask tables would cost {quote.rho:.4f} of the account of persons, of which {quote.left:.4f} is left "
        "for them this year; what donors have paid before adds up, since they stay."
        if quote.rho
        else f"It would have no first-ask tables. {quote.why_not}"
    )
    return (
        f"The last edition was opened less than a year ago. {tables} Say why edition {quote.number} cannot wait, with "
        f"--because."
    )
