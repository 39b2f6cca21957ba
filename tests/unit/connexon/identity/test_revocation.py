"""What a revocation is, who can make one, and which credentials it ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from connexon.clock import DAY, END, HOUR, SECOND, now_ms
from connexon.identity import credential, revocation
from connexon.identity.credential import CredentialRefused
from connexon.identity.keys import CenterId, SigningKey, center_id
from connexon.identity.revocation import Revocation, RevocationRefused
from connexon.identity.roster import MemberStatus
from connexon.query import signed
from connexon.v1 import revocation_pb2
from tests.support.federation import Asker, new_federation

FEDERATION = new_federation()
ROSTER = FEDERATION.roster()
LYON, KYOTO = FEDERATION.centers["lyon"], FEDERATION.centers["kyoto"]
NOW = now_ms() // SECOND * SECOND
ADA = Revocation("alliance", LYON.id, "ada", NOW)


@dataclass
class Known:
    """What is revoked, by the researcher's id (credential.Revocations)."""

    before: dict[str, int] = field(default_factory=dict)

    def issued_before(self, center: CenterId, subject: str) -> int:
        return self.before.get(f"{center}/{subject}", 0)


def _code(said: revocation_pb2.SignedRevocation) -> str:
    with pytest.raises(RevocationRefused) as caught:
        revocation.verify(said, ROSTER)
    return caught.value.code


def _by_hand(key: SigningKey = LYON.accrediting, **fields: object) -> revocation_pb2.SignedRevocation:
    said = revocation_pb2.Revocation(federation="alliance", center_id="lyon", subject="ada", issued_before_ms=NOW)
    for name, value in fields.items():
        setattr(said, name, value)
    payload = said.SerializeToString()
    return revocation_pb2.SignedRevocation(payload=payload, signature=key.sign(revocation.USE, payload))


class TestWhoCanRevoke:
    def test_a_center_revokes_its_own_researcher(self) -> None:
        assert revocation.verify(revocation.sign(ADA, LYON.accrediting), ROSTER) == ADA

    def test_it_is_the_same_bytes_each_time(self) -> None:
        assert revocation.sign(ADA, LYON.accrediting) == revocation.sign(ADA, LYON.accrediting)

    @pytest.mark.parametrize("key", [KYOTO.accrediting, LYON.answering, FEDERATION.root, SigningKey.generate()])
    def test_no_other_key_can(self, key: SigningKey) -> None:
        assert _code(revocation.sign(ADA, key)) == "revocation.bad_signature"

    def test_a_signature_made_for_something_else_does_not_serve(self) -> None:
        payload = revocation.sign(ADA, LYON.accrediting).payload
        for use in ("query", "roster", signed.ANSWER_USE, "revocations"):
            forged = revocation_pb2.SignedRevocation(payload=payload, signature=LYON.accrediting.sign(use, payload))
            assert _code(forged) == "revocation.bad_signature"

    @pytest.mark.parametrize(
        "other", [replace(ADA, issued_before_ms=NOW + 1), replace(ADA, subject="bob"), replace(ADA, center=KYOTO.id)]
    )
    def test_whoever_carries_it_cannot_alter_it(self, other: Revocation) -> None:
        genuine, altered = revocation.sign(ADA, LYON.accrediting), revocation.sign(other, SigningKey.generate())
        bent = revocation_pb2.SignedRevocation(payload=altered.payload, signature=genuine.signature)
        assert _code(bent) == "revocation.bad_signature"

    def test_a_word_for_another_federation_is_none_here(self) -> None:
        assert _code(_by_hand(federation="elsewhere")) == "revocation.other_federation"

    def test_what_a_stolen_key_signs_reaches_a_day_into_the_future_and_no_further(self) -> None:
        furthest = revocation.sign(replace(ADA, issued_before_ms=NOW + DAY), LYON.accrediting)
        assert revocation.verify(furthest, ROSTER, at_ms=NOW).issued_before_ms == NOW + DAY
        with pytest.raises(RevocationRefused) as refusal:
            revocation.verify(furthest, ROSTER, at_ms=NOW - 1)
        assert refusal.value.code == "revocation.not_yet"

    def test_a_suspended_center_has_still_said_it(self) -> None:
        federation = new_federation()
        lyon = federation.centers["lyon"]
        federation.centers["lyon"] = lyon.with_status(MemberStatus.SUSPENDED)
        assert revocation.verify(revocation.sign(ADA, lyon.accrediting), federation.roster()) == ADA

    @pytest.mark.parametrize(
        "said",
        [
            pytest.param(revocation_pb2.SignedRevocation(payload=b"\xff", signature=bytes(64)), id="no message"),
            pytest.param(revocation_pb2.SignedRevocation(payload=bytes(2_000), signature=bytes(64)), id="too large"),
            pytest.param(_by_hand(subject="Ada"), id="capital letter"),
            pytest.param(_by_hand(subject="a/b"), id="slash"),
            pytest.param(_by_hand(subject=""), id="nobody"),
            pytest.param(_by_hand(center_id="../x"), id="no center"),
            pytest.param(_by_hand(issued_before_ms=0), id="no moment"),
            pytest.param(_by_hand(issued_before_ms=-1), id="before 1970"),
            pytest.param(_by_hand(issued_before_ms=END), id="at the end of time"),
        ],
    )
    def test_what_says_nothing_is_refused(self, said: revocation_pb2.SignedRevocation) -> None:
        assert _code(said) == "revocation.unreadable"

    def test_a_field_that_is_not_known_is_refused(self) -> None:
        said = revocation.sign(ADA, LYON.accrediting)
        payload = said.payload + b"\xc2\x3e\x03new"
        more = revocation_pb2.SignedRevocation(
            payload=payload, signature=LYON.accrediting.sign(revocation.USE, payload)
        )
        assert _code(more) == "revocation.unreadable"
        said.MergeFromString(b"\xc2\x3e\x03new")
        assert _code(said) == "revocation.unreadable"


class TestWhatCounts:
    def asker(self, issued_at_ms: int, *, center: str = "lyon", subject: str = "ada") -> Asker:
        return FEDERATION.researcher(center, subject, issued_at_ms=issued_at_ms)

    def test_what_was_issued_before_does_not_count_and_what_is_issued_then_does(self) -> None:
        known = Known({"lyon/ada": NOW})
        with pytest.raises(CredentialRefused) as refusal:
            credential.verify(self.asker(NOW - SECOND).token, ROSTER, known)
        assert refusal.value.code == "credential.revoked"
        assert "ask the steward there to accredit you again" in refusal.value.public
        assert credential.verify(self.asker(NOW).token, ROSTER, known).id == "lyon/ada"

    def test_it_ends_no_other_researchers_credential(self) -> None:
        known = Known({"lyon/ada": NOW})
        for center, subject in (("lyon", "bob"), ("kyoto", "ada")):
            token = self.asker(NOW - HOUR, center=center, subject=subject).token
            assert credential.verify(token, ROSTER, known).id == f"{center}/{subject}"

    def test_questions_and_calls_are_refused_alike(self) -> None:
        known, ada = Known({"lyon/ada": NOW}), self.asker(NOW - SECOND)
        with pytest.raises(CredentialRefused) as question:
            signed.verify_query(ada.ask("kyoto"), ROSTER, known)
        metadata = dict(ada.call("/m"))
        with pytest.raises(CredentialRefused) as call:
            signed.verify_call(metadata[signed.CREDENTIAL_KEY], metadata[signed.PROOF_KEY], ROSTER, known, method="/m")
        assert {question.value.code, call.value.code} == {"credential.revoked"}

    def test_a_forged_credential_is_called_forged_also_of_a_revoked_researcher(self) -> None:
        forged = replace(
            FEDERATION, centers={**FEDERATION.centers, "lyon": replace(LYON, accrediting=KYOTO.accrediting)}
        )
        with pytest.raises(CredentialRefused) as refusal:
            credential.verify(
                forged.researcher("lyon", issued_at_ms=NOW - HOUR).token, ROSTER, Known({"lyon/ada": NOW})
            )
        assert refusal.value.code == "credential.bad_signature"

    def test_after_the_longest_life_of_a_credential_it_says_nothing_more(self) -> None:
        last = self.asker(NOW - SECOND)
        assert ADA.ends_at_ms == NOW + 90 * DAY
        with pytest.raises(CredentialRefused) as refusal:
            credential.verify(last.token, ROSTER, Known(), at_ms=ADA.ends_at_ms)
        assert refusal.value.code == "credential.expired"


def test_what_goes_together_into_a_frame_is_bounded() -> None:
    one = revocation.sign(replace(ADA, center=center_id("c" * 63), subject="s" * 64), LYON.accrediting)
    frames = list(revocation.batches([one] * (revocation.AT_ONCE + 1)))
    assert [len(frame.revocations) for frame in frames] == [revocation.AT_ONCE, 1]
    assert frames[0].ByteSize() < 512 * 1024
    assert list(revocation.batches([])) == []
