"""The steward's commands on policy, consent and ontologies, on a node with a real roster."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from typer.testing import CliRunner

from connexon.analyses.count import Count
from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.conditions.where import parse
from connexon.errors import ConnexonError
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.keys import center_id
from connexon.query.purpose import parse_purpose
from connexon.query.signed import verify_query
from connexon.service import policy_files
from connexon_node import settings
from connexon_node.approvals import Desk
from connexon_node.audit import AuditLog, AuditRecord
from connexon_node.cli import app
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.delivery.inbox import Inbox
from connexon_node.folder import NodeFolder
from connexon_node.membership.accreditation import Accreditation, Accreditations
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.roster import RosterKeeper
from connexon_node.pipeline.delivery import Delivery, payload_sha256
from connexon_node.pipeline.values import Referral
from connexon_node.release.ledger import ReleaseLedger
from connexon_node.release.released_cohorts import Known
from connexon_node.settings import ApprovalsSection, HubSection
from connexon_node.state import open_state
from connexon_node.training.ledger import begin
from tests.support.federation import Federation, new_federation
from tests.support.rules import baseline
from tests.support.training import RECIPE

Run = Callable[..., Any]


@pytest.fixture
def federation() -> Federation:
    made = new_federation()
    made.policy_files = baseline()
    return made


@pytest.fixture
def folder(tmp_path: Path, federation: Federation) -> NodeFolder:
    folder = NodeFolder(tmp_path / "node")
    folder.make()
    NodeKeys.load_or_make(folder)
    fingerprint = federation.root_fingerprint
    hub = HubSection(
        federation=federation.name,
        center="kyoto",
        link_address="hub.example.org:7702",
        public_address="hub.example.org:7701",
        root_fingerprint=fingerprint.hex(),
    )
    folder.settings_file.write_text(settings.template(hub))
    database = open_state(folder.default_state_url)
    RosterKeeper(database, root_fingerprint=fingerprint, federation=federation.name).receive(federation.signed_roster())
    database.close()
    return folder


@pytest.fixture
def run(folder: NodeFolder, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CONNEXON_NODE_DIR", str(folder.root))

    def call(*arguments: str, fails: str = "") -> Any:
        """What the command prints, as JSON where it was asked for. `fails` is the code of the error expected."""
        result = CliRunner().invoke(app, list(arguments))
        if fails:
            assert isinstance(result.exception, ConnexonError), result.output
            assert result.exception.code == fails
            return result.exception.public
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return json.loads(result.stdout) if "--json" in arguments else result.output

    return call


def record(run: Run, donor: str, permission: str, *modifiers: str, on: str = "2026-03-01") -> Any:
    options = [part for modifier in modifiers for part in ("--modifier", modifier)]
    return run(
        *("consent", "record", donor, "--permission", permission, "--form-version", "v2", "--obtained-on", on),
        *options,
        "--json",
    )


def test_a_consent_is_recorded_shown_withdrawn_and_remembered(run: Run) -> None:
    recorded = record(run, "D1", "DUO:0000042", "DUO:0000025=12")
    assert recorded["status"] == "in_force"
    assert recorded["modifiers"] == [{"term": "DUO:0000025", "value": "12"}]
    assert run("consent", "show", "D1", "--json") == recorded
    assert "withdrawn" in run("consent", "withdraw", "D1", "--because", "letter of 3 March", "--by", "Ms Ito")
    shown = run("consent", "show", "D1", "--json")
    assert (shown["status"], shown["in_force"]) == ("withdrawn", False)
    events = run("consent", "history", "D1", "--json")["events"]
    assert [(event["event"], event["by"], event["because"]) for event in events][1:] == [
        ("withdrawn", "Ms Ito", "letter of 3 March")
    ]
    assert "letter of 3 March" in run("consent", "history", "D1")


def test_a_consent_is_amended(run: Run) -> None:
    record(run, "D1", "DUO:0000042")
    amended = run(
        *("consent", "amend", "D1", "--permission", "DUO:0000006", "--form-version", "v2"),
        *("--because", "typing error", "--json"),
    )
    assert (amended["permission"], amended["status"]) == ("DUO:0000006", "in_force")


def test_a_consent_is_not_amended_without_a_reason(run: Run) -> None:
    before = record(run, "D1", "DUO:0000042")
    form = ("--permission", "DUO:0000006", "--form-version", "v2")
    assert "--because" in run("consent", "amend", "D1", *form, "--because", " ", fails="consent.because")
    assert run("consent", "show", "D1", "--json") == before


def test_a_consent_is_given_an_end_that_is_yet_to_come_and_keeps_it(run: Run) -> None:
    form = ("--permission", "DUO:0000042", "--form-version", "v2", "--json")
    recorded = run("consent", "record", "D1", *form, "--obtained-on", "2026-03-01", "--expires-on", "2199-01-01")
    assert (recorded["status"], recorded["expires_on"]) == ("in_force", "2199-01-01")
    amended = run("consent", "amend", "D1", *form, "--because", "typing error")
    assert (amended["status"], amended["expires_on"]) == ("in_force", "2199-01-01")
    endless = run("consent", "amend", "D1", *form, "--because", "it has none", "--expires-on", "never")
    assert (endless["status"], endless["expires_on"]) == ("in_force", None)


def test_a_disease_that_the_centers_ontologies_do_not_know_is_not_recorded(run: Run) -> None:
    record(run, "D1", "DUO:0000007=MONDO:9999999")  # without an ontology nobody can say
    run("ontology", "add", "--demo")
    form = ("--form-version", "v2", "--obtained-on", "2026-03-01")
    said = run(
        *("consent", "record", "D2", "--permission", "DUO:0000007=MONDO:9999999", *form), fails="ontology.unknown_term"
    )
    assert "MONDO:9999999" in said
    assert record(run, "D2", "DUO:0000007=MONDO:0005180")["status"] == "in_force"


def test_profiles_are_listed_with_their_donors(run: Run) -> None:
    for donor, permission in (("D1", "DUO:0000042"), ("D2", "DUO:0000042"), ("D3", "DUO:0000006")):
        record(run, donor, permission)
    listed = run("consent", "profiles", "--json")
    assert [(one["permission"], one["donors"]) for one in listed["profiles"]] == [
        ("DUO:0000042", 2),
        ("DUO:0000006", 1),
    ]
    assert listed["donors"] == {"in_force": 3}
    assert "general research" in run("consent", "profiles")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("consent", "show", "nobody"), "consent.unknown_donor"),
        (("consent", "withdraw", "nobody"), "consent.unknown_donor"),
        (
            ("consent", "record", "D", "--permission", "GRU", "--form-version", "1", "--obtained-on", "2026-01-01"),
            "consent.unknown_permission",
        ),
        (
            ("consent", "record", "D", "--permission", "DUO:0000042", "--form-version", "1", "--obtained-on", "soon"),
            "consent.bad_date",
        ),
        (
            (
                "consent",
                "record",
                "D",
                "--permission",
                "DUO:0000042",
                "--form-version",
                "1",
                "--obtained-on",
                "2999-01-01",
            ),
            "consent.date_in_future",
        ),
        (("consent", "who-may", "--profile", "7"), "consent.no_profile"),
        (("ontology", "add"), "ontology.nothing_to_add"),
        (("ontology", "add", "missing.obo"), "ontology.no_file"),
        (("ontology", "term", "MONDO:0005180"), "ontology.unknown_term"),
        (("policy", "show", "no.such.rule"), "policy.unknown_rule"),
        (("policy", "switch", "nothing", "on"), "policy.switches"),
        (("policy", "explain", "--do", "steal"), "policy.action"),
        (("policy", "explain", "--researcher", "mars/ada"), "policy.unknown_center"),
        (("policy", "explain", "--query", "unheard-of"), "query.unknown"),
        (("policy", "explain", "--grant", "atlas@2026-13-01"), "accreditation.bad_grant"),
        (("policy", "check", "--policies", "nowhere"), "policy.incomplete"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(run: Run, arguments: tuple[str, ...], code: str) -> None:
    assert run(*arguments, fails=code).endswith((".", ")"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "{node}", "lot", "{file}"),
        ("map", "{file}", "--dataset", "lot"),
        ("dictionary", "lot"),
        ("release", "try", "--dataset", "lot"),
        ("policy", "explain", "--dataset", "lot"),
    ],
)
def test_a_dataset_that_does_not_exist_is_answered_with_the_one_that_was_meant(
    run: Run, folder: NodeFolder, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    file = tmp_path / "lots.csv"
    file.write_text("id,cell_line_id\n")
    places = {"{node}": str(folder.root), "{file}": str(file)}
    said = run(*(places.get(one, one) for one in arguments), fails="dataset.unknown")
    assert "Did you mean lots" in said
    assert "connexon-node dictionary" in said


@pytest.mark.parametrize("donor", ["John Smith", "1970-01-31", "D 1 ", "", "née", "D" * 65])
def test_no_consent_is_recorded_for_an_id_that_no_file_could_bring(run: Run, donor: str) -> None:
    form = ("--permission", "DUO:0000042", "--form-version", "1", "--obtained-on", "2026-03-01")
    run("consent", "record", donor, *form, fails="consent.donor_id")


def test_purposes_that_come_to_the_same_are_told_together(run: Run) -> None:
    record(run, "D1", "DUO:0000006")
    told = run("consent", "who-may", "D1")
    assert "\nhealth, methods, genetic, drug-development\n" in told
    assert told.index("permit") < told.index("deny")


def test_the_audit_list_tells_who_asked_what_and_what_became_of_it(run: Run, folder: NodeFolder) -> None:
    database = open_state(folder.default_state_url)
    record = replace(
        _audited("1f3a5b7c-4d0c-4a4e-9d39-0123456789ab", bytes(32)),
        status="awaiting_steward",
        code="consent.refer",
        rule="consent.refer.control",
    )
    catalog = replace(record, dataset="", analysis="describe", status="released", code="", rule="")
    with database.writing() as connection:
        for one in (record, catalog, replace(catalog, researcher="", purpose="", analysis="")):
            AuditLog(database).append(connection, one)
    database.close()
    shown = [line.split()[0] for line in run("audit", "show", "1").splitlines()[1:]]
    assert shown[:5] == ["researcher", "purpose", "status", "code", "rule"]
    told = run("audit", "list").splitlines()
    assert told[0].startswith("1 1f3a5b7c ")
    assert told[0].endswith(" awaiting steward (consent.refer.control)")
    assert [line.strip() for line in told[1::2]] == [
        "lyon/ada: count lots, for health",
        "lyon/ada: describe the catalog, for health",
        "not proved: what cannot be read",
    ]


def test_datasets_and_what_waits_are_completed(
    run: Run, folder: NodeFolder, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = federation.researcher("lyon", "ada")
    question = asker.question(["kyoto"], purpose=parse_purpose("control"))
    database = open_state(folder.default_state_url)
    with database.writing() as connection:
        reason = Referral("consent.refer.control", "The steward must agree.", frozenset())
        asked = verify_query(asker.sign(question), federation.roster(), NOTHING_REVOKED)
        Desk(database, DICTIONARY, ApprovalsSection()).put_before(connection, asked, (reason,))
    database.close()

    def completed(*words: str) -> list[str]:
        monkeypatch.setenv("_CONNEXON_NODE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("connexon-node", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        return CliRunner().invoke(app, [], prog_name="connexon-node").output.split()

    assert completed("dictionary", "lot") == ["lots"]
    assert completed("policy", "explain", "--dataset", "cell_l") == ["cell_lines"]
    assert completed("approve", question.query_id[:4]) == [question.query_id]
    assert completed("approve", "--dir", "elsewhere", question.query_id[:4]) == []


def test_who_may_tells_apart_universities_companies_and_products(run: Run) -> None:
    run("ontology", "add", "--demo")
    record(run, "D1", "DUO:0000007=MONDO:0005180", "DUO:0000046")
    told = run("consent", "who-may", "D1", "--json")
    lines = {line["purpose"]: line for line in told["purposes"]}
    assert list(lines["disease=MONDO:0005180"]["verdicts"].values()) == ["permit", "permit", "deny"]
    assert set(lines["ancestry"]["verdicts"].values()) == {"deny"}
    assert "non-commercial" in lines["disease=MONDO:0005180"]["because"][0]
    assert "a company, for a product" in run("consent", "who-may", "--profile", "1")


def test_who_may_tells_whom_a_grant_for_the_named_project_lets_count(run: Run) -> None:
    record(run, "D1", "DUO:0000042", "DUO:0000027=atlas")

    def health(*options: str) -> tuple[set[str], list[str]]:
        told = run("consent", "who-may", "D1", "--project", "atlas", *options, "--json")
        (line,) = (line for line in told["purposes"] if line["purpose"] == "health")
        return set(line["verdicts"].values()), line["because"]

    verdicts, because = health()
    assert verdicts == {"deny"}
    assert "no grant proves it" in because[0]
    assert health("--grant", "atlas@2026-01-15") == ({"permit"}, [])


def test_check_passes_as_shipped_and_runs_own_cases(run: Run, folder: NodeFolder) -> None:
    report = run("policy", "check", "--json")
    assert report["ok"]
    assert len(report["cases"]) > 100
    (folder.policies / "own.cedar").write_text(
        '@id("own.no_commerce")\n@says("Nothing here serves commerce.")\n'
        'forbid (principal, action == Action::"use", resource) when { context.purpose.commercial };\n'
    )
    cases = folder.policies / "cases"
    cases.mkdir()
    (cases / "own.yaml").write_text(
        "- case: Commerce is not served\n  purpose: health\n  commercial: true\n  consent: DUO:0000042\n"
        "  verdict: deny\n  rule: own.no_commerce\n"
    )
    unformatted = run("policy", "check", "--json")
    assert unformatted["unformatted"] == ["own.cedar"]
    assert not unformatted["ok"]
    formatted = run("policy", "check", "--format", "--json")
    assert formatted["ok"]
    assert formatted["cases"][-1]["case"] == "Commerce is not served"
    (cases / "own.yaml").write_text(
        "- case: Commerce is served\n  commercial: true\n  consent: DUO:0000042\n  verdict: permit\n"
    )
    assert "the verdict is deny (own.no_commerce), not permit" in run("policy", "check")


def test_check_needs_no_node(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONNEXON_NODE_DIR")
    assert run("policy", "check", "--policies", str(policy_files.shipped()), "--json")["ok"]


def test_show_lists_the_rules_and_prints_one(run: Run) -> None:
    listed = run("policy", "show", "--json")
    assert {"consent.time_limit", "access.count.personal"} <= {rule["id"] for rule in listed["rules"]}
    assert "time_limit_months" in run("policy", "show", "consent.time_limit")
    assert "forbid" in run("policy", "show")


def test_a_switch_is_turned_and_counts(run: Run) -> None:
    record(run, "D1", "DUO:0000042", "DUO:0000046")
    ask = ("policy", "explain", "--organisation", "commercial", "--json")
    assert run(*ask)["consent"]["donors_in"] == 1
    assert run("policy", "switch", "non-commercial-excludes-companies", "on", "--json")["switches"] == {
        "non-commercial-excludes-companies": True
    }
    explained = run(*ask)["consent"]
    assert (explained["donors_in"], explained["reasons"][0]["rule"]) == (0, "consent.non_commercial.companies")
    run("policy", "switch", "non-commercial-excludes-companies", "off")
    assert run(*ask)["consent"]["donors_in"] == 1


def test_explain_counts_donors_in_and_out_by_reason(run: Run) -> None:
    for number in range(3):
        record(run, f"general{number}", "DUO:0000042")
    record(run, "non-profit", "DUO:0000042", "DUO:0000045")
    record(run, "ancestry", "DUO:0000011")
    record(run, "gone", "DUO:0000042")
    run("consent", "withdraw", "gone")
    told = run("policy", "explain", "--organisation", "commercial", "--json")
    assert told["access"]["rules"] == ["access.count.personal"]
    consent = told["consent"]
    assert (consent["donors"], consent["donors_in"], consent["donors_out"]) == (6, 3, 3)
    assert consent["donors_without_consent_in_force"] == {"withdrawn": 1}
    by_rule = {reason["rule"]: reason["donors"] for reason in consent["reasons"] if reason["rule"]}
    assert by_rule == {"consent.general_research": 3, "consent.non_profit_organisation": 1}
    default, gone = (reason for reason in consent["reasons"] if not reason["rule"])
    assert "a purpose that is ancestry research and nothing else" in default["says"]
    assert (gone["says"], gone["profiles"], gone["donors"]) == ("The donor withdrew.", [], 1)
    assert "Consent: of 6 donors, 3 in, 3 out" in run("policy", "explain", "--organisation", "commercial")


def test_duties_are_listed_exactly_stated_for_all_and_shown_where_answers_do_not_tell_them(run: Run) -> None:
    for number in range(4):
        record(run, f"publishing{number}", "DUO:0000042", "DUO:0000019")
    record(run, "moratorium", "DUO:0000042", "DUO:0000024=2999-07-01")
    record(run, "gone", "DUO:0000042", "DUO:0000029")
    run("consent", "withdraw", "gone")
    run("consent", "duties", "--tell", "DUO:0000019", fails="consent.duty_of_few")
    record(run, "publishing4", "DUO:0000042", "DUO:0000019")
    run("consent", "duties", "--tell", "DUO:0000024=2999-07-01", fails="consent.duty_of_few")
    run("consent", "duties", "--tell", "DUO:0000029", fails="consent.duty_unknown")
    told = run("consent", "duties", "--tell", "DUO:0000019", "--by", "kim", "--json")
    found = {one["duty"]: (one["donors"], one["stated"]) for one in told["duties"]}
    assert found == {"DUO:0000019": (5, True), "DUO:0000024=2999-07-01": (1, False)}
    assert [(one["duty"], one["donors_then"], one["by"]) for one in told["stated"]] == [("DUO:0000019", 5, "kim")]

    explained = run("policy", "explain", "--json")["consent"]["obligations"]
    assert {one["term"]: (one["donors"], one["stated"]) for one in explained} == {
        "DUO:0000019": (5, True),
        "DUO:0000024": (1, False),
    }
    printed = run("policy", "explain")
    assert printed.count("Answers do not tell it") == 1
    run("consent", "duties", "--stop-telling", "DUO:0000019")
    assert run("policy", "explain").count("Answers do not tell it") == 2


def test_explain_puts_every_donor_into_one_part_of_the_whole(run: Run) -> None:
    record(run, "general", "DUO:0000042")
    record(run, "disease", "DUO:0000007=MONDO:0005180")
    record(run, "gone", "DUO:0000042")
    run("consent", "withdraw", "gone")
    form = ("--permission", "DUO:0000042", "--form-version", "v2", "--obtained-on", "2026-03-01")
    run("consent", "record", "over", *form, "--expires-on", "2026-04-01")
    consent = run("policy", "explain", "--purpose", "health,control", "--json")["consent"]
    parts = (consent["donors_in"], consent["donors_referred"], consent["donors_out"])
    assert (consent["donors"], parts) == (4, (0, 1, 3))
    assert sum(reason["donors"] for reason in consent["reasons"]) == 4
    told = run("policy", "explain", "--purpose", "health,control")
    assert "of 4 donors, 0 in, 1 only if you agree, 3 out" in told


def test_explain_says_what_a_denied_access_lacked(run: Run) -> None:
    told = run("policy", "explain", "--do", "identify", "--dataset", "donors", "--json")
    assert told["access"]["verdict"] == "deny"
    assert "Nobody is counted, whatever the consents say." in run("policy", "explain", "--do", "identify")
    needs = told["access"]["lacking"][0]["needs"]
    assert "the researcher status bona-fide" in needs
    granted = run(
        *("policy", "explain", "--do", "identify", "--status", "bona-fide", "--grant", "donors@2026-01-15"),
        *("--ethics-approval", "EC 1", "--json"),
    )
    assert granted["access"]["verdict"] == "permit"


def test_explain_takes_a_query_that_was_received(run: Run, folder: NodeFolder, federation: Federation) -> None:
    record(run, "D1", "DUO:0000042", "DUO:0000045")
    asker = federation.researcher("lyon", "ada")
    question = asker.question(["kyoto"], dataset="lots", purpose=parse_purpose("genetic", project="atlas"))
    database = open_state(folder.default_state_url)
    Inbox(database).receive(
        Delivery.arrived(question.query_id, asker.sign(question).SerializeToString()), researcher="lyon/ada"
    )
    database.close()
    told = run("policy", "explain", "--query", question.query_id, "--json")
    assert told["request"] == {"researcher": "lyon/ada", "action": "count", "dataset": "lots", "purpose": "genetic"}
    assert told["access"]["rules"] == ["access.count.public"]
    assert told["consent"]["donors_in"] == 1


def test_a_received_query_is_named_by_its_number_its_id_or_the_start_of_it(
    run: Run, folder: NodeFolder, federation: Federation
) -> None:
    record(run, "D1", "DUO:0000042")
    asker = federation.researcher("lyon", "ada")
    NodeKeys.load_or_make(folder)
    by_status, research = Count(("status",)), parse("cell_line.grade = 'research'")
    questions = [
        asker.question(["kyoto"], by_status, query_id=query_id, dataset="lots", where=research)
        for query_id in ("1f3a5b7c-4d0c-4a4e-9d39-0123456789ab", "1f3a5bff-4d0c-4a4e-9d39-0123456789ab")
    ]
    database = open_state(folder.default_state_url)
    log = AuditLog(database)
    for question in questions:
        body = asker.sign(question).SerializeToString()
        Inbox(database).receive(Delivery.arrived(question.query_id, body), researcher="lyon/ada")
        with database.writing() as connection:
            log.append(connection, _audited(question.query_id, payload_sha256(body) or b""))
    with database.writing() as connection:
        log.append(connection, _audited("abcdef12-4d0c-4a4e-9d39-0123456789ab", bytes(32)))
    database.close()

    assert "1f3a5b7c" in run("audit", "list")
    words = "count donors of lots by status where cell_line.grade = 'research', with noise"
    for named in ("1", "1f3a5b7c", questions[0].query_id):
        (entry,) = run("audit", "show", named, "--json")["entries"]
        assert (entry["sequence"], entry["question"]) == (1, words)
        assert words in run("audit", "show", named)
        assert run("policy", "explain", "--query", named, "--json")["request"]["dataset"] == "lots"
        run("release", "try", named, fails="dataset.not_offered")
    assert "give more" in run("audit", "show", "1f3a5b", fails="audit.ambiguous")
    run("audit", "show", "1f3a", fails="audit.no_record")
    assert run("audit", "show", "abcdef12", "--json")["entries"][0]["question"] is None
    assert "keep_days" in run("policy", "explain", "--query", "abcdef12", fails="query.not_kept")


def test_a_runs_whole_id_can_be_read_in_eighty_columns_and_its_start_names_it(
    run: Run, folder: NodeFolder, federation: Federation
) -> None:
    asker = federation.researcher("lyon", "ada")
    question = asker.question(["kyoto"], Train(RECIPE), dataset="lots")
    database = open_state(folder.default_state_url)
    with database.writing() as connection:
        begin(connection, verify_query(asker.sign(question), federation.roster(), NOTHING_REVOKED), b"")
    database.close()
    first, what, _ = run("training", "list").splitlines()
    assert first == f"{question.query_id} running, 0 of {RECIPE.rounds} rounds"
    assert what.startswith(f"  lyon/ada: {RECIPE.name} on lots, 0 donors, for ")
    assert question.query_id in run("training", "stop", question.query_id[:8], "--because", "enough")
    run("training", "stop", question.query_id[:8], "--because", "again", fails="training.stopped")
    run("training", "stop", question.query_id[:8], "--because", " ", fails="training.because")


def test_a_limit_is_for_a_researcher_who_is_known(run: Run, folder: NodeFolder) -> None:
    def limit(researcher: str, *more: str, fails: str = "") -> Any:
        return run(
            *("budget", "limit", researcher, "--rho", "0.3", "--because", "a pilot", *more),
            fails=fails,
        )

    database = open_state(folder.default_state_url)
    with database.writing() as connection:
        AuditLog(database).append(connection, _audited("abcdef12-4d0c-4a4e-9d39-0123456789ab", bytes(32)))
    grace = Accreditation("1", "grace", "Grace Hopper", "researcher", "ab", 0, 0)
    Accreditations(database).record(grace, home=center_id("kyoto"))
    database.close()
    assert "--yes" in limit("lyon/adda", fails="budget.unknown_researcher")
    assert "kyoto/grace" in limit("kyoto/grase", fails="budget.unknown_researcher")
    assert run("budget", "list", "--json")["researchers"] == []
    for researcher, more in (("lyon/ada", ()), ("kyoto/grace", ()), ("lyon/adda", ("--yes",))):
        assert limit(researcher, "--json", *more)["budget"]["limit"] == 0.3


def test_status_shows_a_training_run_in_one_line_and_the_answers_beside_it(run: Run, folder: NodeFolder) -> None:
    database = open_state(folder.default_state_url)
    log, trained = AuditLog(database), "abcdef12-4d0c-4a4e-9d39-0123456789ab"
    with database.writing() as connection:
        log.append(connection, _audited("1f3a5b7c-4d0c-4a4e-9d39-0123456789ab", bytes(32)))
        for action in ("summary", *("train",) * 14):
            log.append(connection, replace(_audited(trained, bytes(32)), analysis=action))
    database.close()
    shown = run("status", "--json")["latest"]
    assert [(one["query_id"][:8], one["replies"]) for one in shown] == [("abcdef12", 15), ("1f3a5b7c", 1)]
    assert "abcdef12 released, 15 replies to a training run" in run("status")


def _audited(query_id: str, sha256: bytes) -> AuditRecord:
    return AuditRecord(
        at_ms=now_ms(),
        query_id=query_id,
        query_sha256=sha256,
        researcher="lyon/ada",
        purpose="health",
        dataset="lots",
        analysis="count",
        status="released",
        code="",
        rule="",
        policy_version="",
        duration_ms=1,
        result_sha256=bytes(32),
    )


def test_ontologies_are_added_listed_and_looked_up(run: Run, tmp_path: Path) -> None:
    assert "--demo" in run("ontology", "list")
    assert run("ontology", "add", "--demo", "--json")["versions"]["MONDO"] == "connexon-demo-1"
    assert run("ontology", "term", "MONDO:0008199", "--json")["is_a"][-1] == "MONDO:0021095"
    own = tmp_path / "own.obo"
    own.write_text("data-version: 7\n[Term]\nid: OWN:1\nname: ours\n")
    assert run("ontology", "add", str(own), "--json")["versions"]["OWN"] == "7"
    assert "nervous system disorder" in run("ontology", "term", "MONDO:0005180")


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("garbage.toml", "a = 1\n", "ontology.unknown_format"),
        ("empty.obo", "format-version: 1.2\n", "ontology.empty"),
        ("empty.tsv", "subject\tsubject_label\tparent\tparent_label\n", "ontology.empty"),
    ],
)
def test_a_file_that_is_no_ontology_is_refused_and_not_copied(
    run: Run, folder: NodeFolder, tmp_path: Path, name: str, text: str, code: str
) -> None:
    (tmp_path / name).write_text(text)
    assert name in run("ontology", "add", str(tmp_path / name), "--demo", fails=code)
    assert run("ontology", "list", "--json")["files"] == []
    assert list(folder.ontologies.glob("*.*")) == []


FLAGS = {
    "donor_id": "UKK-1",
    "donor_consent": "yes",
    "no_pressure_statement": "yes",
    "no_inducement_statement": "yes",
    "consent_pertains_specific_research_project": "no",
    "consent_permits_future_research": "yes",
    "future_research_permitted_areas": "MONDO:0005180",
    "consent_permits_clinical_treatment": "no",
    "consent_permits_research_by_academic_institution": "yes",
    "consent_permits_research_by_org": "yes",
    "consent_permits_research_by_non_profit_company": "yes",
    "consent_permits_research_by_for_profit_company": "yes",
    "consent_permits_development_of_commercial_products": "no",
    "consent_prevents_availability_to_worldwide_research": "no",
    "consent_permits_genetic_testing": "yes",
    "further_constraints_on_use": "no",
    "consent_permits_stop_of_derived_material_use": "yes",
}


def test_flags_become_drafts_that_count_only_when_confirmed(run: Run, tmp_path: Path) -> None:
    flags, drafts = tmp_path / "hpscreg.csv", tmp_path / "drafts.csv"
    with flags.open("w", newline="") as opened:
        rows = csv.DictWriter(opened, FLAGS)
        rows.writeheader()
        rows.writerow(FLAGS)
        rows.writerow({**FLAGS, "donor_id": "UKK-2", "further_constraints_on_use": "unknown"})
    told = run("consent", "draft", str(flags), "--out", str(drafts), "--country", "DE", "--json")
    assert (told["drafts"], told["permit_nothing"]) == (2, 1)
    assert run("consent", "confirm", str(drafts), "--json") == {
        "recorded": 0,
        "changed": 0,
        "waiting": 2,
        "contradicted": [],
    }
    with drafts.open(newline="") as opened:
        written = list(csv.DictReader(opened))
    written[0] |= {"confirmed_by": "Ms Ito", "form_version": "v1", "obtained_on": "2015-05-05"}
    with drafts.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, written[0])
        writer.writeheader()
        writer.writerows(written)
    assert run("consent", "confirm", str(drafts), "--json")["recorded"] == 1
    confirmed = drafts.read_text()
    again = ("consent", "draft", str(flags), "--out", str(drafts), "--country", "DE")
    assert "is there already" in run(*again, fails="consent.drafts_exist")
    assert drafts.read_text() == confirmed
    shown = run("consent", "show", "UKK-1", "--json")
    assert (shown["permission"], shown["diseases"]) == ("DUO:0000007", ["MONDO:0005180"])
    assert [one["term"] for one in shown["modifiers"]] == ["DUO:0000046"]
    assert run("consent", "history", "UKK-1", "--json")["events"][0]["by"] == "Ms Ito"
    run("consent", "show", "UKK-2", fails="consent.unknown_donor")


def test_replay_names_the_rule_before_and_after_and_refuses_rules_that_are_not_right(run: Run, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    run("policy", "replay", "--since", "2026-01-01", "--with", str(changed), fails="policy.no_folder")
    changed.mkdir()
    found = run("policy", "replay", "--since", "2026-01-01", "--with", str(changed), "--json")
    assert (found["judged"], found["unjudged"], found["changes"]) == (0, 0, [])
    (changed / "own.cedar").write_text("forbid (")
    assert "own.cedar line 1" in run(
        "policy", "replay", "--since", "2026-01-01", "--with", str(changed), fails="policy.syntax"
    )


def test_impact_tells_the_releases_that_counted_a_donor_and_no_others(run: Run, folder: NodeFolder) -> None:
    run("consent", "record", "D1", "--permission", "DUO:0000042", "--form-version", "1", "--obtained-on", "2026-03-01")
    run("consent", "record", "D2", "--permission", "DUO:0000042", "--form-version", "1", "--obtained-on", "2026-03-01")
    database = open_state(folder.default_state_url)
    ledger = ReleaseLedger(database, 1)
    with database.writing() as connection:
        for query_id, donors in (("both", [1, 2]), ("second", [2])):
            (counted,) = ledger.counted([numpy.array(donors, dtype=numpy.int32)], [len(donors)])
            known = Known(counted.bitmap, len(donors), len(donors), len(donors), counted.sketch)
            ledger.write(connection, "donors", query_id, [known])
    database.close()
    found = run("consent", "impact", "D1", "--json")
    assert [(one["dataset"], one["query_id"]) for one in found["releases"]] == [("donors", "both")]
    assert len(run("consent", "impact", "D2", "--json")["releases"]) == 2
    assert "Counted in 1 release." in run("consent", "impact", "D1")
