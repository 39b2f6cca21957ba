"""Laws that hold for every consent and every purpose, whatever the rules' wording."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.identity.roster import OrganisationKind
from connexon.query import purpose as purposes
from connexon.query.question import Purpose
from connexon_node.consent import profile as duo
from connexon_node.consent.evaluation import Verdict
from connexon_node.consent.profile import ConsentProfile, Modifier, Scope, ValueKind
from connexon_node.policy.request import Requester
from connexon_node.policy.store import compile_rules
from tests.support.rules import asking, baseline, demo_ontologies, judged, requester, shipped_rules

RANK = {Verdict.DENY: 0, Verdict.REFER: 1, Verdict.PERMIT: 2}
DISEASES = sorted(demo_ontologies().descendants("MONDO:0000001"))
VALUES = {
    ValueKind.NONE: st.just(""),
    ValueKind.OPTIONAL_TEXT: st.sampled_from(["", "Dr Mori"]),
    ValueKind.RESEARCH: st.sampled_from(list(purposes.WORDS)),
    ValueKind.PLACE: st.sampled_from(["ISO:FR", "ISO:JP", "REGION:EU", "REGION:EEA", "M49:142", "ISO:FR|M49:030"]),
    ValueKind.DATE: st.sampled_from(["2020-01-01", "2026-02-01", "2030-01-01"]),
    ValueKind.MONTHS: st.integers(1, 40).map(str),
    ValueKind.NAMES: st.sampled_from(["lyon/ada", "lyon", "study", "kyoto", "lyon|study|lyon/ada"]),
}


@st.composite
def modifiers(draw: st.DrawFn, *, without: frozenset[str] = frozenset()) -> Modifier:
    term = draw(st.sampled_from(sorted(duo.MODIFIERS.keys() - without)))
    return duo.modifier(term, draw(VALUES[duo.MODIFIERS[term][1]]))


@st.composite
def profiles(draw: st.DrawFn) -> ConsentProfile:
    permission = draw(st.sampled_from(sorted(duo.PERMISSIONS)))
    diseases = draw(st.sets(st.sampled_from(DISEASES), min_size=1, max_size=3))
    return ConsentProfile(
        permission=permission,
        diseases=frozenset(diseases if permission == duo.DISEASE_SPECIFIC else ()),
        modifiers=frozenset(draw(st.lists(modifiers(), max_size=3))),
        scope=draw(st.sampled_from(Scope)),
    )


@st.composite
def purpose_values(draw: st.DrawFn) -> Purpose:
    research = draw(st.lists(st.sampled_from(list(purposes.TERMS)), min_size=1, max_size=3, unique=True))
    disease = draw(st.sampled_from(DISEASES)) if purposes.DISEASE in research or draw(st.booleans()) else ""
    return Purpose(
        research=tuple(research),
        disease=disease,
        commercial_use=draw(st.booleans()),
        project=draw(st.sampled_from(["", "study"])),
        ethics_approval=draw(st.sampled_from(["", "EC 2026-14"])),
    )


people = st.builds(
    requester,
    st.sampled_from(OrganisationKind),
    country=st.sampled_from(["FR", "JP", "NO"]),
    approvals=st.sampled_from([None, {"study": "2025-06-01"}]),
)
narrowing = modifiers(without=frozenset({duo.CLINICAL_CARE}))


@settings(max_examples=300, deadline=None)
@given(profiles(), narrowing, purpose_values(), people)
def test_adding_a_modifier_other_than_clinical_care_never_widens(
    profile: ConsentProfile, added: Modifier, purpose: Purpose, who: Requester
) -> None:
    narrowed = ConsentProfile(
        profile.permission, profile.diseases, profile.modifiers | {added}, profile.form_version, profile.scope
    )
    before, after = judged(asking(purpose, who), profile), judged(asking(purpose, who), narrowed)
    assert RANK[after[0].verdict] <= RANK[before[0].verdict]


@st.composite
def broader_and_narrower(draw: st.DrawFn) -> tuple[Purpose, Purpose]:
    """Two purposes of which the second is more specific: a kind of the disease, a named disease, or less than all."""
    broad = draw(purpose_values())
    how = draw(st.sampled_from(["kind of the disease", "named disease", "health", "less than general"]))
    research, disease = broad.research, broad.disease
    if how == "kind of the disease" and disease:
        disease = draw(st.sampled_from(sorted(demo_ontologies().descendants(disease))))
    elif how == "named disease" and not disease:
        disease = draw(st.sampled_from(DISEASES))
    elif how == "health":
        disease = disease or draw(st.sampled_from(DISEASES))
        research = tuple(dict.fromkeys(purposes.DISEASE if one == purposes.HEALTH else one for one in research))
    elif how == "less than general":
        special = draw(st.sampled_from([purposes.HEALTH, purposes.ANCESTRY, purposes.METHODS, purposes.GENETIC]))
        research = tuple(dict.fromkeys(special if one == purposes.GENERAL else one for one in research))
    narrow = Purpose(research, disease, broad.commercial_use, broad.project, broad.ethics_approval)
    return broad, narrow


@settings(max_examples=500, deadline=None)
@given(profiles(), broader_and_narrower(), people)
def test_a_more_specific_purpose_is_never_refused_where_a_broader_one_is_permitted(
    profile: ConsentProfile, pair: tuple[Purpose, Purpose], who: Requester
) -> None:
    broad, narrow = (judged(asking(purpose, who), profile)[0].verdict for purpose in pair)
    assert RANK[narrow] >= RANK[broad]


@settings(max_examples=150, deadline=None)
@given(profiles(), purpose_values(), people, st.booleans())
def test_unknown_never_permits(
    profile: ConsentProfile, purpose: Purpose, who: Requester, modifier_instead: bool
) -> None:
    unknown = ConsentProfile(
        permission=profile.permission if modifier_instead else "",
        diseases=profile.diseases,
        modifiers=profile.modifiers | ({Modifier("DUO:9999999")} if modifier_instead else frozenset()),
        scope=profile.scope,
    )
    assert judged(asking(purpose, who), unknown)[0].verdict is Verdict.DENY


@settings(max_examples=60, deadline=None)
@given(profiles(), purpose_values(), people, st.randoms(use_true_random=False))
def test_the_order_of_files_never_matters(
    profile: ConsentProfile, purpose: Purpose, who: Requester, random: Random
) -> None:
    paths = list(baseline())
    random.shuffle(paths)
    shuffled = compile_rules({path: baseline()[path] for path in paths}, {})
    assert shuffled.version == shipped_rules().version
    assert judged(asking(purpose, who), profile, rules=shuffled) == judged(asking(purpose, who), profile)


@settings(max_examples=100, deadline=None)
@given(profiles())
def test_a_profile_is_read_back_as_it_was_written(profile: ConsentProfile) -> None:
    assert ConsentProfile.from_json(profile.to_json()) == profile
    permission, *written = str(profile).split(" + ")
    assert ConsentProfile.parse(permission, written, scope=profile.scope.value) == profile
