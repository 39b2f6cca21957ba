"""Rules can ask for differential privacy: private numbers have it, granted ones do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from connexon.analyses.count import Count
from connexon.analyses.spec import Kind
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query import signed
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.policy.access import AccessDenied, CedarAccess
from connexon_node.policy.store import PolicyStore
from tests.support.federation import new_federation
from tests.support.rules import baseline

NOISE_ONLY = """\
@id("lyon.noise_only")
@says("Lyon lets donors be counted with differential privacy only.")
forbid (principal, action == Action::"count", resource)
unless { context.protection.contains("differential-privacy") };
"""


def test_a_rule_may_demand_noise_and_the_question_that_asks_for_it_passes(tmp_path: Path) -> None:
    (tmp_path / "access").mkdir()
    (tmp_path / "access" / "noise.cedar").write_text(NOISE_ONLY)
    policies = PolicyStore(tmp_path)
    policies.load(baseline())
    access = CedarAccess(policies, DICTIONARY)
    federation = new_federation()
    ada = federation.researcher()
    question = ada.question(["lyon"], Count(kind=Kind.GRANTED), dataset="donors")
    with pytest.raises(AccessDenied) as denial:
        access.authorise(signed.verify_query(ada.sign(question), federation.roster(), NOTHING_REVOKED))
    assert denial.value.rule == "lyon.noise_only"
    noisy = replace(question, analysis=Count())
    assert (
        access.authorise(signed.verify_query(ada.sign(noisy), federation.roster(), NOTHING_REVOKED)).rule
        == "access.count.personal"
    )
