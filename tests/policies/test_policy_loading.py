"""What a policy may be: read, checked and joined all or nothing, and a center's own only narrows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connexon.errors import Misconfigured
from connexon.query.purpose import parse_purpose
from connexon_node.consent.evaluation import Verdict
from connexon_node.consent.profile import ConsentProfile
from connexon_node.policy.store import PolicyStore, compile_rules
from tests.support.rules import asking, baseline, judged, shipped_rules

GENERAL = ConsentProfile.parse("DUO:0000042")


def rule(head: str, *clauses: str, rule_id: str = "own.rule", says: str = "A sentence.", extra: str = "") -> str:
    written = "\n".join(f"when {{ {clause} }}" for clause in clauses)
    return f'@id("{rule_id}")\n@says("{says}")\n{extra}{head}\n{written};\n'


FORBID_USE = 'forbid (principal, action == Action::"use", resource)'
PERMIT_USE = 'permit (principal, action == Action::"use", resource)'


def own(text: str) -> dict[str, bytes]:
    return {"own.cedar": text.encode()}


def test_an_own_forbid_narrows_and_is_named() -> None:
    rules = compile_rules(baseline(), own(rule(FORBID_USE, "context.purpose.commercial")))
    request = asking("health", rules=rules)
    assert judged(request, GENERAL, rules=rules)[0].verdict is Verdict.PERMIT
    commercial = asking(parse_purpose("health", commercial_use=True), rules=rules)
    (judgement,) = judged(commercial, GENERAL, rules=rules)
    assert (judgement.verdict, judgement.rules) == (Verdict.DENY, ("own.rule",))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"], ids=["Unix", "old Mac", "Windows"])
def test_a_rule_after_a_comment_counts_whatever_ends_the_comment_s_line(end: str) -> None:
    text = ("// Nobody here.\n" + rule(FORBID_USE, "true")).replace("\n", end)
    rules = compile_rules(baseline(), own(text))
    (judgement,) = judged(asking("health", rules=rules), GENERAL, rules=rules)
    assert (judgement.verdict, judgement.rules) == (Verdict.DENY, ("own.rule",))


def test_an_own_rule_asks_for_the_steward_and_another_says_yes_beforehand() -> None:
    ask_first = rule(
        'permit (principal, action == Action::"refer", resource)',
        'principal.country == "FR"',
        rule_id="own.ask",
        extra='@needs("a center in France")\n',
    )
    yes = rule(
        'permit (principal, action == Action::"proceed", resource)',
        'principal.role == "researcher"',
        rule_id="own.yes",
        extra='@needs("a researcher")\n',
    )
    asked = compile_rules(baseline(), own(ask_first))
    assert judged(asking("health", rules=asked), GENERAL, rules=asked)[0].rules == ("own.ask",)
    both = compile_rules(baseline(), own(ask_first + yes))
    assert judged(asking("health", rules=both), GENERAL, rules=both)[0].verdict is Verdict.PERMIT


def test_saying_yes_beforehand_does_not_overrule_a_denial() -> None:
    yes = rule(
        'permit (principal, action == Action::"proceed", resource)',
        'principal.role == "researcher"',
        extra='@needs("a researcher")\n',
    )
    rules = compile_rules(baseline(), own(yes))
    ancestry_only = ConsentProfile.parse("DUO:0000011")
    assert judged(asking("sex", rules=rules), ancestry_only, rules=rules)[0].verdict is Verdict.DENY


def test_an_error_while_a_rule_is_evaluated_denies() -> None:
    # Integer overflow passes validation and fails when evaluated; Cedar alone would skip the forbid.
    overflow = "context.day + 9223372036854775807 > 0"
    rules = compile_rules(baseline(), own(rule(FORBID_USE, overflow)))
    (judgement,) = judged(asking("health", rules=rules), GENERAL, rules=rules)
    assert judgement.verdict is Verdict.DENY
    assert judgement.errors


def test_an_error_in_a_referral_denies_too() -> None:
    broken = rule(
        'permit (principal, action == Action::"refer", resource)',
        "context.day + 9223372036854775807 > 0",
        extra='@needs("nothing that can be had")\n',
    )
    rules = compile_rules(baseline(), own(broken))
    assert judged(asking("health", rules=rules), GENERAL, rules=rules)[0].verdict is Verdict.DENY


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("\n\n" + rule(FORBID_USE, "1 +"), "policy.syntax", "own.cedar line 3"),
        (rule(FORBID_USE, "resource.colour"), "policy.invalid", "attribute `colour`"),
        (rule(FORBID_USE, "resource.permission == 3"), "policy.invalid", "own.cedar line 1"),
        (FORBID_USE + ";", "policy.id", "needs an @id"),
        ('@id("own.rule")\n' + FORBID_USE + ";", "policy.says", "needs @says"),
        (rule(PERMIT_USE, "context.purpose.commercial", extra='@needs("x")\n'), "policy.overreach", "only narrow"),
        (rule("forbid (principal, action, resource)"), "policy.too_wide", "must name its actions"),
        (
            rule('forbid (principal, action == Action::"refer", resource)', "resource.collaboration"),
            "policy.overreach",
            "only narrow",
        ),
        (
            rule('forbid (principal, action in [Action::"use", Action::"refer"], resource)', "resource.collaboration"),
            "policy.overreach",
            "would forbid refer",
        ),
        (rule('permit (principal, action == Action::"refer", resource)'), "policy.too_wide", "permits everything"),
        (
            rule('permit (principal, action == Action::"refer", resource)', "true", extra='@needs("x")\n'),
            "policy.too_wide",
            "permits everything",
        ),
        (
            rule('permit (principal, action == Action::"refer", resource)', "resource.collaboration"),
            "policy.needs",
            "1 conditions and 0 @needs",
        ),
        (rule(FORBID_USE, "resource.no_methods", extra='@colour("red")\n'), "policy.annotation", "@colour"),
        (rule('forbid (principal == ?principal, action == Action::"use", resource)'), "policy.template", "slots"),
        (rule(FORBID_USE, 'action == Action::"use"'), "policy.action", "name it in the head"),
        (rule(FORBID_USE, "context.purpose.commercial") * 2, "policy.id", "is the id of own.cedar line 1 already"),
        (
            rule(FORBID_USE, "resource.non_commercial", "context.purpose.commercial", "principal.non_profit"),
            "policy.shadowed",
            "consent.non_commercial",
        ),
        (
            rule(FORBID_USE, "context.purpose.commercial")
            + rule(FORBID_USE, "context.purpose.commercial && resource.no_methods", rule_id="own.other"),
            "policy.shadowed",
            "own.other never decides anything",
        ),
        (
            rule(
                'permit (principal, action == Action::"oblige", resource)', "resource.no_methods", extra='@needs("x")\n'
            ),
            "policy.term",
            "needs @term",
        ),
    ],
)
def test_a_rule_that_may_not_be_is_not_loaded(text: str, code: str, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        compile_rules(baseline(), own(text))
    assert caught.value.code == code
    assert said in caught.value.public
    assert "own.cedar line" in caught.value.public


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"schema.cedarschema": None}, "policy.incomplete"),
        ({"schema.cedarschema": b"entity {"}, "policy.schema"),
        ({"consent/permissions.cedar": b"\xff\xfe"}, "policy.unreadable"),
        ({"notes.txt": b"hello"}, "policy.unknown_file"),
        ({"elsewhere/rules.cedar": b""}, "policy.unknown_file"),
        (dict.fromkeys((name for name in baseline() if name.startswith("consent/")), b""), "policy.incomplete"),
    ],
)
def test_a_baseline_that_is_not_whole_is_not_loaded(change: dict[str, bytes | None], code: str) -> None:
    changed = {name: content for name, content in {**baseline(), **change}.items() if content is not None}
    with pytest.raises(Misconfigured) as caught:
        compile_rules(changed, {})
    assert caught.value.code == code


def test_without_a_baseline_there_are_no_rules(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        _ = PolicyStore(tmp_path).rules
    assert caught.value.code == "policy.not_loaded"


def test_the_version_follows_the_files_and_not_their_order() -> None:
    backwards = dict(reversed(baseline().items()))
    assert compile_rules(backwards, {}).version == shipped_rules().version
    assert compile_rules(baseline(), own(rule(FORBID_USE, "resource.no_methods"))).version != shipped_rules().version


def test_a_changed_own_file_is_taken_up_without_restart(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    store.load(baseline())
    before = store.version
    assert not store.refresh()
    (tmp_path / "own.cedar").write_text(rule(FORBID_USE, "context.purpose.commercial"))
    assert store.refresh()
    assert "own.rule" in store.rules.rules
    (tmp_path / "own.cedar").unlink()
    assert store.refresh()
    assert store.version == before


def test_a_broken_own_file_changes_nothing_and_is_reported_once(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    (tmp_path / "own.cedar").write_text(rule(FORBID_USE, "context.purpose.commercial"))
    store.load(baseline())
    before = store.version
    (tmp_path / "own.cedar").write_text("forbid (")
    with pytest.raises(Misconfigured, match=r"own\.cedar line 1"):
        store.refresh()
    assert store.version == before
    assert not store.refresh()


def test_a_broken_baseline_changes_nothing(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    store.load(baseline())
    before = store.version
    with pytest.raises(Misconfigured):
        store.load({**baseline(), "consent/permissions.cedar": b"permit ("})
    assert store.version == before


def test_a_switch_is_on_only_where_the_center_says_so(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    store.load(baseline())
    assert store.rules.switches == frozenset()
    (tmp_path / "switches.yaml").write_text("non-commercial-excludes-companies: true\n")
    store.refresh()
    assert store.rules.switches == {"non-commercial-excludes-companies"}


@pytest.mark.parametrize("content", ["no-such-switch: true", "non-commercial-excludes-companies: yes", "- a list"])
def test_a_switch_that_cannot_be_understood_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "switches.yaml").write_text(content)
    with pytest.raises(Misconfigured) as caught:
        PolicyStore(tmp_path).load(baseline())
    assert caught.value.code == "policy.switches"


def test_links_out_of_the_folder_are_followed_no_further_than_their_text(tmp_path: Path) -> None:
    outside = tmp_path / "outside.cedar"
    outside.write_text("this is no policy")
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "own.cedar").symlink_to(outside)
    with pytest.raises(Misconfigured) as caught:
        PolicyStore(folder).load(baseline())
    assert str(outside) not in caught.value.public


def test_an_own_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.cedar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Misconfigured) as caught:
        PolicyStore(tmp_path).load(baseline())
    assert caught.value.code == "policy.unreadable"


NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's right to read everything, where the tests run as root."""
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if privileged:
            os.seteuid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Own policies, a forbid in a folder of its own, which belong to an ordinary user."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        own_folder = Path(made) / "policies"
        (own_folder / "consent").mkdir(parents=True)
        (own_folder / "consent" / "own.cedar").write_text(rule(FORBID_USE, "context.purpose.commercial"))
        if os.geteuid() == 0:
            for path in (own_folder, own_folder / "consent", own_folder / "consent" / "own.cedar"):
                os.chown(path, NOBODY, NOBODY)
        yield own_folder
        for path in (own_folder, own_folder / "consent", own_folder / "consent" / "own.cedar"):
            path.chmod(0o755)


def _touched_and_closed(path: Path) -> None:
    path.write_text(rule(FORBID_USE, "context.purpose.commercial", says="Another sentence."))
    path.chmod(0)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        (".", lambda path: path.chmod(0)),
        ("consent", lambda path: path.chmod(0)),
        ("consent", lambda path: path.chmod(0o100)),
        ("consent", lambda path: path.chmod(0o400)),
        ("consent/own.cedar", _touched_and_closed),
    ],
    ids=["policies", "closed", "not listed", "not entered", "file"],
)
def test_what_cannot_be_read_takes_no_forbid_away_and_is_reported_once(
    folder: Path, name: str, close: Callable[[Path], None]
) -> None:
    store, later = PolicyStore(folder), PolicyStore(folder)
    store.load(baseline())
    before = store.version
    close(folder / name)
    with unprivileged():
        with pytest.raises(Misconfigured) as caught:
            store.refresh()
        assert caught.value.code == "policy.unreadable"
        assert str(folder / name) in caught.value.public
        assert "let the user that runs the node read it" in caught.value.public
        assert not store.refresh()
        assert store.version == before
        assert "own.rule" in store.rules.rules
        with pytest.raises(Misconfigured):
            later.load(baseline())
    (folder / name).chmod(0o755)
    with unprivileged():
        assert store.refresh() is (close is _touched_and_closed)
        assert "own.rule" in store.rules.rules


def test_a_policies_folder_that_leads_nowhere_is_not_one_without_rules(tmp_path: Path) -> None:
    (tmp_path / "policies").symlink_to(tmp_path / "unmounted")
    with pytest.raises(Misconfigured) as caught:
        PolicyStore(tmp_path / "policies").load(baseline())
    assert caught.value.code == "policy.unreadable"


def test_a_folder_of_own_policies_may_be_missing(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "policies")
    store.load(baseline())
    assert store.version == shipped_rules().version
