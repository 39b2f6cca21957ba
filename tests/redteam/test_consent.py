"""Attacks on single donors' consents: by duties, refusals, referrals and reasons, never by numbers.

Two worlds differ in the consent of one donor. The attacker asks everything in both and wins where anything but a number
differs: what leaves as a number is the business of release.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.spec import Kind
from connexon.query.purpose import parse_purpose
from connexon.v1 import answer_pb2
from connexon_node.consent.cohort import CedarConsent, NotCovered, _of_consents
from connexon_node.consent.obligations import FURTHER, CarriedDuty, Duty, carried
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.consent.stated import StatedDuties
from connexon_node.pipeline.values import Cohort, Obligation, Permit, Referred
from tests.redteam.target import MINIMUM, MUCH, Target, is_

DONOR, COUNTRY = "T-IS", "IS"
PLAIN = ConsentProfile.parse("DUO:0000042")
PURPOSES = ("health", "disease=MONDO:0005180", "ancestry", "clinical-care", "clinical-care,control", "health,sex")
SECRETS = {
    "a moratorium and its date": ConsentProfile.parse("DUO:0000042", ["DUO:0000024=2999-07-01"]),
    "a duty for one disease": ConsentProfile.parse("DUO:0000007=MONDO:0005180", ["DUO:0000019"]),
    "a consent that only the steward can settle": ConsentProfile.parse(
        "DUO:0000042", ["DUO:0000043", "DUO:0000020=Dr Mori"]
    ),
    "the only consent for a purpose": ConsentProfile.parse("DUO:0000042", ["DUO:0000043", "DUO:0000029"]),
    "an ethics approval": ConsentProfile.parse("DUO:0000042", ["DUO:0000021"]),
}
MORE = {
    "a consent to ancestry research alone": ConsentProfile.parse("DUO:0000011"),
    "a consent that is not known": ConsentProfile.parse(""),
}
"""They showed in nothing but numbers before, too."""


class Telling(CedarConsent):
    """Consent that tells what the donors' consents come to, as it stands: attacks must win against it."""

    def cohort(self, permit: Permit) -> Cohort:
        cohort = super().cohort(permit)
        rules = self._policies.rules
        _, judged = self._judged_now(rules, self._asking(rules, permit, self._clock()))
        if permit.personal and not judged.permitted:
            if judged.referring:
                raise Referred(_of_consents(rules, judged))
            raise NotCovered("No donor at this center consented to this purpose.")
        duties = {number: one.duties for number, one in judged.by_profile.items()}
        owed = carried(rules, self._profiles, duties, dict.fromkeys(duties, 1))
        told = tuple(Obligation(one.duty.term, one.message) for one in owed)
        return Cohort(permit, cohort.profiles, cohort.epoch, told, cohort.ontologies, cohort.approvals)


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("target"))
    yield target
    target.center.close()


def everything(node: Target) -> list[answer_pb2.Answer]:
    """What comes back of every kind of question for every purpose, but for numbers, names of questions and times."""
    node.begin(privacy=MUCH)
    answers = []
    for words in PURPOSES:
        purpose = parse_purpose(words, ethics_approval="ERB 12")
        answers += [
            node.ask(Count(), "donors", purpose=purpose),
            node.ask(Count(), "donors", is_("country_iso2", COUNTRY), purpose=purpose),
            node.ask(Count(), "donors", is_("country_iso2", "XX"), purpose=purpose),
            node.ask(Count(("grade",)), "cell_lines", purpose=purpose),
            node.ask(Count(kind=Kind.GRANTED), "donors", purpose=purpose),
            node.ask(Describe(), "", purpose=purpose),
            node.ask(Count(), "protocols", purpose=purpose),
        ]
    for answer in answers:
        for name in ("query_id", "query_sha256", "answered_at_ms", "count"):
            answer.ClearField(name)
        for dataset in answer.description.datasets:
            dataset.ClearField("number")
    return answers


def consents_to(node: Target, profile: ConsentProfile) -> None:
    node.center.ledger.amend(DONOR, profile, by="steward", because="test")


@pytest.mark.parametrize("secret", [*SECRETS.values(), *MORE.values()], ids=[*SECRETS, *MORE])
def test_nothing_but_numbers_depends_on_what_one_donor_consented_to(node: Target, secret: ConsentProfile) -> None:
    before = everything(node)
    consents_to(node, secret)
    during = everything(node)
    node.center.ledger.withdraw(DONOR, by="steward")
    after = everything(node)
    assert before == during == after


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_the_same_attack_wins_where_consents_are_told_as_they_stand(node: Target, secret: ConsentProfile) -> None:
    node.consent = Telling
    before = everything(node)
    consents_to(node, secret)
    assert everything(node) != before
    node.center.ledger.withdraw(DONOR, by="steward")
    assert everything(node) != before, "a withdrawn donor's consent goes on to show"


def test_a_purpose_of_a_few_and_one_of_nobody_are_answered_in_the_same_words(node: Target) -> None:
    of_nobody = node.ask(Count(kind=Kind.GRANTED), "donors", purpose=parse_purpose("clinical-care"))
    assert of_nobody.status == answer_pb2.ANSWER_STATUS_SUPPRESSED
    assert of_nobody.reason.code == "release.too_few_donors"
    told = {(one.term, one.message) for one in of_nobody.obligations}
    assert told == {(FURTHER.term, FURTHER.message)}


def test_a_statement_does_not_move_with_the_donors_it_was_made_of(node: Target) -> None:
    """Withdrawals one by one, until below the minimum, would show who carried the duty and when."""
    publishing = ConsentProfile.parse("DUO:0000042", ["DUO:0000019"])
    day = datetime.date(2026, 2, 1)
    carriers = [f"D-{number:04d}" for number in range(MINIMUM)]
    node.center.ledger.record_many(
        (ConsentRecord(one, publishing, day) for one in carriers), by="steward", source="file"
    )
    statement = CarriedDuty("consent.oblige.publication", Duty("DUO:0000019"), "Publish.", MINIMUM)
    StatedDuties(node.center.database).state(statement.duty, (statement,), minimum=MINIMUM, by="steward")
    before = everything(node)
    assert [one.term for one in before[0].obligations] == ["DUO:0000019", FURTHER.term]
    for carrier in carriers:
        node.center.ledger.withdraw(carrier, by="steward")
    assert everything(node) == before
