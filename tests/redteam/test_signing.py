"""Attacks by a hub in other hands on what people and newcomers believe: the draft to be signed, and the first roster.

The hub is a real process with its real database; the attacker writes to both and makes drafts of their own.
"""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from connexon.client.connecting import log_in
from connexon.client.home import Home, Login
from connexon.clock import DAY
from connexon.identity import credential, roster
from connexon.identity.keys import SigningKey, center_id, fingerprint, readable
from connexon.identity.roster import Member, MemberStatus, OrganisationKind, Roster, RosterPin, RosterRefused
from connexon_node.folder import NodeFolder
from connexon_node.membership import joining
from tests.support.hub import COMMAND, HubProcess, JoinedCenter, until

LYON = center_id("lyon")
INTRUDER = SigningKey.generate().public


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def lyon(hub: HubProcess) -> JoinedCenter:
    return hub.join("lyon")


def in_database(hub: HubProcess, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(hub.hub / "state.db", timeout=30)) as database:
        database.execute(statement, values)
        database.commit()


def signing(hub: HubProcess, draft: Path, *, columns: int, yes: bool = False) -> subprocess.CompletedProcess[str]:
    """`roster sign`, piped, on what claims to be a terminal of so many columns; without `yes` nothing is signed."""
    words = ["roster", "sign", str(draft), "--root-dir", str(hub.root), *(["--yes"] if yes else [])]
    environment = {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(
        [COMMAND, *words], capture_output=True, text=True, timeout=60, check=False, env=environment, input=""
    )


def first_section(shown: str) -> list[str]:
    return shown.split("\n• ")[1].split("\n")


def of_the_intruder(member: Member) -> Member:
    return dataclasses.replace(member, answering_keys=(INTRUDER,), accrediting_keys=(INTRUDER,))


def in_force(hub: HubProcess) -> Roster:
    return roster.peek(roster.from_text_file((hub.root / "last-roster.json").read_text()))


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_keys_that_were_exchanged_in_the_hub_s_database_are_the_first_thing_shown(
    hub: HubProcess, lyon: JoinedCenter, tmp_path: Path, columns: int
) -> None:
    own = lyon.center.answering.public
    in_database(
        hub, "update members set answering_key = ?, legal_name = ? where center_id = 'lyon'", INTRUDER, "x" * 200
    )
    try:
        hub.run("roster", "draft", "--out", str(tmp_path / "draft"))
    finally:
        in_database(
            hub, "update members set answering_key = ?, legal_name = 'Center lyon' where center_id = 'lyon'", own
        )
    shown = signing(hub, tmp_path / "draft", columns=columns).stderr
    first = first_section(shown)
    assert first[0].startswith("KEYS CHANGE of 1 center: lyon.")
    assert [line.strip() for line in first].count(readable(fingerprint(INTRUDER))) == 1
    assert "roster.unconfirmed" in shown


def test_no_crowd_of_members_and_rules_pushes_the_exchange_of_keys_away(
    hub: HubProcess, lyon: JoinedCenter, tmp_path: Path
) -> None:
    last = in_force(hub)
    crowd = [
        Member(center_id(f"a{number}"), "x" * 200, "FR", OrganisationKind.ACADEMIC, MemberStatus.ACTIVE, (INTRUDER,))
        for number in range(2_000)
    ]
    draft = dataclasses.replace(
        last,
        serial=last.serial + 1,
        members=(*crowd, *map(of_the_intruder, last.members)),
        policy_files={**last.policy_files, "0.cedar": b"// nothing changes but the dates\n" * 1_000},
    )
    (tmp_path / "draft").write_text(roster.to_text_file(roster.unsigned(draft)))
    shown = signing(hub, tmp_path / "draft", columns=20).stderr
    first = first_section(shown)
    assert first[0].startswith("KEYS CHANGE of 1 center: lyon.")
    assert [line.strip() for line in first].count(readable(fingerprint(INTRUDER))) == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"legal_name": "x" * 2_001}, "roster.unprintable"),
        ({"legal_name": "\u3164" * 150}, "roster.unprintable"),
        ({"legal_name": "Lyon\u202e"}, "roster.unprintable"),
        ({"legal_name": "Lyon\u2003" * 20}, "roster.unprintable"),
        ({"country": "F" * 2_001}, "roster.bad_country"),
    ],
)
def test_a_draft_with_a_name_to_hide_behind_is_not_even_shown(
    hub: HubProcess, lyon: JoinedCenter, tmp_path: Path, change: dict[str, str], code: str
) -> None:
    last = in_force(hub)
    hiding = dataclasses.replace(of_the_intruder(last.members[0]), **change)  # type: ignore[arg-type]  # texts only
    draft = dataclasses.replace(last, serial=last.serial + 1, members=(hiding,))
    (tmp_path / "draft").write_text(roster.to_text_file(roster.unsigned(draft)))
    refused = signing(hub, tmp_path / "draft", columns=80, yes=True)
    assert refused.returncode == 1
    assert f"({code})" in " ".join(refused.stderr.split())
    assert in_force(hub) == last


def login_of(hub: HubProcess, lyon: JoinedCenter, key: SigningKey, pin: RosterPin) -> Login:
    token = credential.issue(
        lyon.center.accrediting,
        center=LYON,
        federation="alliance",
        subject="ada",
        name="Ada",
        role="researcher",
        researcher_key=key.public,
        life_ms=DAY,
    )
    return Login(
        federation="alliance",
        hub_address=lyon.invitation.hub_address,
        hub_certificate_authority=lyon.invitation.hub_certificate_authority,
        root_fingerprint=lyon.invitation.root_fingerprint,
        credential=token,
        roster=pin,
    )


def test_a_hub_that_goes_back_to_an_old_roster_is_believed_by_no_newcomer(
    hub: HubProcess, lyon: JoinedCenter, tmp_path: Path
) -> None:
    home, fresh = Home(tmp_path / "ada"), Home(tmp_path / "bob")
    keys = [folder.make_key()[0] for folder in (home, fresh)]
    hub.publish()
    pin = RosterPin.of(roster.from_text_file((hub.root / "last-roster.json").read_text()))
    code = hub.run("invite", "kyoto", "--legal-name", "Kyoto", *("--country", "JP", "--kind", "academic")).strip()
    until(lambda: lyon.roster_serial() == pin.serial, "the hub to see what was published")
    log_in(login_of(hub, lyon, keys[0], pin), home)
    hub.stop()
    in_database(hub, "delete from rosters where serial >= ?", pin.serial)
    hub.start()
    for folder, key in zip((home, fresh), keys, strict=True):
        with pytest.raises(RosterRefused) as refused:
            log_in(login_of(hub, lyon, key, pin), folder)
        assert refused.value.code == "roster.older"
    assert fresh.present_login() is None
    node = NodeFolder(tmp_path / "kyoto")
    with pytest.raises(RosterRefused, match="invitation names") as refused:
        joining.join(node, joining.read_code(code))
    assert refused.value.code == "roster.older"
    assert not node.settings_file.exists()
