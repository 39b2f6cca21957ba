"""Rules, ontologies and requests for tests of policy and consent: the real ones, small to write down."""

from __future__ import annotations

import datetime
from functools import cache

from connexon.identity.roster import OrganisationKind
from connexon.query.purpose import parse_purpose
from connexon.query.question import Purpose
from connexon.service import policy_files
from connexon_node.consent.evaluation import Judgement, ProfileEntities, judge
from connexon_node.consent.profile import ConsentProfile
from connexon_node.ontology import Ontologies, demonstration
from connexon_node.policy.request import Asking, Requester, ask
from connexon_node.policy.ruleset import RuleSet
from connexon_node.policy.store import compile_rules, read_folder


@cache
def baseline() -> dict[str, bytes]:
    """The federation's policy files as they are shipped."""
    return read_folder(policy_files.shipped())


@cache
def shipped_rules() -> RuleSet:
    """The federation's rules by themselves."""
    return compile_rules(baseline(), {})


@cache
def demo_ontologies() -> Ontologies:
    """The demonstration ontologies."""
    return demonstration()


def milliseconds(day: str) -> int:
    """Midnight UTC of a day such as 2026-02-01."""
    return int(datetime.datetime.fromisoformat(f"{day}T00:00+00:00").timestamp() * 1000)


def requester(
    organisation: OrganisationKind = OrganisationKind.ACADEMIC,
    *,
    country: str = "FR",
    approvals: dict[str, str] | None = None,
) -> Requester:
    """lyon/ada, a researcher. `approvals` gives the day on which each project was approved."""
    given = {project: milliseconds(day) for project, day in (approvals or {}).items()}
    return Requester(
        id="lyon/ada",
        center="lyon",
        country=country,
        organisation=organisation,
        role="researcher",
        grants=frozenset(given),
        approvals=given,
    )


def asking(
    purpose: Purpose | str,
    who: Requester | None = None,
    *,
    ontologies: Ontologies | None = None,
    on: str = "2026-02-01",
    rules: RuleSet | None = None,
) -> Asking:
    """A request as the rules see it."""
    read = parse_purpose(purpose) if isinstance(purpose, str) else purpose
    known = ontologies or demo_ontologies()
    disease = known.ancestors(read.disease) if read.disease else frozenset()
    switches = (rules or shipped_rules()).switches
    return ask(who or requester(), read, disease=disease, at_ms=milliseconds(on), switches=switches)


def judged(
    request: Asking,
    *profiles: ConsentProfile,
    rules: RuleSet | None = None,
    ontologies: Ontologies | None = None,
) -> list[Judgement]:
    """The verdict on each profile."""
    chosen = rules or shipped_rules()
    numbered = dict(enumerate(profiles, start=1))
    return list(judge(chosen, request, ProfileEntities(chosen, ontologies or demo_ontologies(), numbered)).values())
