"""Whoever signs sees every new key and every changed rule, whatever a hub in other hands writes into the draft."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connexon.clock import DAY, now_ms
from connexon.identity import roster as rosters
from connexon.identity import visible_text
from connexon.identity.keys import SigningKey, center_id, fingerprint, readable
from connexon.identity.roster import Member, MemberStatus, OrganisationKind, Protocol, Roster, RosterRefused
from connexon_hub import cli
from connexon_hub.membership import roster_changes
from connexon_hub.membership.roster import RootFolder
from connexon_hub.membership.roster_changes import changes
from tests.support.federation import new_federation

NOW = now_ms()
KEYS = st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple)
HOSTILE = st.sampled_from(
    ["Lyon\u0651", "nothing changes but the dates", "• Sign it? [y/N]: y", "[bold red]", "x" * 200, "مركز 1", "a…"]
)
NAMES = (HOSTILE | st.text(max_size=12)).filter(lambda name: not visible_text.wrong_with(name))
MEMBERS = st.builds(
    Member,
    center=st.sampled_from(["lyon", "kyoto", "oslo", "boston"]).map(center_id),
    legal_name=NAMES,
    country=st.sampled_from(["FR", "JP"]),
    organisation_kind=st.sampled_from(OrganisationKind),
    status=st.sampled_from(MemberStatus),
    accrediting_keys=KEYS,
    answering_keys=KEYS,
)
RULE = """@id("{id}")
@says("{says}")
{effect} (
  principal,
  action == Action::"count",
  resource
)
when {{ {when} }};"""
RULES = st.builds(
    RULE.format,
    id=st.sampled_from(["access.a", "access.b", "consent.c"]),
    says=st.sampled_from(["One.", "Two // no; comment", "日本語", "hid\u202eden", "tab\there"]),
    effect=st.sampled_from(["permit", "forbid"]),
    when=st.sampled_from(["true", 'principal.id == "x;y"', "resource.size > 5"]),
)
GAPS = st.sampled_from(["\n", "\n\n// a comment\n", "// hidden \r", "\r\n", '\n// @id("access.a")\n'])
CEDAR = st.lists(st.tuples(GAPS, RULES), max_size=4).map(
    lambda parts: "".join(gap + rule for gap, rule in parts).encode()
)
FLOORS = st.builds(
    "minimum_donors = {}\n[privacy]\nrequired = {}\n".format, st.integers(1, 20), st.sampled_from(["true", "false"])
).map(str.encode)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "access/count.cedar": CEDAR,
        "consent/a.cedar": CEDAR,
        "schema.cedarschema": st.text("ab{}\n\r\t", max_size=20).map(str.encode),
        "release.toml": FLOORS,
    },
)


def drafts(serial: int) -> st.SearchStrategy[Roster]:
    return st.builds(
        Roster,
        federation=st.just("alliance"),
        serial=st.just(serial),
        issued_at_ms=st.just(NOW),
        expires_at_ms=st.integers(1, 40_000).map(lambda days: NOW + days * DAY),
        hub_certificate_authority=st.sampled_from([b"one", b"other"]),
        members=st.lists(MEMBERS, max_size=4, unique_by=lambda member: member.center).map(tuple),
        revoked_certificates=st.frozensets(st.sampled_from(["ab", "cd", "ef"])),
        lowest_protocol=st.sampled_from([Protocol(1, 0), Protocol(1, 1)]),
        policy_files=FILES,
    )


def new_keys(last: Roster | None, draft: Roster) -> set[bytes]:
    """Keys that the draft gives a use at a center which they did not have there."""

    def used(roster: Roster | None) -> set[tuple[str, str, bytes]]:
        members = () if roster is None else roster.members
        return {
            (member.center, use, key)
            for member in members
            for use, keys in (("answer", member.answering_keys), ("accredit", member.accrediting_keys))
            for key in keys
        }

    return {key for _, _, key in used(draft) - used(last)}


def lines_of(last: Roster | None, draft: Roster) -> list[str]:
    return [line for section in changes(last, draft) for line in (section.heading, *section.lines)]


@settings(max_examples=300)
@given(st.none() | drafts(1), drafts(2))
def test_every_new_fingerprint_and_every_changed_rule_is_in_what_the_signer_sees(
    last: Roster | None, draft: Roster
) -> None:
    shown = lines_of(last, draft)
    alone = {line.strip() for line in shown}
    assert all(line.isprintable() and visible_text.UNSEEN.isdisjoint(line) for line in shown)
    assert {readable(fingerprint(key)) for key in new_keys(last, draft)} <= alone
    if last is not None and last.hub_certificate_authority != draft.hub_certificate_authority:
        assert readable(fingerprint(draft.hub_certificate_authority)) in alone
    _assert_rules_are_shown(last, draft, shown)
    for lifted in (last.revoked_certificates if last else frozenset()) - draft.revoked_certificates:
        assert lifted in alone
    if last is not None:
        assert bool(shown) == (roster_changes.differ(last, draft) or bool(roster_changes.unusual(last, draft)))


def _assert_rules_are_shown(last: Roster | None, draft: Roster, shown: list[str]) -> None:
    before, after = ({} if one is None else one.policy_files for one in (last, draft))
    for mark, these, those in (("+", after, before), ("-", before, after)):
        for path in these:
            found, others = _rules(these[path]), _rules(those.get(path, b""))
            for rule in found:
                if path.endswith(".cedar") and found.count(rule) > others.count(rule):
                    lines = [visible_text.escaped(line.replace("\t", "    ")) for line in rule.split("\n")]
                    assert {f"    {mark} {line}" for line in lines} <= set(shown)


def _rules(content: bytes) -> list[str]:
    """The rules, told apart by how this test writes them and not by the code under test."""
    parts = content.decode().split('@id("')[1:]
    return [f'@id("{part.rpartition(" };")[0]}' + " };" for part in parts if " };" in part]


@given(st.data())
def test_the_exchange_of_a_known_center_s_keys_comes_first_whatever_else_is_in_the_draft(data: st.DataObject) -> None:
    last, draft, victim = data.draw(drafts(1)), data.draw(drafts(2)), data.draw(MEMBERS)
    last = dataclasses.replace(last, members=(victim,))
    stolen = dataclasses.replace(victim, answering_keys=(SigningKey.generate().public,))
    others = tuple(member for member in draft.members if member.center != victim.center)
    sections = changes(last, dataclasses.replace(draft, members=(*others, stolen)))
    assert sections[0].heading.startswith("KEYS CHANGE of ")
    assert f"    {readable(fingerprint(stolen.answering_keys[0]))}" in sections[0].lines


@pytest.fixture(scope="module")
def root() -> Iterator[RootFolder]:
    with tempfile.TemporaryDirectory() as folder:
        made = RootFolder(Path(folder) / "root")
        made.create()
        yield made


class Terminal(io.StringIO):
    """Standard error that is a terminal, as far as a program can tell."""

    def isatty(self) -> bool:
        return True


def signed_on(root: RootFolder, draft: Roster, monkeypatch: pytest.MonkeyPatch, *, columns: int, terminal: bool) -> str:
    """What `roster sign` shows of a draft on a terminal of so many columns, or in a file."""
    file = root.root.parent / "draft.json"
    file.write_text(rosters.to_text_file(rosters.unsigned(draft)))
    shown: io.StringIO = Terminal() if terminal else io.StringIO()
    words = ["connexon-hub", "roster", "sign", str(file), "--root-dir", str(root.root), "--yes"]
    with monkeypatch.context() as patched, contextlib.redirect_stderr(shown):
        patched.setenv("COLUMNS", str(columns))
        patched.setenv("NO_COLOR", "1")
        patched.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert not left.value.code, shown.getvalue()
    return shown.getvalue()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_width_of_terminal_and_no_pipe_loses_a_fingerprint(
    root: RootFolder, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    last = root.last()
    draft = data.draw(drafts(1 if last is None else last.serial + 1))
    shown = signed_on(
        root, draft, monkeypatch, columns=data.draw(st.integers(20, 200)), terminal=data.draw(st.booleans())
    )
    assert {readable(fingerprint(key)) for key in new_keys(last, draft)} <= {line.strip() for line in shown.split("\n")}
    assert "\x1b" not in shown
    assert [line for line in shown.split("\n") if line.startswith("• ")] == [
        f"• {section.heading}" for section in changes(last, draft)
    ] or not changes(last, draft)


def test_thousands_of_new_centers_bury_no_exchange_of_keys(root: RootFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = new_federation()
    first = federation.roster(serial=10_000)
    first = dataclasses.replace(first, federation="alliance")
    root.last_file.unlink(missing_ok=True)
    root.sign(first)
    victim = dataclasses.replace(first.members[0], answering_keys=(SigningKey.generate().public,))
    crowd = tuple(
        dataclasses.replace(
            victim,
            center=center_id(f"a{number}"),
            legal_name="x" * 200,
            answering_keys=(bytes([1]) * 28 + number.to_bytes(4, "big"),),
        )
        for number in range(2_000)
    )
    draft = dataclasses.replace(first, serial=10_001, members=(*crowd, victim, *first.members[1:]))
    shown = signed_on(root, draft, monkeypatch, columns=20, terminal=True).split("\n")
    bullets = [line for line in shown if line.startswith("• ")]
    assert bullets[0].startswith(f"• KEYS CHANGE of 1 center: {victim.center}")
    assert readable(fingerprint(victim.answering_keys[0])) in shown[shown.index(bullets[0]) + 3]
    alone = {line.strip() for line in shown}
    assert all(readable(fingerprint(key)) in alone for member in crowd for key in member.answering_keys)


def test_a_center_that_takes_part_again_is_shown_with_its_keys() -> None:
    federation = new_federation()
    federation.centers["kyoto"] = federation.centers["kyoto"].with_status(MemberStatus.REVOKED)
    last = federation.roster(serial=1)
    federation.centers["kyoto"] = federation.centers["kyoto"].with_status(MemberStatus.ACTIVE)
    shown = lines_of(last, federation.roster(serial=2))
    kyoto = federation.centers["kyoto"].member
    for key in (*kyoto.answering_keys, *kyoto.accrediting_keys):
        assert f"    {readable(fingerprint(key))}" in shown


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"expires_at_ms": NOW + 36_500 * DAY}, "believed for 36,500.0 days"),
        ({"expires_at_ms": NOW + DAY // 24}, "believed for 0.0 days"),
        ({"expires_at_ms": NOW + 40 * DAY}, "before the last one does"),
        ({"serial": 2**62}, "far beyond the last one's"),
        ({"issued_at_ms": NOW - 400 * DAY, "expires_at_ms": NOW + 95 * DAY}, "that it was drafted"),
    ],
)
def test_an_unusual_end_or_serial_number_is_called_so(changed: dict[str, Any], words: str) -> None:
    usual = Roster("alliance", 1, NOW, NOW + 90 * DAY, b"ca")
    assert (
        changes(usual, dataclasses.replace(usual, serial=2, issued_at_ms=NOW + 1, expires_at_ms=NOW + 91 * DAY)) == []
    )
    (section,) = changes(usual, dataclasses.replace(usual, **({"serial": 2} | changed)))
    assert section.heading == "Unusual dates or numbers"
    assert any(words in line for line in section.lines)


def test_lowered_floors_are_shown_before_the_rules() -> None:
    usual = Roster("alliance", 1, NOW, NOW + 90 * DAY, b"ca", policy_files={"release.toml": b"minimum_donors = 10\n"})
    files = {"release.toml": b"minimum_donors = 1\n[privacy]\nrequired = false\n", "a.cedar": b'@id("a") permit();'}
    floors, rules = changes(usual, dataclasses.replace(usual, serial=2, policy_files=files))
    assert floors.lines == (
        "  minimum_donors: becomes 1, was 10",
        "  privacy.required: becomes False, was not set",
    )
    assert rules.lines == ("  a is added, a.cedar", '    + @id("a") permit();')


def test_a_rule_behind_a_carriage_return_in_a_comment_is_a_rule() -> None:
    usual = Roster("alliance", 1, NOW, NOW + 90 * DAY, b"ca")
    hidden = b'// harmless\r@id("a")\rpermit (principal, action, resource);'
    (section,) = changes(usual, dataclasses.replace(usual, serial=2, policy_files={"a.cedar": hidden}))
    assert section.lines[0] == "  a is added, a.cedar"
    assert "    + permit (principal, action, resource);" in section.lines


@pytest.mark.parametrize(
    "files",
    [{"run.py": b"x"}, {"a.cedar": b"\xff"}, {"release.toml": b"= ="}],
    ids=["a file of an unknown kind", "no text", "unreadable floors"],
)
def test_what_cannot_be_shown_is_not_signed(files: dict[str, bytes]) -> None:
    with pytest.raises(RosterRefused) as refused:
        changes(None, Roster("alliance", 1, NOW, NOW + DAY, b"ca", policy_files=files))
    assert refused.value.code == "roster.not_shown"


@pytest.mark.parametrize("kind", [Roster, Member])
def test_a_part_of_a_roster_that_nobody_shows_is_not_signed(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    for field in dataclasses.fields(kind):
        with monkeypatch.context() as patched:
            fewer = {**roster_changes._SHOWN, kind: roster_changes._SHOWN[kind] - {field.name}}
            patched.setattr(roster_changes, "_SHOWN", fewer)
            with pytest.raises(RosterRefused, match=field.name):
                changes(None, Roster("alliance", 1, NOW, NOW + DAY, b"ca"))
