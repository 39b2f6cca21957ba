"""What is revoked, in the node's and in the hub's database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

import connexon_hub.state
from connexon.clock import DAY, MINUTE, SECOND, now_ms
from connexon.errors import Conflict, InvalidQuery, NotFound, Refused
from connexon.identity import credential, revocation
from connexon.identity.credential import CredentialRefused
from connexon.identity.keys import center_id
from connexon.identity.revocation import Revocation
from connexon.service.database import Database
from connexon.v1 import revocation_pb2
from connexon_hub.routing import revocations as at_hub
from connexon_node.approvals import ApprovalStore
from connexon_node.approvals.store import put_before
from connexon_node.membership import accreditation as membership_accreditation
from connexon_node.membership import revocations
from connexon_node.membership.accreditation import Accreditation, Accreditations
from connexon_node.membership.revocations import RevocationStore, Revoked
from connexon_node.settings import HubSection
from connexon_node.state import open_state
from tests.support.federation import Federation, new_federation

LYON, KYOTO = center_id("lyon"), center_id("kyoto")


@pytest.fixture(scope="module")
def federation() -> Federation:
    return new_federation()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_state(database_url)
    yield database
    database.close()


@dataclass
class Desk:
    """Lyon's steward, at a clock that a test sets."""

    federation: Federation
    database: Database
    monkeypatch: pytest.MonkeyPatch
    now: int = now_ms() // SECOND * SECOND

    def __post_init__(self) -> None:
        for module in (membership_accreditation, revocations):
            self.monkeypatch.setattr(module, "now_ms", lambda: self.now)
        self.store = RevocationStore(self.database)
        self.accreditations = Accreditations(self.database)

    def accredit(self, subject: str = "ada") -> str:
        """A credential, as `connexon-node accredit` issues it."""
        hub = HubSection(
            federation="alliance", center="lyon", link_address="h:1", public_address="h:2", root_fingerprint="0" * 64
        )
        token, accreditation = membership_accreditation.issue(
            membership_accreditation.Request(self.federation.centers["lyon"].answering.public),
            key=self.federation.centers["lyon"].accrediting,
            hub=hub,
            subject=subject,
            name="",
            role="researcher",
            days=90,
            grants=(),
            revoked_before_ms=self.store.issued_before(LYON, subject),
        )
        self.accreditations.record(accreditation, home=LYON)
        return token

    def revoke(self, subject: str = "ada", *, unlisted: bool = False) -> tuple[Revoked, bool]:
        said = Revocation("alliance", LYON, subject, self.now)
        key = self.federation.centers["lyon"].accrediting
        return self.store.revoke(said, key, by="steward", because="a stolen laptop", unlisted=unlisted)

    def counts(self, token: str) -> bool:
        try:
            credential.verify(token, self.federation.roster(), self.store, at_ms=self.now)
        except CredentialRefused as refusal:
            return {"credential.revoked": False}[refusal.code]
        return True


@pytest.fixture
def desk(federation: Federation, database: Database, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(federation, database, monkeypatch)


class TestTheHomeCenter:
    @pytest.mark.parametrize("fraction", [0, 1, 500, 999])
    def test_within_one_second_the_old_credential_ends_and_the_new_one_counts(self, desk: Desk, fraction: int) -> None:
        desk.now += fraction
        old = desk.accredit()
        assert desk.counts(old)
        desk.revoke()
        assert not desk.counts(old)
        new = desk.accredit()
        assert (desk.counts(old), desk.counts(new)) == (False, True)
        desk.revoke()
        third = desk.accredit()
        assert [desk.counts(one) for one in (old, new, third)] == [False, False, True]

    def test_a_clock_that_goes_back_brings_no_credential_back(self, desk: Desk) -> None:
        old = desk.accredit()
        desk.now -= 30 * SECOND
        desk.revoke()
        assert not desk.counts(old)
        assert desk.counts(desk.accredit())

    def test_who_was_revoked_by_a_clock_far_ahead_cannot_be_accredited_for_nothing(self, desk: Desk) -> None:
        desk.accredit()
        desk.now += DAY
        desk.revoke()
        desk.now -= DAY
        with pytest.raises(InvalidQuery) as refusal:
            desk.accredit()
        assert refusal.value.code == "accreditation.revoked_ahead"
        assert desk.counts(desk.accredit("ada.2"))

    def test_a_credential_that_was_made_before_the_revocation_is_not_handed_out_after_it(self, desk: Desk) -> None:
        desk.accredit()
        made = Accreditation("late", "ada", "", "researcher", "00", desk.now, desk.now + DAY)
        desk.revoke()
        with pytest.raises(Conflict) as refusal:
            desk.accreditations.record(made, home=LYON)
        assert refusal.value.code == "accreditation.revoked"

    def test_revoking_twice_says_it_once(self, desk: Desk) -> None:
        desk.accredit()
        first, new = desk.revoke()
        assert new
        desk.now += MINUTE
        assert desk.revoke() == (first, False)
        assert len(desk.store.to_say(LYON)) == 1

    def test_who_and_why_is_written_down(self, desk: Desk) -> None:
        desk.accredit()
        desk.revoke()
        own = desk.store.own(LYON)["ada"]
        assert (own.revoked_by, own.because, own.received_at_ms, own.hub_has_at_ms) == (
            *("steward", "a stolen laptop", desk.now),
            None,
        )
        assert own.is_untold(desk.now)

    def test_a_name_that_nobody_has_is_told_with_the_nearest(self, desk: Desk) -> None:
        desk.accredit("ada-l")
        with pytest.raises(NotFound) as refusal:
            desk.revoke("ada-1")
        assert refusal.value.code == "revocation.unknown_subject"
        assert "Did you mean 'ada-l'?" in refusal.value.public

    def test_a_list_that_was_lost_keeps_nobody_from_being_revoked(self, desk: Desk) -> None:
        token = desk.federation.researcher("lyon", "ada", issued_at_ms=desk.now).token
        desk.revoke(unlisted=True)
        assert not desk.counts(token)
        desk.now += MINUTE
        again = desk.federation.researcher("lyon", "ada", issued_at_ms=desk.now).token
        desk.revoke(unlisted=True)
        assert not desk.counts(again)

    def test_more_than_others_would_keep_is_not_said(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revocations, "MOST_PER_CENTER", 2)
        for name in ("ada", "bob", "eve"):
            desk.accredit(name)
        desk.revoke("ada")
        desk.revoke("bob")
        with pytest.raises(Refused) as refusal:
            desk.revoke("eve")
        assert refusal.value.code == "revocation.too_many"
        desk.now += 91 * DAY
        desk.revoke("eve")

    def test_own_acts_stay_in_the_list_and_are_said_no_more(self, desk: Desk) -> None:
        desk.accredit()
        desk.revoke()
        desk.now += 91 * DAY
        assert (desk.store.prune(desk.now), desk.store.to_say(LYON)) == (0, [])
        assert not desk.store.own(LYON)["ada"].is_untold(desk.now)


def _said(*signed: revocation_pb2.SignedRevocation) -> revocation_pb2.Revocations:
    return revocation_pb2.Revocations(revocations=signed)


class TestWhatTheHubBrings:
    def kyotos(self, desk: Desk, **changed: object) -> revocation_pb2.SignedRevocation:
        one = replace(Revocation("alliance", KYOTO, "ren", desk.now), **changed)  # type: ignore[arg-type]
        return revocation.sign(one, desk.federation.centers["kyoto"].accrediting)

    def receive(self, desk: Desk, *signed: revocation_pb2.SignedRevocation) -> list[Revocation]:
        return desk.store.receive(_said(*signed), desk.federation.roster(), home=LYON)

    def test_it_counts_once_written_and_again_changes_nothing(self, desk: Desk) -> None:
        token = desk.federation.researcher("kyoto", "ren", issued_at_ms=desk.now - SECOND).token
        assert desk.counts(token)
        assert [one.subject for one in self.receive(desk, self.kyotos(desk))] == ["ren"]
        assert not desk.counts(token)
        assert self.receive(desk, self.kyotos(desk)) == []
        assert not RevocationStore(desk.database).issued_before(KYOTO, "ren") < desk.now

    def test_the_latest_moment_stands_in_whatever_order_they_come(self, desk: Desk) -> None:
        self.receive(desk, self.kyotos(desk))
        assert self.receive(desk, self.kyotos(desk, issued_before_ms=desk.now - DAY)) == []
        assert desk.store.issued_before(KYOTO, "ren") == desk.now
        self.receive(desk, self.kyotos(desk, issued_before_ms=desk.now + SECOND))
        assert desk.store.issued_before(KYOTO, "ren") == desk.now + SECOND

    def test_what_does_not_hold_is_left_out_and_keeps_nothing_else_out(self, desk: Desk) -> None:
        forged = revocation.sign(
            Revocation("alliance", KYOTO, "mai", desk.now), desk.federation.centers["lyon"].accrediting
        )
        assert [one.subject for one in self.receive(desk, forged, self.kyotos(desk))] == ["ren"]
        assert desk.store.issued_before(KYOTO, "mai") == 0

    def test_ones_own_word_coming_back_tells_that_the_hub_has_it(self, desk: Desk) -> None:
        desk.accredit()
        desk.revoke()
        assert self.receive(desk, *desk.store.to_say(LYON)) == []
        assert not desk.store.own(LYON)["ada"].is_untold(desk.now)

    def test_a_center_whose_database_was_lost_has_its_own_word_again(self, desk: Desk) -> None:
        token = desk.federation.researcher("lyon", "ada", issued_at_ms=desk.now - SECOND).token
        own = Revocation("alliance", LYON, "ada", desk.now)
        self.receive(desk, revocation.sign(own, desk.federation.centers["lyon"].accrediting))
        assert not desk.counts(token)
        assert not desk.store.own(LYON)["ada"].is_untold(desk.now)

    def test_of_one_center_no_more_is_kept_than_its_measure(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revocations, "MOST_PER_CENTER", 3)
        many = [self.kyotos(desk, issued_before_ms=desk.now + number) for number in range(9)]
        assert len(self.receive(desk, *many)) == 3
        boston = Revocation("alliance", center_id("boston"), "kim", desk.now)
        assert self.receive(desk, revocation.sign(boston, desk.federation.centers["boston"].accrediting)) == [boston]

    def test_it_is_forgotten_after_ninety_days(self, desk: Desk) -> None:
        self.receive(desk, self.kyotos(desk))
        desk.now += 90 * DAY - 1
        assert desk.store.prune(desk.now) == 0
        desk.now += 1
        assert desk.store.prune(desk.now) == 1
        # Not by this clock, which may be ahead: what comes once more is kept, and forgotten again.
        assert len(self.receive(desk, self.kyotos(desk, issued_before_ms=desk.now - 90 * DAY))) == 1
        assert desk.store.prune(desk.now) == 1

    def test_what_awaits_the_steward_is_looked_at_again_once(self, desk: Desk) -> None:
        requests = ApprovalStore(desk.database)
        self.put_before(desk, "kyoto/ren", asked_at_ms=desk.now - SECOND)
        assert requests.due() == []
        self.receive(desk, self.kyotos(desk, subject="mai"))
        assert requests.due() == []
        self.receive(desk, self.kyotos(desk))
        assert [query_id for query_id, _, _ in requests.due()] == ["q"]
        # Asked with a newer credential it is referred again, and waits.
        self.put_before(desk, "kyoto/ren", asked_at_ms=desk.now + 1)
        assert requests.due() == []

    def put_before(self, desk: Desk, researcher: str, *, asked_at_ms: int) -> None:
        texts = ("center", "role", "purpose", "purpose_words", "project", "dataset", "question")
        row = {
            **dict.fromkeys(texts, "x"),
            "center": researcher.partition("/")[0],
            "query_id": "q",
            "query_sha256": bytes(32),
            "researcher": researcher,
            "reasons": "[]",
            "asked_at_ms": asked_at_ms,
            "expires_at_ms": now_ms() + DAY,
        }
        with desk.database.writing() as connection:
            put_before(connection, row)


@pytest.fixture
def hub(database_url: str) -> Iterator[Database]:
    database = connexon_hub.state.open_state(database_url)
    yield database
    database.close()


class TestTheHub:
    NOW = now_ms()

    def heard(self, federation: Federation, subject: str = "ada", before: int = 0) -> at_hub.Heard:
        said = Revocation("alliance", LYON, subject, self.NOW + before)
        signed = revocation.sign(said, federation.centers["lyon"].accrediting)
        ((heard,), _) = at_hub.believed(_said(signed), federation.roster(), of=LYON)
        return heard

    def keep(self, hub: Database, *batch: at_hub.Heard) -> list[at_hub.Heard]:
        with hub.writing() as connection:
            return at_hub.RevocationStore(hub).keep(connection, [batch])[0]

    def test_of_every_researcher_the_latest_counts(self, hub: Database, federation: Federation) -> None:
        first, later, bob = (self.heard(federation, *what) for what in (("ada", 0), ("ada", SECOND), ("bob", 0)))
        assert self.keep(hub, first, later, bob) == []
        assert self.keep(hub, first, bob) == []
        store = at_hub.RevocationStore(hub)
        assert store.newest(self.NOW) == {(LYON, "ada"): self.NOW + SECOND, (LYON, "bob"): self.NOW}
        told = {one.payload for one in store.counting(self.NOW)}
        assert told == {later.signed.payload, bob.signed.payload}

    def test_a_center_that_revokes_over_and_over_meets_its_measure(
        self, hub: Database, federation: Federation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(at_hub, "MOST_PER_CENTER", 3)
        many = [self.heard(federation, "ada", number) for number in range(5)]
        assert self.keep(hub, *many) == many[3:]
        # What is known already takes no room.
        assert self.keep(hub, *many[:3]) == []

    def test_it_is_forgotten_after_ninety_days(self, hub: Database, federation: Federation) -> None:
        self.keep(hub, self.heard(federation))
        store = at_hub.RevocationStore(hub)
        end = self.NOW + 90 * DAY
        with hub.writing() as connection:
            assert store.forget(connection, [end - 1, end]) == [0, 1]
        assert (store.newest(self.NOW), store.counting(self.NOW)) == ({}, [])

    def test_a_center_speaks_for_its_own_researchers_only(self, federation: Federation) -> None:
        signed, former = self.heard(federation).signed, revocation_pb2.SignedRevocation()
        heard, refusal = at_hub.believed(_said(signed), federation.roster(), of=KYOTO)
        assert (heard, refusal and refusal.code) == ([], "revocation.other_center")
        # One that does not hold keeps out nothing beside it.
        heard, refusal = at_hub.believed(_said(former, signed, former), federation.roster(), of=LYON)
        assert ([one.signed for one in heard], refusal and refusal.code) == ([signed], "revocation.unreadable")
        many = _said(*[signed] * (revocation.AT_ONCE + 1))
        heard, refusal = at_hub.believed(many, federation.roster(), of=LYON)
        assert (heard, refusal and refusal.code) == ([], "revocation.refused")
