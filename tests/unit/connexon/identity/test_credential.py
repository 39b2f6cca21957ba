import base64
import dataclasses
import hashlib
import hmac
import json
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from connexon.clock import DAY, HOUR, MINUTE, SECOND, now_ms
from connexon.errors import InvalidQuery, NotFound, Refused
from connexon.identity import credential
from connexon.identity.credential import NOTHING_REVOKED, CredentialRefused, Grant, Researcher, issue
from connexon.identity.keys import SigningKey, base64url, center_id
from connexon.identity.roster import MemberStatus, OrganisationKind, Roster
from connexon_node.policy.request import Requester
from tests.support.federation import Center, Federation, new_federation

verify = partial(credential.verify, revocations=NOTHING_REVOKED)
FEDERATION = new_federation()
LYON = FEDERATION.centers["lyon"]
ROSTER = FEDERATION.roster()
NOW = now_ms()
ADA = FEDERATION.researcher("lyon", "ada", issued_at_ms=NOW)
CLAIMS: dict[str, Any] = jwt.decode(ADA.token, options={"verify_signature": False})


def _signed(claims: dict[str, Any], *, key: SigningKey = LYON.accrediting, header: dict[str, Any] | None = None) -> str:
    """A token made by hand, so that it may say anything."""
    head = {"alg": "EdDSA", "typ": credential.TYPE} if header is None else header
    unsigned = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims))
    return f"{unsigned}.{base64url(key.private.sign(unsigned.encode()))}"


def _code(token: str, at_ms: int = NOW) -> str:
    return _refused_by(ROSTER, token, at_ms=at_ms)


def _refused_by(roster: Roster, token: str, *, at_ms: int) -> str:
    with pytest.raises(CredentialRefused) as caught:
        verify(token, roster, at_ms=at_ms)
    return caught.value.code


def _accredit(federation: Federation = FEDERATION, center: str = "lyon", **options: Any) -> str:
    return federation.researcher(center, **options).token


class TestWhatACredentialSays:
    def test_the_researcher_is_who_the_center_says_and_what_the_roster_says_of_the_center(self) -> None:
        federation = new_federation(centers=())
        federation.centers["kyoto"] = Center.new("kyoto", country="JP", kind=OrganisationKind.NON_PROFIT)
        asker = federation.researcher("kyoto", "ren", role="steward", issued_at_ms=NOW, life_ms=HOUR)
        assert verify(asker.token, federation.roster(), at_ms=NOW) == Researcher(
            subject="ren",
            center=center_id("kyoto"),
            country="JP",
            organisation_kind=OrganisationKind.NON_PROFIT,
            name="Ren",
            role="steward",
            key=asker.key.public,
            grants=(),
            issued_at_ms=NOW // 1000 * 1000,
            expires_at_ms=NOW // 1000 * 1000 + HOUR,
        )

    def test_the_same_name_at_two_centers_is_two_researchers(self) -> None:
        ids = {verify(_accredit(center=center, subject="ada"), ROSTER).id for center in ("lyon", "kyoto")}
        assert ids == {"lyon/ada", "kyoto/ada"}

    def test_a_token_made_by_hand_is_the_same_as_an_issued_one(self) -> None:
        assert verify(_signed(CLAIMS), ROSTER, at_ms=NOW) == verify(ADA.token, ROSTER, at_ms=NOW)

    def test_grants_are_kept_until_they_expire(self) -> None:
        lasting = Grant("ControlledAccessGrants", "trial-7", "https://lyon.example.org", "dac", NOW, NOW + 2 * HOUR)
        short = Grant("ResearcherStatus", "bona-fide", expires_ms=NOW + HOUR)
        token = _accredit(grants=(lasting, short), issued_at_ms=NOW)
        assert [grant.value for grant in verify(token, ROSTER, at_ms=NOW).grants] == ["trial-7", "bona-fide"]
        later = verify(token, ROSTER, at_ms=NOW + HOUR).grants
        assert [(grant.type, grant.source, grant.by) for grant in later] == [
            ("ControlledAccessGrants", "https://lyon.example.org", "dac")
        ]
        assert verify(token, ROSTER, at_ms=NOW + 3 * HOUR).grants == ()

    def test_a_grant_may_be_older_than_its_credential_and_never_from_the_future(self) -> None:
        old = Grant("ControlledAccessGrants", "atlas", "lyon", "dac", NOW - 900 * DAY, NOW + HOUR)
        future = dataclasses.replace(old, value="registry", asserted_ms=NOW + 30 * MINUTE)
        ada = verify(_accredit(grants=(old, future), issued_at_ms=NOW), ROSTER, at_ms=NOW)
        asking = Requester.of(ada, at_ms=NOW)
        assert asking.approvals == {"atlas": old.asserted_ms // 1000 * 1000}
        assert [(one.grant.value, one.because) for one in asking.dropped] == [("registry", "it is from the future")]

    def test_any_of_the_centers_present_keys_may_have_signed(self) -> None:
        federation = new_federation()
        old, new = federation.centers["lyon"], Center.new("lyon")
        keys = (new.accrediting.public, old.accrediting.public)
        federation.centers["lyon"] = dataclasses.replace(
            new, member=dataclasses.replace(new.member, accrediting_keys=keys)
        )
        ada = federation.researcher("lyon", "ada")
        federation_before = dataclasses.replace(federation, centers={**federation.centers, "lyon": old})
        bob = federation_before.researcher("lyon", "bob")
        assert verify(ada.token, federation.roster()).id == "lyon/ada"
        assert verify(bob.token, federation.roster()).id == "lyon/bob"


class TestTime:
    def test_it_holds_until_the_second_it_expires(self) -> None:
        token = _accredit(life_ms=HOUR, issued_at_ms=NOW)
        end = NOW // 1000 * 1000 + HOUR
        assert verify(token, ROSTER, at_ms=end - 1).subject == "ada"
        assert _code(token, end) == "credential.expired"

    def test_a_clock_may_be_a_minute_ahead_and_no_more(self) -> None:
        assert verify(_accredit(issued_at_ms=NOW + MINUTE - SECOND), ROSTER, at_ms=NOW).subject == "ada"
        assert _code(_accredit(issued_at_ms=NOW + MINUTE + 2 * SECOND)) == "credential.not_yet"

    def test_no_center_can_accredit_for_more_than_ninety_days(self) -> None:
        assert verify(_accredit(life_ms=90 * DAY, issued_at_ms=NOW), ROSTER, at_ms=NOW).subject == "ada"
        assert _code(_signed({**CLAIMS, "exp": CLAIMS["iat"] + 90 * 86_400 + 1})) == "credential.life"

    @pytest.mark.parametrize("life_ms", [0, -1, 90 * DAY + 1])
    def test_the_steward_is_told_at_once(self, life_ms: int) -> None:
        with pytest.raises(InvalidQuery) as caught:
            _accredit(life_ms=life_ms)
        assert caught.value.code == "credential.life"


class TestWhoSigned:
    def test_a_credential_for_another_federation_is_refused(self) -> None:
        assert _code(_signed({**CLAIMS, "aud": "other"})) == "credential.other_federation"
        assert _code(_signed({**CLAIMS, "aud": ["alliance", "other"]})) == "credential.other_federation"
        assert _code(_signed({**CLAIMS, "aud": "alliance-two"})) == "credential.other_federation"

    def test_one_center_cannot_accredit_in_the_name_of_another(self) -> None:
        assert _code(_signed(CLAIMS, key=FEDERATION.centers["kyoto"].accrediting)) == "credential.bad_signature"

    def test_the_key_for_answers_does_not_accredit(self) -> None:
        assert _code(_signed(CLAIMS, key=LYON.answering)) == "credential.bad_signature"

    def test_a_center_that_is_no_member_accredits_nobody(self) -> None:
        with pytest.raises(NotFound) as caught:
            verify(_signed({**CLAIMS, "iss": "oslo"}), ROSTER)
        assert caught.value.code == "membership.not_a_member"

    @pytest.mark.parametrize(
        ("status", "code"),
        [(MemberStatus.SUSPENDED, "membership.suspended"), (MemberStatus.REVOKED, "membership.revoked")],
    )
    def test_a_center_that_does_not_take_part_accredits_nobody(self, status: MemberStatus, code: str) -> None:
        federation = new_federation()
        token = _accredit(federation)
        federation.centers["lyon"] = federation.centers["lyon"].with_status(status)
        with pytest.raises(Refused) as caught:
            verify(token, federation.roster())
        assert caught.value.code == code

    def test_a_member_without_keys_accredits_nobody(self) -> None:
        member = dataclasses.replace(LYON.member, accrediting_keys=())
        roster = dataclasses.replace(ROSTER, members=(member,))
        with pytest.raises(CredentialRefused):
            verify(ADA.token, roster)


class TestProvedBefore:
    def test_it_counts_only_while_the_roster_and_the_time_say_so(self) -> None:
        federation = new_federation()
        token = _accredit(federation, life_ms=HOUR, issued_at_ms=NOW)
        present = federation.roster()
        for _ in range(2):
            assert verify(token, present, at_ms=NOW).subject == "ada"
        assert _refused_by(present, token, at_ms=NOW + HOUR) == "credential.expired"
        other = dataclasses.replace(present, federation="other")
        assert _refused_by(other, token, at_ms=NOW) == "credential.other_federation"
        federation.centers["lyon"] = Center.new("lyon")
        assert _refused_by(federation.roster(), token, at_ms=NOW) == "credential.bad_signature"
        assert verify(token, present, at_ms=NOW).subject == "ada"

    def test_a_refusal_is_not_remembered(self) -> None:
        old, federation = new_federation(), new_federation()
        token = _accredit(old, issued_at_ms=NOW)
        assert _refused_by(federation.roster(), token, at_ms=NOW) == "credential.bad_signature"
        federation.centers["lyon"] = old.centers["lyon"]
        assert verify(token, federation.roster(), at_ms=NOW).subject == "ada"


class TestConfusion:
    def test_a_token_without_a_signature_is_refused(self) -> None:
        for algorithm in ("none", "None", "NONE", ""):
            header = {"alg": algorithm, "typ": credential.TYPE}
            unsigned = ".".join(base64url(json.dumps(part).encode()) for part in (header, CLAIMS))
            assert _code(f"{unsigned}.") in ("credential.bad_signature", "credential.unreadable")

    def test_the_public_key_does_not_serve_as_a_shared_secret(self) -> None:
        public = LYON.accrediting.public
        for secret in (public, base64.b64encode(public), base64url(public).encode()):
            unsigned = ".".join(
                base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": credential.TYPE}, CLAIMS)
            )
            mac = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
            assert _code(f"{unsigned}.{base64url(mac)}") == "credential.bad_signature"

    def test_a_key_that_the_token_brings_along_is_not_used(self) -> None:
        stranger = SigningKey.generate()
        key = {"kty": "OKP", "crv": "Ed25519", "x": base64url(stranger.public)}
        header = {"alg": "EdDSA", "typ": credential.TYPE, "jwk": key, "kid": "../../key", "jku": "https://example.org"}
        assert _code(_signed(CLAIMS, key=stranger, header=header)) == "credential.bad_signature"

    def test_another_algorithm_is_refused(self) -> None:
        token = jwt.encode(
            CLAIMS, generate_private_key(SECP256R1()), algorithm="ES256", headers={"typ": credential.TYPE}
        )
        assert _code(token) == "credential.bad_signature"

    @pytest.mark.parametrize("kind", [None, "JWT", "connexon-call+jwt", "connexon-credential", 1])
    def test_a_token_of_another_type_is_refused_though_the_center_signed_it(self, kind: object) -> None:
        header = {"alg": "EdDSA"} if kind is None else {"alg": "EdDSA", "typ": kind}
        assert _code(_signed(CLAIMS, header=header)) in ("credential.bad_signature", "credential.unreadable")

    def test_a_header_that_must_be_understood_and_is_not_is_refused(self) -> None:
        header = {"alg": "EdDSA", "typ": credential.TYPE, "crit": ["tenant"], "tenant": "x"}
        assert _code(_signed(CLAIMS, header=header)) in ("credential.bad_signature", "credential.unreadable")


class TestNonsense:
    @pytest.mark.parametrize(
        "bound",
        [
            None,
            {},
            "key",
            {"jwk": {}},
            {"jwk": {"kty": "OKP", "crv": "Ed25519"}},
            {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": base64url(bytes(31))}},
            {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": base64url(bytes(32)) + "="}},
            {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": 5}},
            {"jwk": {"kty": "OKP", "crv": "X25519", "x": base64url(bytes(32))}},
            {"jwk": {"kty": "EC", "crv": "Ed25519", "x": base64url(bytes(32))}},
        ],
    )
    def test_a_bound_key_that_is_none_is_refused(self, bound: object) -> None:
        assert _code(_signed({**CLAIMS, "cnf": bound})) == "credential.unreadable"

    @pytest.mark.parametrize("name", ["iat", "exp", "sub", "cnf"])
    def test_whatever_it_must_say_is_missed(self, name: str) -> None:
        claims = {key: value for key, value in CLAIMS.items() if key != name}
        assert _code(_signed(claims)) == "credential.unreadable"

    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": float("inf")},
            {"iat": float("-inf")},
            {"exp": float("nan")},
            {"exp": "soon"},
            {"exp": None},
            {"iat": [1]},
            {"sub": "Ada"},
            {"sub": "ada\n"},
            {"sub": "a/b"},
            {"sub": ""},
            {"name": "Ada\x1b[2J"},
            {"name": "Ada\nBob"},
            {"name": "x" * 501},
            {"role": ["steward"]},
            {"ga4gh_passport_v1": [{"type": "x", "value": "\u202ey", "exp": 4_000_000_000}]},
            {"ga4gh_passport_v1": None},
            {"ga4gh_passport_v1": "x"},
            {"ga4gh_passport_v1": [1]},
            {"ga4gh_passport_v1": [{"type": "x", "value": "y"}]},
            {"ga4gh_passport_v1": [{"type": "x", "value": "y", "exp": float("inf")}]},
        ],
        ids=repr,
    )
    def test_a_claim_of_the_wrong_shape_is_unreadable(self, claims: dict[str, Any]) -> None:
        assert _code(_signed({**CLAIMS, **claims})) == "credential.unreadable"

    @pytest.mark.parametrize(
        "token",
        ["", ".", "..", "a.b.c", "é.é.é", "\ud800", "x" * 20_000, "e30.e30.", "e30.W10.AA", "bnVsbA.bnVsbA.AA"],
    )
    def test_what_is_no_token_is_unreadable(self, token: str) -> None:
        assert _code(token) == "credential.unreadable"

    def test_a_deeply_nested_token_is_refused(self) -> None:
        nested = base64url(b"[" * 6_000)
        head = base64url(json.dumps({"alg": "EdDSA", "typ": credential.TYPE}).encode())
        assert _code(f"{head}.{nested}.AA") == "credential.unreadable"
        assert _code(f"{nested}.{base64url(json.dumps(CLAIMS).encode())}.AA") == "credential.unreadable"

    def test_a_credential_may_be_sixteen_kibibytes_and_no_more(self) -> None:
        small = _signed({**CLAIMS, "note": "x" * 10_000})
        assert verify(small, ROSTER, at_ms=NOW).subject == "ada"
        large = _signed({**CLAIMS, "note": "x" * 13_000})
        assert len(large) > credential.MAXIMUM_SIZE
        assert _code(large) == "credential.unreadable"

    @pytest.mark.parametrize("subject", ["", "Ada", "a b", "ada\n", "-a", "a" * 65, "lyon/ada"])
    def test_the_steward_cannot_accredit_a_name_that_is_none(self, subject: str) -> None:
        with pytest.raises(InvalidQuery) as caught:
            issue(
                LYON.accrediting,
                center=LYON.id,
                federation="alliance",
                subject=subject,
                name="",
                role="",
                researcher_key=bytes(32),
                life_ms=DAY,
            )
        assert caught.value.code == "credential.subject"

    @pytest.mark.parametrize("role", ["a\nb", "\x1b[31mred", "x" * 501])
    def test_the_steward_cannot_write_what_would_steer_a_terminal(self, role: str) -> None:
        with pytest.raises(InvalidQuery) as caught:
            _accredit(role=role)
        assert caught.value.code == "credential.text"
