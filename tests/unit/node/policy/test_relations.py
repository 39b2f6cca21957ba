"""A question needs the right to every dataset that it looks into, and consent only where people are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from connexon.analyses.count import Count
from connexon.conditions import where
from connexon.errors import ConnexonError
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query import signed
from connexon_node.consent.cohort import CedarConsent
from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.ontology import DEMO, Ontologies
from connexon_node.pipeline.values import Permit
from connexon_node.policy.access import CedarAccess
from connexon_node.policy.store import PolicyStore
from connexon_node.state import open_state
from tests.support.federation import new_federation
from tests.support.rules import baseline

HIDE_DONORS = """@id("own.hidden")
@says("The donors of this center are not shown.")
forbid (principal, action == Action::"discover", resource) when { resource.name == "donors" };
"""


def permit(folder: Path, dataset: str, text: str = "", by: tuple[str, ...] = ()) -> Permit:
    policies = PolicyStore(folder)
    policies.load(baseline())
    federation = new_federation()
    asker = federation.researcher("lyon")
    question = asker.question(["kyoto"], Count(by), dataset=dataset, where=where.parse(text) if text else None)
    return CedarAccess(policies, DICTIONARY).authorise(
        signed.verify_query(asker.sign(question), federation.roster(), NOTHING_REVOKED)
    )


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("donor.sex = 'female'", ()),
        ("not has cell_line.donor.cell_lines (grade = 'clinical')", ()),
        ("", ("cell_line.donor.sex",)),
        ("has samples (donor.sex = 'male')", ()),
    ],
)
def test_a_dataset_that_may_not_be_seen_may_not_be_looked_into(tmp_path: Path, text: str, by: tuple[str, ...]) -> None:
    assert permit(tmp_path, "lots", text, by).personal
    (tmp_path / "own.cedar").write_text(HIDE_DONORS)
    with pytest.raises(ConnexonError) as caught:
        permit(tmp_path, "lots", text, by)
    assert caught.value.code == "dataset.not_offered"
    assert permit(tmp_path, "lots", "cell_line.grade = 'clinical'").rule


def test_protocols_are_counted_where_nobody_consented_to_anything(tmp_path: Path) -> None:
    database = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    policies = PolicyStore(tmp_path)
    policies.load(baseline())
    consent = CedarConsent(Ledger(database), policies, Ontologies.open(DEMO))
    cohort = consent.cohort(permit(tmp_path, "protocols", by=("kind",)))
    assert (cohort.profiles, cohort.obligations) == (frozenset(), ())
    assert consent.cohort(permit(tmp_path, "donors")).profiles == frozenset()
    database.close()
