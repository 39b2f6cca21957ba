"""The researcher's folder: private, and never talked into an older roster."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from connexon.client.home import REMEMBERED_QUERIES, REQUEST_USE, Home, Login, LoginRefused, accreditation_request
from connexon.errors import Misconfigured
from connexon.identity import keys
from connexon.identity.keys import SigningKey
from connexon.identity.roster import RosterPin, RosterRefused
from tests.support.client_hub import Federation


@pytest.fixture
def federation() -> Federation:
    return Federation()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_everything_in_the_folder_is_for_its_owner_alone(tmp_path: Path, federation: Federation) -> None:
    umask = os.umask(0)
    try:
        home = Home(tmp_path / "deep" / "connexon")
        key, _ = home.make_key()
        login = federation.login("localhost:1", key)
        home.keep_login(login)
        home.keep_roster(federation.roster(), login)
        home.remember("11111111-1111-1111-1111-111111111111", 1, b"question")
        home.keep_defaults(purpose="health")
    finally:
        os.umask(umask)
    files = [path for path in home.folder.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {mode(path) for path in files} == {0o600}
    assert mode(home.folder) == mode(home.folder / "queries") == 0o700


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONNEXON_HOME", str(tmp_path / "mine"))
    assert Home().folder == tmp_path / "mine"
    monkeypatch.delenv("CONNEXON_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert Home().folder == tmp_path / "connexon"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home().folder == tmp_path / ".config" / "connexon"


def test_a_key_is_made_once_and_one_that_others_can_read_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    key, made = home.make_key()
    again, made_again = home.make_key()
    assert (made, made_again) == (True, False)
    assert again.public == key.public
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600") as caught:
        home.key()
    assert caught.value.code == "key.exposed"


def test_what_is_missing_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="connexon keygen"):
        Home(tmp_path).key()
    with pytest.raises(Misconfigured, match="connexon login FILE"):
        Home(tmp_path).login()


def test_the_accreditation_request_proves_its_key() -> None:
    key = SigningKey.generate()
    request = accreditation_request(key)
    public = keys.from_base64url(request["public_key"])
    assert request["connexon"] == "accreditation-request"
    assert public == key.public
    assert keys.verify(public, REQUEST_USE, public, keys.from_base64url(request["proof"]))


def test_an_older_roster_never_replaces_a_newer_one(tmp_path: Path, federation: Federation) -> None:
    home, login = Home(tmp_path), federation.login("localhost:1", SigningKey.generate())
    home.keep_roster(federation.roster(serial=5), login)
    with pytest.raises(RosterRefused) as caught:
        home.keep_roster(federation.roster(serial=4), login)
    assert caught.value.code == "roster.older"
    with pytest.raises(RosterRefused, match="Two different"):
        home.keep_roster(federation.roster(serial=5, members={}), login)
    kept = home.roster(login)
    assert kept is not None
    assert kept.serial == 5
    assert home.keep_roster(federation.roster(serial=6), login).serial == 6


def test_a_fresh_folder_starts_from_no_older_roster_than_its_login_names(
    tmp_path: Path, federation: Federation
) -> None:
    pin = RosterPin.of(federation.roster(serial=5))
    login = federation.login("localhost:1", SigningKey.generate(), roster=pin)
    home = Home(tmp_path)
    for roster, code in (
        (federation.roster(serial=4), "roster.older"),
        (federation.roster(serial=5, members={}), "roster.forked"),
    ):
        with pytest.raises(RosterRefused, match="login file") as caught:
            home.keep_roster(roster, login)
        assert caught.value.code == code
    assert home.roster(login) is None
    assert home.keep_roster(federation.roster(serial=5), login).serial == 5
    later = federation.login("localhost:1", SigningKey.generate(), roster=RosterPin.of(federation.roster(serial=8)))
    with pytest.raises(RosterRefused) as caught:
        home.keep_roster(federation.roster(serial=6), later)
    assert caught.value.code == "roster.older"


def test_a_login_that_names_no_roster_serves_only_who_has_one(tmp_path: Path, federation: Federation) -> None:
    login = federation.login("localhost:1", SigningKey.generate(), roster=None)
    home = Home(tmp_path)
    with pytest.raises(LoginRefused) as caught:
        home.keep_roster(federation.roster(serial=5), login)
    assert caught.value.code == "login.no_roster"
    home.keep_roster(federation.roster(serial=5), federation.login("localhost:1", SigningKey.generate()))
    assert home.keep_roster(federation.roster(serial=6), login).serial == 6


def test_a_roster_by_another_root_is_not_kept(tmp_path: Path, federation: Federation) -> None:
    home = Home(tmp_path)
    with pytest.raises(RosterRefused) as caught:
        home.keep_roster(Federation().roster(), federation.login("localhost:1", SigningKey.generate()))
    assert caught.value.code == "roster.other_root"
    assert not (tmp_path / "roster.bin").exists()


def test_a_login_file_is_read_back_and_anything_else_refused(federation: Federation) -> None:
    login = federation.login("hub.example.org:443", SigningKey.generate())
    assert Login.from_text(login.to_text()) == login
    whole = json.loads(login.to_text())
    spoilt: list[str] = ["", "[]", "{}", "null", "[" * 100_000, '{"connexon": "accreditation-request"}']
    without = {name: text for name, text in whole.items() if not name.startswith("roster_")}
    assert Login.from_text(json.dumps(without)).roster is None
    for text in ("-1", "0", "x", "", "1" * 40):
        spoilt.append(json.dumps({**whole, "roster_serial": text}))
    spoilt.append(json.dumps({**whole, "roster_sha256": "ab"}))
    for name in whole:
        spoilt.append(json.dumps({key: value for key, value in whole.items() if key != name}))
        spoilt.append(json.dumps({**whole, name: 5}))
    spoilt.append(json.dumps({**whole, "hub_address": "hub.example.org"}))
    spoilt.append(json.dumps({**whole, "root_fingerprint": "ab"}))
    for text in spoilt:
        with pytest.raises(LoginRefused) as caught:
            Login.from_text(text)
        assert caught.value.code == "login.unreadable"


def test_another_federation_s_login_forgets_what_was_known_of_the_first(tmp_path: Path, federation: Federation) -> None:
    home = Home(tmp_path)
    key, _ = home.make_key()
    login = federation.login("localhost:1", key)
    home.keep_login(login)
    home.keep_roster(federation.roster(serial=9), login)
    other = Federation()
    home.keep_login(other.login("localhost:2", key))
    assert home.keep_roster(other.roster(serial=1), home.login()).serial == 1
    assert home.key().public == key.public


def test_own_questions_are_remembered_up_to_a_number(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number in range(REMEMBERED_QUERIES + 5):
        home.remember(f"00000000-0000-0000-0000-{number:012}", number, f"question {number}".encode())
    recent = home.recent_query_ids()
    assert len(recent) == REMEMBERED_QUERIES
    assert recent[0].endswith("204")
    assert home.asked(recent[0]) == b"question 204"
    assert home.asked("00000000-0000-0000-0000-000000000000") is None
    assert home.asked("../key.pem") is None


def test_defaults_are_set_one_by_one_and_unset_with_an_empty_text(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.keep_defaults(purpose="health")
    home.keep_defaults(project="P1")
    assert (home.defaults().purpose, home.defaults().project) == ("health", "P1")
    home.keep_defaults(purpose="")
    assert (home.defaults().purpose, home.defaults().project) == ("", "P1")
