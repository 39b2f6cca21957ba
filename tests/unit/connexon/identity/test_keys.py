import contextlib
import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from connexon.errors import InvalidQuery, Misconfigured, Unauthenticated
from connexon.identity import keys as identity_keys
from connexon.identity.keys import SigningKey, SpiffeId, base64url, from_base64url, readable, replace_file, verify

CENTER_IDS = st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9}){0,4}", fullmatch=True)

NOT_CENTER_IDS = [
    "",
    "Lyon",
    "lyon\n",
    "\nlyon",
    " lyon",
    "lyon ",
    "lyon-",
    "-lyon",
    "ly--on",
    "1lyon",
    "ly_on",
    "ly.on",
    "ly/on",
    "ly%6fn",
    "lyøn",
    "lуon",  # a Cyrillic letter that looks like y
    "lyon١",  # an Arabic digit
    "ｌyon",  # a full-width letter
    "lyon\0",
    "a" * 64,
]


class TestCenterIds:
    @pytest.mark.parametrize("text", ["a", "lyon", "center-lyon", "c3", "a-1-b", "a" * 63])
    def test_plain_names_are_center_ids(self, text: str) -> None:
        assert identity_keys.center_id(text) == text

    @pytest.mark.parametrize("text", NOT_CENTER_IDS)
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidQuery) as caught:
            identity_keys.center_id(text)
        assert caught.value.code == "identity.bad_center_id"

    def test_a_long_text_is_not_repeated_whole(self) -> None:
        with pytest.raises(InvalidQuery) as caught:
            identity_keys.center_id("x" * 1_000_000)
        assert len(caught.value.public) < 400


class TestSpiffeIds:
    @given(CENTER_IDS, CENTER_IDS)
    def test_what_is_written_is_read(self, federation: str, center: str) -> None:
        spiffe = SpiffeId(federation, identity_keys.center_id(center))
        assert SpiffeId.parse(str(spiffe)) == spiffe

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "spiffe://alliance/center/lyon\n",
            " spiffe://alliance/center/lyon",
            "spiffe://alliance/center/lyon/",
            "spiffe://alliance/center/lyon/x",
            "spiffe://alliance/center/lyon?x=1",
            "spiffe://alliance/center/lyon#x",
            "spiffe://alliance/center/",
            "spiffe://alliance/center",
            "spiffe:///center/lyon",
            "spiffe://alliance/centre/lyon",
            "spiffe://alliance/x/center/lyon",
            "spiffe://alliance:443/center/lyon",
            "spiffe://user@alliance/center/lyon",
            "spiffe://alliance/center/../center/lyon",
            "spiffe://alliance//center/lyon",
            "spiffe://Alliance/center/lyon",
            "SPIFFE://alliance/center/lyon",
            "https://alliance/center/lyon",
            "xspiffe://alliance/center/lyon",
            "spiffe://alliance/center/l%79on",
            "spiffe://alliance/center/lуon",
            "spiffe://alliance/center/lyon\0",
            "spiffe://alliance/center/lyon spiffe://alliance/center/kyoto",
        ],
    )
    def test_only_the_exact_form_is_an_identity(self, text: str) -> None:
        with pytest.raises(Unauthenticated) as caught:
            SpiffeId.parse(text)
        assert caught.value.code == "identity.bad_spiffe_id"

    @given(st.text(max_size=80))
    def test_no_text_is_read_as_another_identity(self, text: str) -> None:
        with contextlib.suppress(Unauthenticated):
            assert str(SpiffeId.parse(text)) == text


class TestSignatures:
    def test_a_signature_holds_for_its_key_use_and_bytes(self) -> None:
        key = SigningKey.generate()
        assert verify(key.public, "query", b"payload", key.sign("query", b"payload"))

    def test_a_signature_for_one_use_does_not_serve_another(self) -> None:
        key = SigningKey.generate()
        signature = key.sign("answer", b"payload")
        assert not verify(key.public, "query", b"payload", signature)
        assert not verify(key.public, "roster", b"payload", signature)

    def test_a_use_cannot_be_stretched_into_the_payload(self) -> None:
        key = SigningKey.generate()
        assert not verify(key.public, "quer", b"ypayload", key.sign("query", b"payload"))
        signature = key.sign("query", b"x\0payload")
        assert verify(key.public, "query", b"x\0payload", signature)
        assert not verify(key.public, "query\0x", b"payload", signature)
        with pytest.raises(ValueError, match="NUL"):
            key.sign("query\0x", b"payload")

    def test_another_key_another_payload_or_a_cut_signature_does_not_hold(self) -> None:
        key, other = SigningKey.generate(), SigningKey.generate()
        signature = key.sign("query", b"payload")
        assert not verify(other.public, "query", b"payload", signature)
        assert not verify(key.public, "query", b"payload ", signature)
        assert not verify(key.public, "query", b"payload", signature[:-1])
        assert not verify(key.public, "query", b"payload", b"")
        assert not verify(b"", "query", b"payload", signature)
        assert not verify(b"\xff" * 32, "query", b"payload", signature)

    def test_a_signature_cannot_be_written_in_a_second_way(self) -> None:
        key = SigningKey.generate()
        signature = key.sign("query", b"payload")
        order = 2**252 + 27742317777372353535851937790883648493
        second = int.from_bytes(signature[32:], "little") + order
        assert not verify(key.public, "query", b"payload", signature[:32] + second.to_bytes(32, "little"))

    def test_a_key_under_which_one_signature_fits_everything_is_refused(self) -> None:
        neutral = b"\1" + bytes(31)
        everything = neutral + bytes(32)
        Ed25519PublicKey.from_public_bytes(neutral).verify(everything, b"any message")
        assert not verify(neutral, "query", b"payload", everything)

    @pytest.mark.parametrize("sign_bit", [0, 0x80])
    @pytest.mark.parametrize(
        "key",
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ],
    )
    def test_every_key_of_small_order_is_refused(self, key: str, sign_bit: int) -> None:
        # The list libsodium refuses (ge25519_has_small_order), with either sign.
        raw = bytearray.fromhex(key)
        raw[31] |= sign_bit
        assert not verify(bytes(raw), "query", b"payload", b"\1" + bytes(63))


class TestFingerprints:
    def test_a_fingerprint_is_read_aloud_in_eight_groups(self) -> None:
        text = readable(bytes(range(32)))
        assert text == "0001 0203 0405 0607 0809 0a0b 0c0d 0e0f"

    def test_different_keys_read_differently(self) -> None:
        keys = {readable(identity_keys.fingerprint(SigningKey.generate().public)) for _ in range(20)}
        assert len(keys) == 20


class TestKeyFiles:
    def test_a_key_comes_back_from_its_file(self, tmp_path: Path) -> None:
        key = SigningKey.generate()
        key.save(tmp_path / "deep" / "answering.pem")
        loaded = SigningKey.load(tmp_path / "deep" / "answering.pem")
        assert loaded.public == key.public
        assert verify(key.public, "query", b"x", loaded.sign("query", b"x"))

    def test_only_the_owner_can_read_it(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            SigningKey.generate().save(tmp_path / "key.pem")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600

    def test_a_key_is_never_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "key.pem"
        SigningKey.generate().save(path)
        before = path.read_bytes()
        with pytest.raises(Misconfigured) as caught:
            SigningKey.generate().save(path)
        assert caught.value.code == "key.exists"
        assert path.read_bytes() == before

    def test_a_link_to_nowhere_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(Misconfigured):
            SigningKey.generate().save(tmp_path / "key.pem")
        assert not (tmp_path / "elsewhere").exists()

    @pytest.mark.parametrize("kind", ["absent", "empty", "text", "p256", "password", "folder"])
    def test_a_file_that_is_no_usable_key_says_so(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "key.pem"
        if kind == "folder":
            path.mkdir()
        elif kind != "absent":
            path.write_bytes(_not_a_key(kind))
        with pytest.raises(Misconfigured) as caught:
            SigningKey.load(path)
        assert caught.value.code == "key.unreadable"


def _not_a_key(kind: str) -> bytes:
    if kind == "p256":
        return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if kind == "password":
        locked = BestAvailableEncryption(b"secret")
        return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    return b"" if kind == "empty" else b"hello"


class TestReplaceFile:
    def test_the_new_content_takes_the_old_ones_place_and_nothing_is_left_over(self, tmp_path: Path) -> None:
        path = tmp_path / "roster.pb"
        replace_file(path, b"old")
        replace_file(path, b"new")
        assert path.read_bytes() == b"new"
        assert [entry.name for entry in tmp_path.iterdir()] == ["roster.pb"]

    def test_a_private_file_is_never_readable_by_others(self, tmp_path: Path) -> None:
        path = tmp_path / "link.pem"
        path.write_bytes(b"public")
        path.chmod(0o644)
        replace_file(path, b"secret", private=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_reader_sees_the_old_or_the_new_content_and_nothing_between(self, tmp_path: Path) -> None:
        path = tmp_path / "roster.pb"
        contents = {bytes([number]) * 20_000 for number in range(8)}
        replace_file(path, next(iter(contents)))

        def write() -> None:
            for content in contents:
                replace_file(path, content)

        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            assert path.read_bytes() in contents
        for writer in writers:
            writer.join()
        assert path.read_bytes() in contents
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_failure_leaves_the_old_content_and_no_scratch(self, tmp_path: Path) -> None:
        target = tmp_path / "roster.pb"
        target.mkdir()
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
            replace_file(target, b"new")
        assert [entry.name for entry in tmp_path.iterdir()] == ["roster.pb"]


class TestBase64Url:
    @given(st.binary(max_size=100))
    def test_it_comes_back(self, data: bytes) -> None:
        assert from_base64url(base64url(data)) == data

    @given(st.text(alphabet="ABab01-_+/= é\n", max_size=12))
    def test_bytes_have_one_spelling_only(self, text: str) -> None:
        try:
            data = from_base64url(text)
        except ValueError:
            return
        assert base64url(data) == text

    @pytest.mark.parametrize("text", ["QQ==", "QR", "Q+", "Q/", "Q", "QQ\n", "Q Q"])
    def test_other_spellings_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - that it is one is the promise
            from_base64url(text)
