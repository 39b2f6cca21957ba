import dataclasses
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.clock import DAY, END
from connexon.errors import NotFound, Refused
from connexon.identity import roster as rosters
from connexon.identity import visible_text
from connexon.identity.keys import SigningKey, center_id, fingerprint
from connexon.identity.roster import (
    Member,
    MemberStatus,
    OrganisationKind,
    Protocol,
    Roster,
    RosterRefused,
    believe,
    sign,
)
from connexon.v1 import roster_pb2
from tests.support.federation import new_federation
from tests.support.questions import CENTERS

FEDERATION = new_federation()
ROOT = FEDERATION.root
PIN = FEDERATION.root_fingerprint
ROSTER = FEDERATION.roster(serial=5)


def _code(signed: roster_pb2.SignedRoster, **options: object) -> str:
    with pytest.raises(RosterRefused) as caught:
        believe(signed, root_fingerprint=PIN, **options)  # type: ignore[arg-type]
    return caught.value.code


MEMBERS = st.builds(
    Member,
    center=CENTERS,
    legal_name=st.text(max_size=20).filter(lambda name: not visible_text.wrong_with(name))
    | st.just("Hospices de Lyon"),
    country=st.sampled_from(["FR", "JP", "US"]),
    organisation_kind=st.sampled_from(OrganisationKind),
    status=st.sampled_from(MemberStatus),
    accrediting_keys=st.lists(st.binary(min_size=32, max_size=32), max_size=2).map(tuple),
    answering_keys=st.lists(st.binary(min_size=32, max_size=32), max_size=2).map(tuple),
)
ROSTERS = st.builds(
    Roster,
    federation=CENTERS,
    serial=st.integers(1, 2**63 - 1),
    issued_at_ms=st.integers(1, 2_000_000_000_000),
    expires_at_ms=st.integers(2_000_000_000_001, END - 1),
    hub_certificate_authority=st.binary(max_size=40),
    members=st.lists(MEMBERS, max_size=4, unique_by=lambda member: member.center).map(tuple),
    revoked_certificates=st.frozensets(st.from_regex(r"[0-9a-f]{1,40}", fullmatch=True), max_size=4),
    lowest_protocol=st.builds(Protocol, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    policy_files=st.dictionaries(
        st.from_regex(r"[a-z]{1,6}\.cedar", fullmatch=True), st.binary(max_size=30), max_size=3
    ),
)


@given(ROSTERS)
def test_every_roster_comes_back_from_its_signed_form_and_from_its_text_file(roster: Roster) -> None:
    signed = sign(roster, ROOT)
    assert believe(signed, root_fingerprint=PIN) == roster
    assert rosters.peek(signed) == roster
    assert rosters.from_text_file(rosters.to_text_file(signed)) == signed


class TestBelief:
    def test_a_newer_roster_and_the_same_one_again_are_believed(self) -> None:
        newer = dataclasses.replace(ROSTER, serial=6)
        assert believe(sign(newer, ROOT), root_fingerprint=PIN, present=ROSTER) == newer
        assert believe(sign(ROSTER, ROOT), root_fingerprint=PIN, present=ROSTER) == ROSTER

    def test_an_older_roster_is_refused(self) -> None:
        assert _code(sign(dataclasses.replace(ROSTER, serial=4), ROOT), present=ROSTER) == "roster.older"

    def test_two_different_rosters_of_one_serial_are_a_fork(self) -> None:
        forked = dataclasses.replace(ROSTER, members=ROSTER.members[1:])
        assert _code(sign(forked, ROOT), present=ROSTER) == "roster.forked"

    def test_a_roster_of_another_federation_is_refused_whatever_its_serial(self) -> None:
        other = dataclasses.replace(ROSTER, federation="other", serial=9)
        assert _code(sign(other, ROOT), present=ROSTER) == "roster.other_federation"

    def test_a_roster_of_another_root_is_refused(self) -> None:
        assert _code(sign(ROSTER, SigningKey.generate())) == "roster.other_root"

    def test_the_pinned_key_written_beside_a_strangers_signature_does_not_help(self) -> None:
        signed = sign(ROSTER, SigningKey.generate())
        signed.root_key = ROOT.public
        assert _code(signed) == "roster.bad_signature"

    def test_an_empty_pin_matches_nothing(self) -> None:
        signed = sign(ROSTER, ROOT)
        signed.root_key = b""
        with pytest.raises(RosterRefused):
            believe(signed, root_fingerprint=b"")
        with pytest.raises(RosterRefused):
            believe(signed, root_fingerprint=fingerprint(b""))

    def test_a_signature_for_another_use_is_refused(self) -> None:
        signed = sign(ROSTER, ROOT)
        signed.signature = ROOT.sign("query", signed.payload)
        assert _code(signed) == "roster.bad_signature"

    def test_an_expired_roster_is_refused_from_the_first_millisecond(self) -> None:
        signed = sign(ROSTER, ROOT)
        assert believe(signed, root_fingerprint=PIN, now_ms=ROSTER.expires_at_ms - 1) == ROSTER
        assert _code(signed, now_ms=ROSTER.expires_at_ms) == "roster.expired"

    @settings(max_examples=150)
    @given(st.data())
    def test_no_altered_byte_goes_unnoticed(self, data: st.DataObject) -> None:
        signed = FEDERATION.signed_roster(ROSTER)
        raw = bytearray(signed.SerializeToString())
        position = data.draw(st.integers(0, len(raw) - 1))
        raw[position] ^= data.draw(st.integers(1, 255))
        try:
            altered = roster_pb2.SignedRoster.FromString(bytes(raw))
        except DecodeError:
            return  # protobuf itself refuses it
        with pytest.raises(RosterRefused):
            believe(altered, root_fingerprint=PIN)

    def test_something_unknown_beside_the_payload_is_refused(self) -> None:
        signed = roster_pb2.SignedRoster.FromString(sign(ROSTER, ROOT).SerializeToString() + b"\x98\x06\x01")
        assert _code(signed) == "roster.unknown_field"

    def test_a_roster_beyond_the_limit_is_refused(self) -> None:
        payload = bytes(rosters.MAXIMUM_SIZE + 1)
        signed = roster_pb2.SignedRoster(
            payload=payload, signature=ROOT.sign(rosters.USE, payload), root_key=ROOT.public
        )
        assert _code(signed) == "roster.too_large"


def _member(wire: roster_pb2.Roster, **fields: object) -> None:
    for name, value in fields.items():
        setattr(wire.members[0], name, value)


UNREADABLE: dict[str, Callable[[roster_pb2.Roster], object]] = {
    "a center twice": lambda r: r.members.append(r.members[0]),
    "no federation": lambda r: r.ClearField("federation"),
    "no center id": lambda r: _member(r, center_id="Lyon"),
    "status unspecified": lambda r: _member(r, status=0),
    "kind unspecified": lambda r: _member(r, organisation_kind=0),
    "short key": lambda r: r.members[0].answering_keys.append(b"x" * 31),
    "long key": lambda r: r.members[0].accrediting_keys.append(b"x" * 33),
    "no serial": lambda r: r.ClearField("serial"),
    "serial beyond what databases hold": lambda r: setattr(r, "serial", 2**63),
    "no expiry": lambda r: r.ClearField("expires_at_ms"),
    "expiry before issue": lambda r: setattr(r, "expires_at_ms", r.issued_at_ms),
    "expiry beyond dates": lambda r: setattr(r, "expires_at_ms", 2**62),
    "a certificate that is no number": lambda r: r.revoked_certificates.append("A\x1b[8m"),
    "a policy file twice": lambda r: (r.policy_files.add(path="a.cedar"), r.policy_files.add(path="a.cedar")),
}
UNPRINTABLE: dict[str, Callable[[roster_pb2.Roster], object]] = {
    "a name that moves the cursor": lambda r: _member(r, legal_name="Center\x1b[1A\x1b[8m"),
    "a name that looks blank": lambda r: _member(r, legal_name="\u3164\u2800"),
    "no name": lambda r: _member(r, legal_name=""),
    "a name of thousands of characters": lambda r: _member(r, legal_name="x" * 2_000),
    "a policy of a name without end": lambda r: r.policy_files.add(path="x" * 2_000 + ".cedar"),
    "a policy that is hidden": lambda r: r.policy_files.add(path="a\x1b[8m.cedar"),
}
NO_COUNTRY: dict[str, Callable[[roster_pb2.Roster], object]] = {
    "two lines": lambda r: _member(r, country="F\nR"),
    "none": lambda r: _member(r, country=""),
    "of small letters": lambda r: _member(r, country="fr"),
    "that is not assigned": lambda r: _member(r, country="XX"),
}
UNKNOWN: dict[str, Callable[[roster_pb2.Roster], object]] = {
    "status": lambda r: _member(r, status=9),
    "negative kind": lambda r: _member(r, organisation_kind=-1),
    "field": lambda r: r.MergeFromString(b"\x98\x06\x01"),
    "field of a member": lambda r: r.members[0].MergeFromString(b"\x98\x06\x01"),
}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *(pytest.param(change, "roster.unreadable", id=name) for name, change in UNREADABLE.items()),
        *(pytest.param(change, "roster.unprintable", id=name) for name, change in UNPRINTABLE.items()),
        *(pytest.param(change, "roster.bad_country", id=f"country {name}") for name, change in NO_COUNTRY.items()),
        *(pytest.param(change, "roster.unknown_field", id=f"unknown {name}") for name, change in UNKNOWN.items()),
        pytest.param(lambda r: r.Clear(), "roster.unreadable", id="empty"),
    ],
)
def test_not_even_the_roots_signature_makes_nonsense_believed(
    change: Callable[[roster_pb2.Roster], object], code: str
) -> None:
    wire = roster_pb2.Roster.FromString(sign(ROSTER, ROOT).payload)
    change(wire)
    payload = wire.SerializeToString()
    signed = roster_pb2.SignedRoster(payload=payload, signature=ROOT.sign(rosters.USE, payload), root_key=ROOT.public)
    assert _code(signed) == code
    with pytest.raises(RosterRefused):
        rosters.peek(signed)


class TestMembers:
    def test_only_active_members_take_part(self) -> None:
        federation = new_federation()
        for center, status in (("kyoto", MemberStatus.SUSPENDED), ("boston", MemberStatus.REVOKED)):
            federation.centers[center] = federation.centers[center].with_status(status)
        roster = federation.roster()
        assert [member.center for member in roster.active_members] == ["lyon"]
        assert roster.active(center_id("lyon")).center == "lyon"
        for center, code in (("kyoto", "membership.suspended"), ("boston", "membership.revoked")):
            with pytest.raises(Refused) as caught:
                roster.active(center_id(center))
            assert caught.value.code == code

    def test_a_stranger_is_not_found(self) -> None:
        assert ROSTER.member(center_id("oslo")) is None
        with pytest.raises(NotFound) as caught:
            ROSTER.active(center_id("oslo"))
        assert caught.value.code == "membership.not_a_member"

    def test_a_fresh_roster_says_nothing_and_an_expired_one_says_when(self) -> None:
        ROSTER.require_fresh(ROSTER.issued_at_ms + DAY)
        with pytest.raises(RosterRefused, match="UTC"):
            ROSTER.require_fresh(ROSTER.expires_at_ms + DAY)


@pytest.mark.parametrize(
    "text", ["", "x", "[", "1", '"a"', "null", '{"payload": 1}', '{"other": ""}', "[" * 50_000, "\0"]
)
def test_a_file_that_is_no_roster_is_unreadable(text: str) -> None:
    with pytest.raises(RosterRefused) as caught:
        rosters.from_text_file(text)
    assert caught.value.code == "roster.unreadable"
