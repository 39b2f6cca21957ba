"""Two centers that differ by one donor: but for the noise in numbers, nothing that leaves them may differ.

Exact, not statistical: refusals with their words, prices, charges, the order of groups, obligations, the catalog, the
moment at which the account is spent, and the SQL that is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.spec import Analysis, Unit
from connexon.conditions.where import parse
from connexon.errors import ConnexonError
from connexon.query.purpose import parse_purpose
from connexon.query.question import Question
from connexon.v1 import answer_pb2
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.pipeline.values import CellTable, Computed
from connexon_node.privacy.account import Account
from connexon_node.release.price import noisy_table_of, possible_groups
from connexon_node.settings import PrivacySection
from tests.support.center import ask
from tests.support.editions import EditionCenter

DONORS = 40
DISEASES = ("MONDO:0005180", "MONDO:0004975", "MONDO:0004976", "MONDO:0000001", "")
SOON = PrivacySection(researcher=0.3, questions=0.3)
"""An account that the questions of one example empty."""
PERMISSIONS = ("DUO:0000006", "DUO:0000042", "DUO:0000007", "DUO:0000004")

WHERE = (
    "",
    "sex = 'male'",
    "sex = 'martian'",
    "primary_disease_term = 'MONDO:0005180'",
    "primary_disease_term = 'MONDO:0000001'",
    "primary_disease_term under 'MONDO:0005071'",
    "primary_disease_term is missing",
    "not (sex = 'female' and country_iso2 = 'IS')",
    "country_iso2 = 'IS' or primary_disease_term = 'MONDO:0005180'",
    "age_range_y in ('30-34', '60-64')",
    "has cell_lines (type = 'iPSC')",
    "not has cell_lines",
    "has lots",
    "donor_no = 7",
    "id = 'D-0'",
)
OF_LINES = (
    "",
    "type = 'iPSC'",
    "donor.sex = 'male'",
    "grade = 'clinical'",
    "donor.primary_disease_term = 'MONDO:0005180'",
)

pytestmark = pytest.mark.timeout(600)
BY = ((), ("sex",), ("sex", "age_range_y"), ("age_range_y", "sex"), ("country_iso2",), ("primary_disease_term", "sex"))
BY_OF_LINES = ((), ("type",), ("donor.sex",), ("grade", "type"), ("donor.country_iso2",))
PURPOSES = ("health", "health", "disease=MONDO:0005180", "population", "health,methods")

Asking = tuple[str, str, Analysis, str, int | None, bool]
"""Dataset, condition, analysis, purpose, half-width, and whether the price alone is asked for."""


@st.composite
def asking(draw: st.DrawFn) -> Asking:
    of_lines = draw(st.booleans())
    dataset, where, by = ("cell_lines", OF_LINES, BY_OF_LINES) if of_lines else ("donors", WHERE, BY)
    analysis: Analysis = draw(
        st.one_of(
            st.builds(Count, st.sampled_from(by), st.sampled_from(Unit)),
            st.builds(Count, st.sampled_from(by)),
            st.just(Describe()),
        )
    )
    condition = "" if isinstance(analysis, Describe) else draw(st.sampled_from(where))
    within = None if isinstance(analysis, Describe) else draw(st.sampled_from((None, 5, 15)))
    priced = not isinstance(analysis, Describe) and draw(st.booleans())
    return dataset, condition, analysis, draw(st.sampled_from(PURPOSES)), within, priced


@st.composite
def donor(draw: st.DrawFn) -> Mapping[str, object]:
    """Somebody who is like nobody else, or like many."""
    return {
        "sex": draw(st.sampled_from(("female", "male", "intersex"))),
        "country": draw(st.sampled_from(("FR", "IS"))),
        "disease": draw(st.sampled_from((*DISEASES, "MONDO:0001516"))),
        "lines": draw(st.integers(0, 4)),
        "permission": draw(st.sampled_from(PERMISSIONS)),
        "modifier": draw(st.sampled_from(("", "DUO:0000018", "DUO:0000021", "DUO:0000029"))),
        "status": draw(st.sampled_from(("active", "withdrawn"))),
    }


def center(folder: Path, extra: Mapping[str, object] | None) -> EditionCenter:
    """Forty donors, each with a line, and one more who differs as `extra` says; with an edition and its tables."""
    people = [
        {"id": f"D-{one}", "sex": ("female", "male")[one % 2], "country": ("FR", "DE")[one % 2]}
        | {
            "disease": DISEASES[one % 5],
            "lines": 1,
            "permission": PERMISSIONS[one % 2],
            "modifier": "",
            "status": "active",
        }
        for one in range(DONORS)
    ]
    if extra is not None:
        people.append({"id": "D-extra", **extra})
    made = EditionCenter(folder, privacy=SOON)
    made.load_rows("consents", [_consent(one) for one in people])
    made.load_rows("donors", [_donor(one) for one in people])
    lines = [_line(one, number) for one in people for number in range(int(str(one["lines"])))]
    made.load_rows("cell_lines", lines)
    made.open()
    return made


def _consent(one: Mapping[str, object]) -> dict[str, object]:
    return {
        "id": f"C-{one['id']}",
        "donor_id": one["id"],
        "form_version": "1",
        "obtained_on": "2026-01-10",
        "withdrawn_on": "2026-02-10" if one["status"] == "withdrawn" else "",
        "status": one["status"],
        "scope": "research",
        "duo_permission": one["permission"],
        "modifiers": "DUO:0000007=MONDO:0005180" if one["permission"] == "DUO:0000007" else one["modifier"],
    }


def _donor(one: Mapping[str, object]) -> dict[str, object]:
    return {
        "id": one["id"],
        "sex": one["sex"],
        "age_range_y": "30-34",
        "country_iso2": one["country"],
        "primary_disease_term": one["disease"],
        "eligibility": "eligible",
    }


def _line(one: Mapping[str, object], number: int) -> dict[str, object]:
    return {
        "id": f"L-{one['id']}-{number}",
        "donor_id": one["id"],
        "type": ("iPSC", "ESC")[number % 2],
        "grade": ("research", "clinical")[number // 2 % 2],
        "derived_on": f"2020-01-0{1 + number}",
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Mapping[str, object] | None], EditionCenter]]:
    """Makes centers, and closes them."""
    made: list[EditionCenter] = []

    def make(extra: Mapping[str, object] | None) -> EditionCenter:
        made.append(center(tmp_path_factory.mktemp("center"), extra))
        return made[-1]

    yield make
    for one in made:
        one.close()


def question_of(one: Asking) -> Question:
    dataset, where, analysis, purpose, within, priced = one
    made = ask("" if isinstance(analysis, Describe) else dataset, None, analysis)
    condition = parse(where) if where else None
    return replace(made, filter=condition, purpose=parse_purpose(purpose), within=within, price_only=priced)


def seen(center: EditionCenter, question: Question) -> tuple[object, ...]:
    """Everything of an answer but its noisy numbers; where names are hidden, but the groups, too."""
    try:
        computed = center._computed(question)
        released = center.release.protect(computed)
    except ConnexonError as refusal:
        return ("refused", refusal.code, str(refusal))
    if released.commit is not None:
        with center.database.writing() as connection:
            released.commit(connection)
    return ("answered", _without_numbers(center, computed, released.answer), computed.cohort.obligations)


def _without_numbers(center: EditionCenter, computed: Computed, answer: answer_pb2.Answer) -> bytes:
    question = computed.cohort.permit.asked.question
    for name in ("query_id", "query_sha256", "answered_at_ms"):
        answer.ClearField(name)  # names of fields
    for cell in answer.count.cells if answer.HasField("count") else ():
        cell.number = 0
    for dataset in answer.description.datasets:
        if dataset.HasField("number"):
            dataset.number = 0
    if isinstance(question.analysis, Count) and not question.price_only:
        table = noisy_table_of(question, DICTIONARY)
        if possible_groups(table.by, DICTIONARY.dataset(question.dataset), DICTIONARY) is None:
            # Whether a name shows is noise, too; how seldom it may is audited elsewhere.
            for name in ("status", "reason", "count"):
                answer.ClearField(name)  # type: ignore[arg-type]
    return answer.SerializeToString(deterministic=True)


@settings(max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(donor(), st.lists(asking(), min_size=20, max_size=20))
def test_one_donor_changes_nothing_but_noisy_numbers(
    alone: Callable[[Mapping[str, object] | None], EditionCenter], extra: Mapping[str, object], asked: Sequence[Asking]
) -> None:
    without, having = alone(None), alone(extra)
    for one in asked:
        question = question_of(one)
        assert seen(without, question) == seen(having, question), one
    books = [[entry.charge for entry in Account(each.database, SOON).entries()] for each in (without, having)]
    assert books[0] == books[1]


def texts(center: EditionCenter, asked: Sequence[Asking]) -> list[str]:
    for one in asked:
        seen(center, question_of(one))
    return sorted(center.engine._compiled._kept.values())


def test_the_sql_that_is_compiled_does_not_follow_data(
    alone: Callable[[Mapping[str, object] | None], EditionCenter],
) -> None:
    """So that the time to compile tells nothing: but for `under`, whose terms are those that occur."""
    extra = {"sex": "intersex", "country": "IS", "disease": "MONDO:0001516", "lines": 4}
    extra |= {"permission": "DUO:0000042", "modifier": "", "status": "active"}
    asked = [
        ("donors", where, Count(by), "health", 15, False) for where in WHERE if "under" not in where for by in BY[:3]
    ]
    found = [texts(alone(one), asked) for one in (None, extra)]
    assert len(found[0]) > 10
    assert found[0] == found[1]


def test_a_release_that_follows_data_is_found(
    alone: Callable[[Mapping[str, object] | None], EditionCenter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exact minimum, which is what release must not have."""
    extra = {"sex": "intersex", "country": "FR", "disease": "MONDO:0005180", "lines": 1}
    extra |= {"permission": "DUO:0000042", "modifier": "", "status": "active"}
    without, having = alone(None), alone(extra)
    question = question_of(("donors", "sex = 'intersex'", Count(), "health", 5, False))
    for each in (without, having):
        decide = each.release.protect

        def minimum(computed: Computed, decide: Callable[[Computed], object] = decide) -> object:
            assert isinstance(computed.shape, CellTable)
            if sum(cell.donors for cell in computed.shape.cells) < 1:
                raise ConnexonError("Too few.")
            return decide(computed)

        monkeypatch.setattr(each.release, "protect", minimum)
    assert seen(without, question) != seen(having, question)
