"""The center under attack, and what a researcher can do to it: real rooms, real signatures, real story, one process.

Two hundred donors and a dozen targets. Each target is the only donor of a country, as everybody knows who attacks; what
they want to know is whether the target has Parkinson disease. Half of them do.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy
from sqlalchemy import delete

from connexon.analyses.count import Count
from connexon.analyses.spec import Analysis, Kind, Unit
from connexon.conditions.filters import All as AllOf
from connexon.conditions.filters import Any as AnyOf
from connexon.conditions.filters import Compare, Filter, Operator, Scalar
from connexon.conditions.wire_filter import value_from_wire
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query.question import Purpose
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.approvals import Desk
from connexon_node.audit import AuditLog
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.consent.cohort import CedarConsent
from connexon_node.consent.stated import StatedDuties
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.question_pipeline import Steps, Story, Task
from connexon_node.pipeline.values import Cell, Work
from connexon_node.pipeline.verification import QueryVerifier
from connexon_node.policy.access import CedarAccess
from connexon_node.policy.store import PolicyStore
from connexon_node.privacy.tables import PrivacyChargeRow, PrivacyDrawRow
from connexon_node.release import ReleaseControl
from connexon_node.release.cohorts_used import GrantedCohortsRow
from connexon_node.release.differencing import Settled
from connexon_node.release.donor_multiset import Counted
from connexon_node.release.exact_numbers import ExactNumbers
from connexon_node.release.granted import GrantedRelease
from connexon_node.release.private import PrivateRelease
from connexon_node.release.rules import enough_donors
from connexon_node.release.tables import ReleasedCohort, TrainingCohortRow
from connexon_node.settings import ApprovalsSection, PrivacySection, ReleaseSection
from tests.support.center import SmallCenter, everything_granted
from tests.support.federation import HEALTH, Asker, new_federation
from tests.support.rules import baseline

SECRET = "MONDO:0005180"
OTHER = "MONDO:0005015"
TARGETS = ("IS", "MT", "LU", "CY", "EE", "LV", "LT", "SI", "AD", "MC", "SM", "LI")
"""Countries, each of one donor."""
COMMON = ("FR", "DE", "IT")
AGES = ("30-34", "35-39", "40-44", "60-64")
TRUTH: Mapping[str, bool] = {country: number % 2 == 0 for number, country in enumerate(TARGETS)}
"""Which targets have the secret disease."""
MINIMUM = 5
MUCH = PrivacySection(lifetime=100, year=100, tables=0, questions=100, researcher=100, models=0)
"""An account that no test empties."""
PLENTY = ReleaseSection(minimum_donors=MINIMUM, round_to=1, independent_cohorts=1)
"""No rounding, and as many questions as an attack takes."""
TELLS_NOTHING = ("", "release.too_few_donors", "granted.finer_than_month", "granted.finer_than_bin")
"""Why no number comes: none and a few alike, and what is said by words alone."""
LOT_OF_TARGETS = 100
"""Million cells in a vial of the first target's lot; each further target's has one more."""


def donors(without: Sequence[str] = ()) -> list[dict[str, object]]:
    """The rows of the dataset donors."""
    rows: list[dict[str, object]] = []
    for number in range(200):
        rows.append(
            {
                "id": f"D-{number:04d}",
                "sex": ("female", "male")[number % 2],
                "age_range_y": AGES[number % 4],
                "country_iso2": COMMON[number % 3],
                "primary_disease_term": (SECRET, OTHER, "")[number // 3 % 3],
                "eligibility": ("eligible", "unknown")[number // 7 % 2],
            }
        )
    for number, country in enumerate(TARGETS):
        if country not in without:
            rows.append(
                {
                    "id": f"T-{country}",
                    "sex": ("female", "male")[number % 2],
                    "age_range_y": AGES[number % 4],
                    "country_iso2": country,
                    "primary_disease_term": SECRET if TRUTH[country] else OTHER,
                    "eligibility": "eligible",
                }
            )
    return rows


def _consent(donor: str) -> dict[str, object]:
    return {
        "id": f"C-{donor}",
        "donor_id": donor,
        "form_version": "1",
        "obtained_on": "2026-01-10",
        "status": "active",
        "scope": "research",
        "duo_permission": "DUO:0000042",
    }


def second_line_on(target: int) -> datetime.date:
    """The day on which the target's second line was derived, if there is one."""
    return datetime.date(2020, 1, 1 + target)


def _lines(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """One line for each donor; the targets with the secret have another one beside it."""
    lines: list[dict[str, object]] = []
    for row in rows:
        target = TARGETS.index(str(row["country_iso2"])) if row["country_iso2"] in TARGETS else -1
        days = [datetime.date(2019, 5, 1)]
        if target >= 0 and row["primary_disease_term"] == SECRET:
            days.append(second_line_on(target))
        lines += [
            {
                "id": f"L-{row['id']}-{number}",
                "donor_id": row["id"],
                "type": "iPSC",
                "grade": "research",
                "derived_on": day,
            }
            for number, day in enumerate(days)
        ]
    return lines


def _lots(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """A lot of each donor's first line; those of targets with the secret have a number of cells of their own."""
    lots: list[dict[str, object]] = []
    for number, row in enumerate(rows):
        cells: float = 1 + number % 50
        if row["country_iso2"] in TARGETS:
            secret = row["primary_disease_term"] == SECRET
            cells = LOT_OF_TARGETS + TARGETS.index(str(row["country_iso2"])) if secret else 2 * LOT_OF_TARGETS
        lots.append(
            {
                "id": f"B-{row['id']}",
                "cell_line_id": f"L-{row['id']}-0",
                "lot_no": f"{number}",
                "bank_level": "MCB",
                "cells_per_vial_1e6": float(cells),
                "status": "released",
            }
        )
    return lots


class MinimumAlone(ExactNumbers):
    """Exact numbers that are compared with nothing."""

    def numbers(self, computed, dataset, by, cells, decision, connection, *, donors=False):  # type: ignore[no-untyped-def]
        def nobody(cell: Cell) -> Counted:
            assert cell.behind is not None
            return Counted(cell.behind, cell.donors, cell.behind.astype(numpy.int64))

        kept = enough_donors(cells, self.minimum)
        return {cell.key: Settled(nobody(cell), cell.records, secrets.token_bytes(8)) for cell in kept}


class Trusting(GrantedRelease):
    """Takes conditions whose parts were all counted, and lets everybody have everything."""

    def _require_parts(self, computed):  # type: ignore[no-untyped-def]
        pass

    def _use(self, computed, grant, numbers):  # type: ignore[no-untyped-def]
        return None


class Unprotected(ReleaseControl):
    """Release with the minimum alone, as a node without comparing would do it: attacks must win against it."""

    parts = False
    """Whether small parts of conditions are left out."""

    def _keep_to(self, section, privacy):  # type: ignore[no-untyped-def]
        super()._keep_to(section, privacy)
        self._exact = MinimumAlone(section, self._dictionary, self._database)
        self._granted = Trusting(self._exact, self._dictionary, self._covering, None)  # type: ignore[arg-type]


class DrawnByCohort(PrivateRelease):
    """Noise that is the same for the same donors, whatever was asked: attacks must win against it."""

    def _digest(self, computed):  # type: ignore[no-untyped-def]
        behind = numpy.sort(numpy.concatenate([cell.behind for cell in computed.shape.cells]))
        return hashlib.sha256(behind.tobytes()).digest()


class StickyByCohort(ReleaseControl):
    """Release that draws by cohort."""

    def _keep_to(self, section, privacy):  # type: ignore[no-untyped-def]
        super()._keep_to(section, privacy)
        self._private = DrawnByCohort(privacy, self._dictionary, self._database)


class Target:
    """A center that answers: with the donors, lines and lots of this module, or with other donors alone."""

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, object]] = ()) -> None:
        self.center = SmallCenter(folder)
        self._bank = not rows
        rows = rows or donors()
        self.center.load_rows("consents", [_consent(str(row["id"])) for row in rows])
        self.center.load_rows("donors", rows)
        self.federation = new_federation(centers=("lyon", "kyoto"))
        self.federation.policy_files = baseline()
        self.policies = PolicyStore(folder / "policies")
        self.policies.load(baseline())
        self.section = PLENTY
        self.privacy = PrivacySection()
        self.release: type[ReleaseControl] = ReleaseControl
        self.consent: type[CedarConsent] = CedarConsent
        self._askers: dict[str, Asker] = {}
        self.begin()

    def begin(
        self,
        *,
        release: type[ReleaseControl] = ReleaseControl,
        section: ReleaseSection | None = None,
        privacy: PrivacySection | None = None,
    ) -> Target:
        """As new: nothing is known outside, and no privacy spent. `release` may be one that attacks win against."""
        with self.center.database.writing() as connection:
            for table in (ReleasedCohort, TrainingCohortRow, GrantedCohortsRow, PrivacyDrawRow, PrivacyChargeRow):
                connection.execute(delete(table.__table__))
        if self._bank and self.center.generations.current("lots") is None:
            self.center.load_rows("cell_lines", _lines(donors()))
            self.center.load_rows("lots", _lots(donors()))
        self.section = section or PLENTY
        self.privacy, self.release = privacy or PrivacySection(), release
        return self.restart()

    def restart(self) -> Target:
        """A new process over the same state."""
        database, lyon = self.center.database, self.federation.centers["lyon"]
        roster = self.federation.roster()
        parts = getattr(self.release, "parts", True)
        self.center.engine.minimum = lambda: self.section.minimum_donors if parts else 1
        desk = Desk(database, DICTIONARY, ApprovalsSection())
        steps = Steps(
            verifier=QueryVerifier(lyon.id, lambda: roster, NOTHING_REVOKED),
            access=CedarAccess(self.policies, DICTIONARY),
            consent=self.consent(
                self.center.ledger, self.policies, self.center.ontologies, desk, StatedDuties(database)
            ),
            steward=desk,
            engine=self.center.engine,
            release=self.release(self.section, DICTIONARY, database, privacy=self.privacy, covering=everything_granted),
            recorder=SigningRecorder(database, AuditLog(database), lyon.answering, epoch=self.center.ledger.epoch),
        )
        self._story = Story(lyon.id, steps, roster_serial=lambda: roster.serial)
        return self

    def import_donors(self, *, without: Sequence[str] = ()) -> None:
        """The steward imports the donors again."""
        self.center.load_rows("donors", donors(without), retire=True)

    def answer(
        self,
        dataset: str,
        where: Filter | None,
        by: tuple[str, ...] = (),
        *,
        who: str = "ada",
        within: int | None = None,
        project: str = "",
    ) -> answer_pb2.Answer:
        """What comes back to one researcher, signature checked: exact records, or donors with noise `within`."""
        count = Count(by, Unit.RECORDS, Kind.GRANTED) if within is None else Count(by)
        return self.ask(count, dataset, where, who=who, within=within, purpose=replace(HEALTH, project=project))

    def ask(
        self,
        analysis: Analysis,
        dataset: str,
        where: Filter | None = None,
        *,
        who: str = "ada",
        within: int | None = None,
        purpose: Purpose = HEALTH,
    ) -> answer_pb2.Answer:
        """What comes back of any analysis, for any purpose."""
        if who not in self._askers:
            self._askers[who] = self.federation.researcher("kyoto", who)
        asker = self._askers[who]
        question = asker.question(["lyon"], analysis, dataset=dataset, where=where, purpose=purpose)
        return self._answered(asker.sign(replace(question, within=within)))

    def _answered(self, query: query_pb2.SignedQuery) -> answer_pb2.Answer:
        delivery = Delivery.arrived(query_pb2.Query.FromString(query.payload).query_id, query.SerializeToString())
        sealed = self._story.answer(Task(delivery, Work(deadline_ms=delivery.expires_at_ms)))
        return answer_pb2.Answer.FromString(sealed.payload)

    def count(self, where: Filter | None = None, *, dataset: str = "donors", who: str = "ada") -> int | None:
        """A total, or None where it does not leave."""
        answer = self.answer(dataset, where, who=who)
        assert answer.reason.code in TELLS_NOTHING, answer.reason
        return int(answer.count.cells[0].number) if answer.count.cells else None

    def noisy(self, where: Filter | None, *, who: str = "ada", within: int = 15, project: str = "") -> int | None:
        """A total with noise; None where the account is spent."""
        answer = self.answer("donors", where, who=who, within=within, project=project)
        assert answer.reason.code in ("", "budget.spent"), answer.reason
        return int(answer.count.cells[0].number) if answer.count.cells else None

    def table(
        self, by: tuple[str, ...], where: Filter | None = None, *, dataset: str = "donors", who: str = "ada"
    ) -> dict[tuple[Scalar | None, ...], int]:
        """Counts by group; those that do not leave are missing."""
        answer = self.answer(dataset, where, by, who=who)
        assert answer.reason.code in TELLS_NOTHING, answer.reason
        return {tuple(value_from_wire(value) for value in cell.key): int(cell.number) for cell in answer.count.cells}


def is_(field: str, value: Scalar) -> Compare:
    """The field equals the value."""
    return Compare(field, Operator.EQUAL, value)


def isnt(field: str, value: Scalar) -> Compare:
    """The field has another value."""
    return Compare(field, Operator.NOT_EQUAL, value)


def both(*filters: Filter) -> Filter:
    """All of them hold."""
    return AllOf(filters)


def either(*filters: Filter) -> Filter:
    """One of them holds."""
    return AnyOf(filters)


def certain(claims: Mapping[str, bool | None], truth: Mapping[str, bool] = TRUTH) -> int:
    """How many donors an attack learned something certain about.

    A claim counts if every claim of its kind is right: who says "has it" of all is right of some by chance, but knows
    nothing of any. `truth` has both kinds, so that guessing cannot be right throughout.
    """
    learned = 0
    for kind in (True, False):
        claimed = [target for target, claim in claims.items() if claim is kind]
        if claimed and all(truth[target] is kind for target in claimed):
            learned += len(claimed)
    assert {truth[target] for target in claims} == {True, False}
    return learned


def told(difference: int | None) -> bool | None:
    """What a difference of one donor's records says: one, none, or nothing where it is no such difference."""
    return {0: False, 1: True}.get(difference) if difference is not None else None


def minus(one: int | None, other: int | None) -> int | None:
    """A difference, where both are known."""
    return None if one is None or other is None else one - other
