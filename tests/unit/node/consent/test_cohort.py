"""From a signed question to the cohort it may count: access, consent, obligations, and what changes them."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.spec import Analysis
from connexon.clock import DAY, now_ms
from connexon.conditions.filters import All, Any, Filter, Has, Not, Under
from connexon.errors import Conflict, InvalidQuery, NotFound, Refused
from connexon.identity.credential import NOTHING_REVOKED, Grant
from connexon.identity.roster import OrganisationKind
from connexon.query import signed
from connexon.query.purpose import parse_purpose
from connexon.query.question import Question
from connexon_node.consent.cohort import NOBODY, CedarConsent
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.obligations import FURTHER, CarriedDuty, Duty
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.consent.stated import StatedDuties
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.ontology import DEMO, Ontologies
from connexon_node.pipeline.values import Cohort, ConsentMoved, Permit, Referral, Referred, SaidYes
from connexon_node.policy.access import CedarAccess
from connexon_node.policy.store import PolicyStore
from connexon_node.state import open_state
from tests.support.federation import Center, Federation, new_federation
from tests.support.rules import baseline

MARCH, APRIL = datetime.date(2026, 3, 1), datetime.date(2026, 4, 1)
PROFILES = {
    "general": ConsentProfile.parse("DUO:0000042"),
    "health": ConsentProfile.parse("DUO:0000006", ["DUO:0000019"]),
    "parkinson": ConsentProfile.parse("DUO:0000007=MONDO:0005180"),
    "ancestry": ConsentProfile.parse("DUO:0000011"),
    "non-profit": ConsentProfile.parse("DUO:0000042", ["DUO:0000045"]),
    "collaboration": ConsentProfile.parse("DUO:0000042", ["DUO:0000020"]),
    "unknown": ConsentProfile.parse(""),
}


@dataclass
class Node:
    """The rooms of policy and consent, with one donor for each profile."""

    folder: Path
    federation: Federation
    ledger: Ledger
    policies: PolicyStore
    access: CedarAccess
    consent: CedarConsent
    numbers: dict[str, int]

    def permit(
        self,
        purpose: str,
        *,
        analysis: Analysis | None = None,
        dataset: str = "donors",
        center: str = "lyon",
        role: str = "researcher",
        grants: tuple[Grant, ...] = (),
        commercial: bool = False,
        project: str = "",
        where: Filter | None = None,
    ) -> Permit:
        asker = self.federation.researcher(center, role=role, grants=grants)
        question = asker.question(
            ["kyoto"],
            analysis or Count(),
            dataset=dataset,
            where=where,
            purpose=parse_purpose(purpose, commercial_use=commercial, project=project),
        )
        verified = signed.verify_query(asker.sign(question), self.federation.roster(), NOTHING_REVOKED)
        return self.access.authorise(verified)

    @property
    def number_names(self) -> dict[int, str]:
        return {number: name for name, number in self.numbers.items()}

    def names(self, cohort: Cohort) -> set[str]:
        return {name for name, number in self.numbers.items() if number in cohort.profiles}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    database = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    ledger = Ledger(database)
    ledger.record_many(
        [ConsentRecord(name, profile, MARCH) for name, profile in PROFILES.items()], by="steward", source="file"
    )
    numbers = {name: ledger.standing(name).profile_number for name in PROFILES}
    policies = PolicyStore(tmp_path / "policies")
    policies.load(baseline())
    shutil.copytree(DEMO, tmp_path / "ontologies")
    federation = new_federation()
    federation.centers["pharma"] = Center.new("pharma", kind=OrganisationKind.COMMERCIAL)
    consent = CedarConsent(ledger, policies, Ontologies.open(tmp_path / "ontologies"))
    yield Node(tmp_path, federation, ledger, policies, CedarAccess(policies, DICTIONARY), consent, numbers)
    database.close()


def own_rule(node: Node, text: str) -> None:
    folder = node.folder / "policies"
    folder.mkdir(exist_ok=True)
    (folder / "own.cedar").write_text(text)


HIDE_DONORS = """@id("own.hidden")
@says("The donors of this center are not shown.")
forbid (principal, action == Action::"discover", resource) when { resource.name == "donors" };
"""


def test_health_research_counts_the_donors_who_agreed_to_it(node: Node) -> None:
    cohort = node.consent.cohort(node.permit("health"))
    assert node.names(cohort) == {"general", "health", "non-profit"}
    assert cohort.obligations == (FURTHER,)
    assert cohort.epoch == node.ledger.epoch()
    assert cohort.ontologies == {}


def test_a_disease_adds_the_donors_who_agreed_to_it_and_names_the_ontology(node: Node) -> None:
    cohort = node.consent.cohort(node.permit("disease=MONDO:0008199"))
    assert node.names(cohort) == {"general", "health", "non-profit", "parkinson"}
    assert cohort.ontologies == {"MONDO": "connexon-demo-1"}


def test_every_ontology_that_the_filter_uses_is_named(node: Node) -> None:
    of_lines = Has("cell_lines", Not(Under("source_cell_term", "CL:0000540")))
    where = All((of_lines, Has("lots"), Any((Under("ancestry_term", "HANCESTRO:0009"),))))
    cohort = node.consent.cohort(node.permit("health", dataset="donors", where=where))
    assert cohort.ontologies == {"CL": "connexon-demo-1", "HANCESTRO": "connexon-demo-1"}


def test_a_company_is_not_given_what_is_for_non_profit_organisations(node: Node) -> None:
    assert node.names(node.consent.cohort(node.permit("health", center="pharma"))) == {"general", "health"}


def test_the_kept_judgement_of_one_requester_is_not_given_to_another(node: Node) -> None:
    first = node.consent.cohort(node.permit("health"))
    other = node.consent.cohort(node.permit("health", center="pharma"))
    assert node.consent.cohort(node.permit("health")).profiles == first.profiles != other.profiles


def test_a_new_profile_is_judged_with_the_next_question(node: Node) -> None:
    before = node.consent.cohort(node.permit("health"))
    standing = node.ledger.record(
        ConsentRecord("new", ConsentProfile.parse("DUO:0000042", form_version="v2"), MARCH), by="steward"
    )
    after = node.consent.cohort(node.permit("health"))
    assert after.profiles - before.profiles == {standing.profile_number}
    assert after.epoch == before.epoch + 1


def test_a_withdrawal_moves_the_epoch_of_the_next_cohort(node: Node) -> None:
    before = node.consent.cohort(node.permit("health"))
    node.ledger.withdraw("general", by="steward", on=APRIL)
    assert node.consent.cohort(node.permit("health")).epoch == node.consent.epoch() == before.epoch + 1


def test_a_purpose_nobody_agreed_to_reaches_nobody_and_is_not_refused(node: Node) -> None:
    cohort = node.consent.cohort(node.permit("clinical-care"))
    assert (cohort.profiles, cohort.obligations) == (frozenset(), (FURTHER,))


def test_a_purpose_that_the_rules_forbid_to_everybody_is_refused_by_name(node: Node) -> None:
    own_rule(
        node,
        '@id("own.no_ancestry")\n@says("No donor of this center is studied for ancestry.")\n'
        'forbid (principal, action == Action::"use", resource)\n'
        'when { context.purpose.research.contains("ancestry") };\n',
    )
    assert node.consent.cohort(node.permit("health")).profiles
    with pytest.raises(Refused) as caught:
        node.consent.cohort(node.permit("ancestry"))
    assert (caught.value.code, caught.value.rule) == ("consent.not_covered", "own.no_ancestry")
    assert caught.value.public == "No donor of this center is studied for ancestry."


def test_a_purpose_that_the_rules_leave_to_the_steward_is_referred_whatever_the_consents_are(node: Node) -> None:
    with pytest.raises(Referred) as caught:
        node.consent.cohort(node.permit("sex"))
    assert (caught.value.code, caught.value.rule) == ("consent.refer", "consent.refer.sex")
    assert "steward must agree" in caught.value.public
    for name in PROFILES:
        node.ledger.withdraw(name, by="steward")
    with pytest.raises(Referred) as again:
        node.consent.cohort(node.permit("sex"))
    assert (again.value.public, again.value.rule) == (caught.value.public, caught.value.rule)


def test_the_reasons_of_single_consents_are_for_the_steward_alone(node: Node) -> None:
    with pytest.raises(Referred) as caught:
        node.consent.cohort(node.permit("control"))
    assert [one.rule for one in caught.value.referrals] == ["consent.refer.control", "consent.refer.collaboration"]
    assert "collaboration" not in caught.value.public


def test_a_reason_that_is_about_nobody_says_so_to_the_steward(node: Node) -> None:
    with pytest.raises(Referred) as caught:
        node.consent.cohort(node.permit("clinical-care,control"))
    assert [(one.rule, one.profiles) for one in caught.value.referrals] == [("consent.refer.control", NOBODY)]


def test_a_yes_beforehand_spares_the_wait_only_where_it_reads_no_consent(node: Node) -> None:
    rule = (
        '@id("own.controls")\n@says("The steward agrees to controls.")\n@needs("control{}")\n'
        'permit (principal, action == Action::"proceed", resource)\n'
        'when {{ context.purpose.research.contains("control") }}{};\n'
    )
    own_rule(node, rule.format(" | a consent without restriction", '\nwhen { resource.permission == "general" }'))
    with pytest.raises(Referred):
        node.consent.cohort(node.permit("control"))
    own_rule(node, rule.format("", ""))
    assert node.names(node.consent.cohort(node.permit("control"))) >= {"general"}


def test_a_disease_that_is_not_known_here_is_an_invalid_question(node: Node) -> None:
    with pytest.raises(InvalidQuery) as caught:
        node.consent.cohort(node.permit("disease=MONDO:9999999"))
    assert caught.value.code == "ontology.unknown_term"


def test_policies_that_change_between_permit_and_consent_are_judged_again(node: Node) -> None:
    permit = node.permit("health")
    own_rule(node, HIDE_DONORS)
    node.policies.refresh()
    with pytest.raises(ConsentMoved):
        node.consent.cohort(permit)


def test_a_permit_names_its_rule_and_the_policies_version(node: Node) -> None:
    permit = node.permit("health")
    assert (permit.rule, permit.policy_version) == ("access.count.personal", node.policies.version)


def test_a_denial_says_what_was_lacking(node: Node) -> None:
    with pytest.raises(Refused) as caught:
        node.permit("health", role="guest")
    assert caught.value.code == "policy.denied"
    assert "the role researcher" in caught.value.public


def test_a_dataset_that_may_not_be_seen_looks_like_one_that_is_not_there(node: Node) -> None:
    own_rule(node, HIDE_DONORS)
    with pytest.raises(NotFound) as hidden:
        node.permit("health", dataset="donors")
    with pytest.raises(NotFound) as absent:
        node.permit("health", dataset="dinosaurs")
    assert hidden.value.code == absent.value.code == "dataset.not_offered"
    assert hidden.value.public.replace("donors", "dinosaurs") == absent.value.public


def test_a_description_of_all_leaves_out_what_may_not_be_seen(node: Node) -> None:
    assert node.permit("health", analysis=Describe(), dataset="").withheld == frozenset()
    own_rule(node, HIDE_DONORS)
    assert node.permit("health", analysis=Describe(), dataset="").withheld == {"donors"}


def test_an_own_rule_forbids_and_is_named(node: Node) -> None:
    own_rule(
        node,
        '@id("own.no_commerce")\n@says("Nothing here serves commerce.")\n'
        'forbid (principal, action == Action::"count", resource) when { context.purpose.commercial };\n',
    )
    assert node.permit("health").rule == "access.count.personal"
    with pytest.raises(Refused) as caught:
        node.permit("health", commercial=True)
    assert (caught.value.rule, caught.value.public) == ("own.no_commerce", "Nothing here serves commerce.")


def test_a_broken_own_file_leaves_the_rules_that_were_in_force(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    own_rule(node, HIDE_DONORS)
    with pytest.raises(NotFound):
        node.permit("health")
    own_rule(node, "forbid (")
    with pytest.raises(NotFound):
        node.permit("health")
    assert "own.cedar line 1" in caplog.text


def grant(**changes: object) -> Grant:
    now = now_ms()
    values = {"type": "ControlledAccessGrants", "value": "atlas", "source": "lyon", "by": "dac"}
    return Grant(**{**values, "asserted_ms": now - 40 * DAY, "expires_ms": now + 40 * DAY, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("months", "given", "covered"),
    [
        (12, grant(), True),
        (1, grant(), False),
        (12, grant(source="kyoto"), False),
        (12, grant(value="another project"), False),
        (12, grant(type="AffiliationAndRole"), False),
        (12, grant(asserted_ms=now_ms() + 5 * DAY), False),
        (12, grant(expires_ms=now_ms() - DAY), False),
    ],
    ids=["in time", "over", "another center's word", "another project", "no grant", "from the future", "expired"],
)
def test_a_time_limit_counts_from_a_grant_that_holds(node: Node, months: int, given: Grant, covered: bool) -> None:
    limited = ConsentProfile.parse("DUO:0000042", [f"DUO:0000025={months}"])
    number = node.ledger.record(ConsentRecord("limited", limited, MARCH), by="steward").profile_number
    cohort = node.consent.cohort(node.permit("health", grants=(given,), project="atlas"))
    assert (number in cohort.profiles) is covered


def test_ten_thousand_kept_judgements_do_not_grow_without_end(node: Node) -> None:
    from connexon_node.consent import cohort as room

    for number in range(room.KEPT + 20):
        node.consent.cohort(node.permit("health", project=f"project {number}"))
    assert len(node.consent._judged) == room.KEPT


def test_consents_end_at_midnight_utc(node: Node) -> None:
    present = [_ms("2027-03-31T23:59:59.999")]
    consent = CedarConsent(node.ledger, node.policies, node.consent._ontologies, clock=lambda: present[0])
    ending = ConsentProfile.parse("DUO:0000042", form_version="ends")
    until_april = ConsentRecord("ending", ending, MARCH, expires_on=datetime.date(2027, 4, 1))
    number = node.ledger.record(until_april, by="steward").profile_number
    permit = node.permit("health")
    cohort = consent.cohort(permit)
    assert node.ledger.standing("ending").in_force
    assert number in cohort.profiles
    before = cohort.epoch

    present[0] += 1
    cohort = consent.cohort(permit)
    assert cohort.epoch == before + 1 == node.ledger.epoch()
    standing = node.ledger.standing("ending")
    assert (standing.in_force, standing.status.value, standing.profile_number) == (False, "expired", number)
    assert [event.kind for event in node.ledger.history("ending")] == ["recorded", "expired"]
    assert consent.cohort(permit).epoch == cohort.epoch


def test_a_time_limit_runs_out_at_midnight_utc(node: Node) -> None:
    given = grant(asserted_ms=_ms("2025-11-15T09:00"), expires_ms=_ms("2030-01-01T00:00"))
    present = [_ms("2025-12-14T23:59:59.999")]
    consent = CedarConsent(node.ledger, node.policies, node.consent._ontologies, clock=lambda: present[0])
    limited = ConsentProfile.parse("DUO:0000042", ["DUO:0000025=1"])
    number = node.ledger.record(ConsentRecord("limited", limited, MARCH), by="steward").profile_number
    permit = node.permit("health", grants=(given,), project="atlas")
    assert number in consent.cohort(permit).profiles
    present[0] += 1
    assert number not in consent.cohort(permit).profiles


class Yes:
    """A steward who has settled these rules."""

    def __init__(self, *rules: str, first: tuple[Referral, ...] = ()) -> None:
        self.rules = frozenset(rules)
        self.first = first

    def decides_on(self, question: Question) -> bool:
        return True

    def looks_first(self, permit: Permit) -> tuple[Referral, ...]:
        return self.first

    def require_not_refused(self, permit: Permit) -> None:
        return None

    def said_yes(self, permit: Permit, *, at_ms: int) -> SaidYes:
        return SaidYes(self.rules, ("a",) if self.rules else ())

    def put_before(self, *_: object) -> None:
        raise AssertionError("not the consent room's")

    def require_in_force(self, *_: object) -> None:
        raise AssertionError("not the consent room's")


def with_steward(node: Node, steward: Yes) -> CedarConsent:
    return CedarConsent(node.ledger, node.policies, node.consent._ontologies, steward)


def test_an_approval_settles_the_reasons_it_was_given_for_and_never_a_denial(node: Node) -> None:
    permit = node.permit("health,control")
    with pytest.raises(Referred) as caught:
        with_steward(node, Yes()).cohort(permit)
    assert [one.rule for one in caught.value.referrals] == ["consent.refer.control", "consent.refer.collaboration"]
    reasons = {one.rule: {node.number_names[number] for number in one.profiles} for one in caught.value.referrals}
    everybody = {"general", "health", "non-profit", "collaboration"}
    assert reasons == {"consent.refer.control": everybody, "consent.refer.collaboration": {"collaboration"}}

    cohort = with_steward(node, Yes("consent.refer.control")).cohort(permit)
    assert node.names(cohort) == everybody - {"collaboration"}
    assert cohort.approvals == ("a",)
    assert cohort.obligations == (FURTHER,)
    both = with_steward(node, Yes("consent.refer.control", "consent.refer.collaboration")).cohort(permit)
    assert node.names(both) == everybody
    assert both.obligations == (FURTHER,)


def test_where_some_permit_and_others_refer_those_that_permit_are_counted(node: Node) -> None:
    assert "collaboration" not in node.names(with_steward(node, Yes()).cohort(node.permit("health")))
    wider = with_steward(node, Yes("consent.refer.collaboration")).cohort(node.permit("health"))
    assert node.names(wider) == {"general", "health", "non-profit", "collaboration"}


def test_a_consent_that_is_over_when_it_comes_between_two_judgements_is_not_counted(node: Node) -> None:
    permit = node.permit("health,control")
    over = ConsentRecord("late", PROFILES["general"], MARCH, expires_on=APRIL)

    class Slow(Yes):
        def said_yes(self, permit: Permit, *, at_ms: int) -> SaidYes:
            node.ledger.record(over, by="import")
            return super().said_yes(permit, at_ms=at_ms)

    cohort = with_steward(node, Slow("consent.refer.control")).cohort(permit)
    assert cohort.epoch == node.ledger.epoch()
    assert not node.ledger.standing("late").in_force


def test_what_the_steward_looks_at_first_waits_although_every_donor_agreed(node: Node) -> None:
    first = Referral("steward.restricted_dataset", "Restricted.")
    with pytest.raises(Referred) as caught:
        with_steward(node, Yes(first=(first,))).cohort(node.permit("health"))
    assert caught.value.referrals[0] == first
    cohort = with_steward(node, Yes(first.rule, first=(first,))).cohort(node.permit("health"))
    assert node.names(cohort) == {"general", "health", "non-profit"}


def _ms(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp() * 1000)


def stated(node: Node, *duties: str, clock: int | None = None) -> CedarConsent:
    """The consent step of a center that states these duties of its donors."""
    statements = StatedDuties(node.ledger._database)
    for text in duties:
        known = CarriedDuty("rule", Duty.parse(text), "", 5)
        statements.state(Duty.parse(text), (known,), minimum=5, by="steward")
    ontologies = node.consent._ontologies
    return CedarConsent(node.ledger, node.policies, ontologies, None, statements, clock=lambda: clock or now_ms())


def test_what_the_center_states_comes_with_every_answer_about_persons(node: Node) -> None:
    consent = stated(node, "DUO:0000019", "DUO:0000024=2999-07-01", "DUO:0000020=Dr Mori")
    told = {one.term: one.message for one in consent.cohort(node.permit("health")).obligations}
    assert told == {
        "DUO:0000019": "Make the results available to the scientific community.",
        "DUO:0000020": "Collaborate with the center's investigators. Named by the consents: Dr Mori.",
        "DUO:0000024": "Do not publish results before the moratorium ends. It ends on 2999-07-01.",
        FURTHER.term: FURTHER.message,
    }
    for purpose in ("ancestry", "clinical-care", "disease=MONDO:0008199"):
        assert {one.term: one.message for one in consent.cohort(node.permit(purpose)).obligations} == told
    assert consent.cohort(node.permit("health", dataset="protocols")).obligations == ()


def test_a_stated_moratorium_is_over_on_its_day(node: Node) -> None:
    before = stated(node, "DUO:0000024=2027-04-01", clock=_ms("2027-03-31T23:59:59.999"))
    assert len(before.cohort(node.permit("health")).obligations) == 2
    assert stated(node, clock=_ms("2027-04-01T00:00")).cohort(node.permit("health")).obligations == (FURTHER,)


def test_a_duty_that_a_rule_ties_to_the_request_is_always_told(node: Node) -> None:
    own_rule(
        node,
        '@id("own.oblige.cite")\n@says("Cite the bank.")\n@term("OWN:cite")\n@needs("the role researcher")\n'
        'permit (principal, action == Action::"oblige", resource) when { principal.role == "researcher" };\n',
    )
    for purpose in ("health", "clinical-care"):
        told = node.consent.cohort(node.permit(purpose)).obligations
        assert [(one.term, one.message) for one in told[:-1]] == [("OWN:cite", "Cite the bank.")]


def test_a_duty_is_stated_only_where_enough_donors_carry_it_and_until_it_is_ended(node: Node) -> None:
    statements = StatedDuties(node.ledger._database)
    duty = Duty("DUO:0000019")
    few, enough = (CarriedDuty("rule", duty, "Publish.", number) for number in (4, 5))
    with pytest.raises(NotFound) as unknown:
        statements.state(duty, (), minimum=5, by="steward")
    with pytest.raises(InvalidQuery) as caught:
        statements.state(duty, (few, enough), minimum=5, by="steward")
    assert (unknown.value.code, caught.value.code) == ("consent.duty_unknown", "consent.duty_of_few")
    assert statements.in_force() == frozenset()
    statements.state(duty, (enough,), minimum=5, by="steward")
    with pytest.raises(Conflict):
        statements.state(duty, (enough,), minimum=5, by="steward")
    assert [(one.duty, one.donors, one.stated_by) for one in statements.statements()] == [(duty, 5, "steward")]
    statements.end(duty, by="steward")
    with pytest.raises(NotFound):
        statements.end(duty, by="steward")
    assert statements.in_force() == frozenset()
