import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.clock import HOUR, now_ms
from connexon.identity.invitation import InvitationRefused, from_code, to_code
from connexon.v1 import membership_pb2
from tests.support.federation import new_federation

FEDERATION = new_federation()
INVITATION = membership_pb2.Invitation(
    federation="alliance",
    center_id="oslo",
    hub_address="hub.example.org:7443",
    link_address="hub.example.org:7444",
    hub_certificate_authority=FEDERATION.authority.der,
    root_fingerprint=FEDERATION.root_fingerprint,
    token=bytes(range(32)),
    expires_at_ms=now_ms() + HOUR,
    roster_serial=7,
    roster_sha256=bytes(32),
)
CODE = to_code(INVITATION)


def _code(text: str) -> str:
    with pytest.raises(InvitationRefused) as caught:
        from_code(text)
    return caught.value.code


def test_an_invitation_comes_back_from_its_code() -> None:
    assert from_code(CODE) == INVITATION
    assert CODE.startswith("cnx1-")
    assert CODE.isascii()


def test_it_is_one_word_that_a_shell_takes_without_quotes() -> None:
    assert CODE.replace("-", "").replace("_", "").isalnum()


@given(st.lists(st.integers(0, len(CODE)), max_size=8), st.sampled_from([" ", "\n", "\r\n", "\t", "\u00a0"]))
def test_white_space_from_a_mail_program_does_no_harm(places: list[int], space: str) -> None:
    text = CODE
    for place in sorted(places, reverse=True):
        text = text[:place] + space + text[place:]
    assert from_code(text) == INVITATION


@given(st.integers(0, len(CODE) - 1))
def test_a_code_that_lost_its_end_is_not_accepted(length: int) -> None:
    assert _code(CODE[:length]) == "invitation.unreadable"


@given(st.integers(0, len(CODE) - 1), st.sampled_from("ABCxyz019-_!é"))
def test_a_mistyped_character_is_noticed(place: int, character: str) -> None:
    text = CODE[:place] + character + CODE[place + 1 :]
    if text != CODE:
        assert _code(text) == "invitation.unreadable"


@pytest.mark.parametrize(
    "text",
    ["", "cnx1-", "cnx1-AAAAAA", CODE.upper(), CODE + CODE, CODE + "=", "cnx2-" + CODE[5:], "é"],
    ids=["nothing", "no body", "short", "capitals", "twice", "padded", "other version", "other letters"],
)
def test_what_is_no_code_says_what_to_do(text: str) -> None:
    with pytest.raises(InvitationRefused, match="Paste all of it"):
        from_code(text)


def test_an_expired_invitation_says_so() -> None:
    assert from_code(CODE, at_ms=INVITATION.expires_at_ms - 1) == INVITATION
    with pytest.raises(InvitationRefused) as caught:
        from_code(CODE, at_ms=INVITATION.expires_at_ms)
    assert caught.value.code == "invitation.expired"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("federation", ""),
        ("center_id", "Oslo"),
        ("root_fingerprint", b""),
        ("root_fingerprint", b"x" * 31),
        ("hub_certificate_authority", b""),
        ("token", b""),
        ("hub_address", "hub\x1b[8m:7443"),
        ("link_address", "hub\n:7444"),
        ("hub_address", "h" * 400 + ":7443"),
        ("roster_serial", 0),
        ("roster_sha256", b""),
        ("roster_sha256", b"x" * 31),
    ],
)
def test_an_invitation_that_pins_nobody_or_cannot_be_shown_is_refused(name: str, value: object) -> None:
    bare = membership_pb2.Invitation.FromString(INVITATION.SerializeToString())
    setattr(bare, name, value)
    assert _code(to_code(bare)) == "invitation.unreadable"


def test_an_invitation_of_a_later_version_is_refused() -> None:
    later = membership_pb2.Invitation.FromString(INVITATION.SerializeToString() + b"\x98\x06\x01")
    assert _code(to_code(later)) == "invitation.unreadable"
