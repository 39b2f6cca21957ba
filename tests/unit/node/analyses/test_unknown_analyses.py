"""An analysis that a stage does not know is refused there; one that is known only in part gets nothing for granted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from typing import Any as Expression

import numpy
import pytest

from connexon.analyses import registry
from connexon.analyses.count import Count, CountSpec
from connexon.analyses.registry import UnknownAnalysis, spec_of
from connexon.analyses.spec import Analysis, AnalysisSpec, Combined, Kind, Lookup, Traits, Unit
from connexon.client.catalog_cache import Known, KnownDataset
from connexon.client.understanding import Understanding
from connexon.conditions.filters import Compare, Filter, Operator
from connexon.errors import InvalidQuery, Refused
from connexon.identity.credential import NOTHING_REVOKED
from connexon.ontology.term_index import TermIndex
from connexon.query import signed, wire_question
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.analyses import registry as node_registry
from connexon_node.analyses.registry import at_node
from connexon_node.analyses.spec import DONOR, NodeAnalysis, NodeTraits, NoisyTable, Rows
from connexon_node.approvals.model import in_words
from connexon_node.approvals.steward import Desk
from connexon_node.data.dictionary import DICTIONARY, Dataset, Dictionary, relations
from connexon_node.pipeline.values import Cell, CellTable, Cohort, Computed, Permit, Shape, Uncomputed
from connexon_node.policy.access import AccessDenied, CedarAccess
from connexon_node.policy.request import protection_of
from connexon_node.policy.store import PolicyStore
from connexon_node.privacy.contributions import OtherDonors, require_own_rows
from connexon_node.release import ReleaseControl
from connexon_node.release.measures import UnknownShape
from connexon_node.settings import ApprovalsSection, ReleaseSection
from tests.support.center import SmallCenter, ask, everything_granted
from tests.support.federation import new_federation
from tests.support.rules import baseline

FEDERATION = new_federation()
ADA = FEDERATION.researcher("lyon", "ada")


@dataclass(frozen=True)
class Median(Analysis):
    """An analysis that nothing but this test knows."""

    field: str = "age_at_donation"
    by: tuple[str, ...] = ()
    looks_up: tuple[Lookup, ...] = ()
    kind: Kind | None = Kind.PRIVATE


class MedianSpec(AnalysisSpec[Median, int]):
    """As an author would write it, on the wire under a name that no proto has."""

    traits = Traits("median", takes_filter=True, takes_accuracy=True, has_price=True, covers_all=False)

    def from_wire(self, wire: query_pb2.Query) -> Median:
        return Median()

    def to_wire(self, analysis: Median, wire: query_pb2.Query) -> None:
        wire.count.by.append(analysis.field)

    def fields(self, analysis: Median) -> tuple[str, ...]:
        return (analysis.field, *analysis.by)

    def lookups(self, analysis: Median) -> tuple[Lookup, ...]:
        return analysis.looks_up

    def kind(self, analysis: Median) -> Kind | None:
        return analysis.kind

    def identity(self, analysis: Median) -> dict[str, Any]:
        return {"by": sorted(analysis.by), "unit": "donors", "field": analysis.field}

    def words(self, analysis: Median, dataset: str) -> str:
        return f"median {analysis.field} of {dataset}"

    def parameters(self, analysis: Median) -> dict[str, Any]:
        return {"field": analysis.field}

    def read(self, analysis: Median, answer: answer_pb2.Answer) -> int:
        return 0

    def combine(self, analysis: Median, results: Mapping[Any, int], *, silent: int) -> Combined:
        raise NotImplementedError


@dataclass(frozen=True)
class Medians(Shape):
    """A shape that release has never heard of."""

    value: float


class MedianRows(NodeAnalysis[Median]):
    """The node's side; what it computes and declares is the test's choice."""

    def __init__(self, shape: type[Shape] = CellTable, table: NoisyTable | None = None, action: str = "count") -> None:
        self._traits = NodeTraits(action, shape, may_be_referred=True)
        self._table = table

    @property
    def traits(self) -> NodeTraits:
        return self._traits

    def reads_edition(self, analysis: Median) -> bool:
        return True

    def condition(self, question: Question, analysis: Median) -> Filter | None:
        return question.filter

    def further_conditions(
        self, analysis: Median, dataset: Dataset, dictionary: Dictionary
    ) -> tuple[tuple[Dataset, Filter], ...]:
        return ()

    def fields(self, analysis: Median, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        return analysis.by

    def aggregate(self, analysis: Median, dataset: Dataset, rows: Expression) -> Expression:
        return rows.aggregate(donors=rows[DONOR].nunique())

    def result(self, analysis: Median, results: Mapping[str, Rows]) -> Shape:
        return Medians(7.0)

    def noisy_table(self, analysis: Median, dataset: Dataset, dictionary: Dictionary) -> NoisyTable | None:
        return self._table


@pytest.fixture
def known_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library knows it; no node does."""
    monkeypatch.setitem(registry.SPECS, Median, MedianSpec())


@pytest.fixture
def known_here(monkeypatch: pytest.MonkeyPatch, known_to_all: None) -> Callable[[MedianRows], None]:
    """Makes the node know it too."""
    return lambda rows: monkeypatch.setitem(node_registry.ANALYSES, Median, rows)


@pytest.fixture
def center(tmp_path: Path) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path / "center")
    made.load_sample(60)
    yield made
    made.close()


def asked(analysis: Analysis, *, where: Filter | None = None, price_only: bool = False) -> Asked:
    """Proved as far as a question can be that has no form on the wire."""
    known = ADA.question(["kyoto"], Count(), dataset="cell_lines")
    proved = signed.verify_query(ADA.sign(known), FEDERATION.roster(), NOTHING_REVOKED)
    return replace(proved, question=replace(known, analysis=analysis, filter=where, price_only=price_only))


def computed(analysis: Analysis, shape: Shape, *, price_only: bool = False) -> Computed:
    cohort = Cohort(Permit(asked(analysis, price_only=price_only), "rule", "abc"), frozenset({1}), 0)
    return Computed(
        cohort, shape, {"cell_lines": 1}, DICTIONARY.version, numpy.arange(1, 500, dtype=numpy.int32), edition=1
    )


def some_donors(size: int = 300) -> CellTable:
    behind = numpy.arange(1, size + 1, dtype=numpy.int32)
    return CellTable((), (Cell((), size, size, behind),))


@pytest.mark.parametrize("spec", [AnalysisSpec, NodeAnalysis])
def test_nothing_that_a_spec_must_say_has_a_default(spec: type) -> None:
    said = {name for name, _ in inspect.getmembers(spec, lambda one: callable(one) or isinstance(one, property))}
    ours = {name for name in said if not name.startswith("_") and name != "register"}
    assert ours == spec.__abstractmethods__  # type: ignore[attr-defined]
    for name in ours:
        rest = {other: getattr(MedianSpec if spec is AnalysisSpec else MedianRows, other) for other in ours - {name}}
        with pytest.raises(TypeError, match="abstract"):
            type("Half", (spec,), rest)()


def test_what_the_library_does_not_know_is_refused_everywhere(center: SmallCenter, tmp_path: Path) -> None:
    question = asked(Median()).question
    policies = PolicyStore(tmp_path)
    policies.load(baseline())
    desk = Desk(center.database, DICTIONARY, ApprovalsSection())
    stages: list[Callable[[], object]] = [
        lambda: wire_question.to_bytes(question),
        lambda: _understanding(tmp_path).require_fields("cell_lines", Median()),
        lambda: relations.touched(DICTIONARY, question),
        lambda: require_own_rows(DICTIONARY, question),
        lambda: protection_of(question),
        lambda: in_words(question),
        lambda: desk.decides_on(question),
        lambda: CedarAccess(policies, DICTIONARY).authorise(asked(Median())),
        lambda: center.compute(question),
        lambda: ReleaseControl(ReleaseSection(), DICTIONARY, center.database).decide(computed(Median(), some_donors())),
        lambda: spec_of(Median()).read(Median(), answer_pb2.Answer()),
        lambda: at_node(Median()),
    ]
    for number, stage in enumerate(stages):
        with pytest.raises(UnknownAnalysis) as caught:
            stage()
            pytest.fail(f"stage {number} let it pass")
        assert caught.value.code == "query.unknown_analysis"


def _understanding(folder: Path) -> Understanding:
    known = Known({"cell_lines": KnownDataset("cell_lines", "Cell lines", (), {})})
    return Understanding(known, TermIndex(folder / "terms"))


def test_a_name_on_the_wire_that_this_side_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = wire_question.to_bytes(ADA.question(["kyoto"], Count()))
    monkeypatch.delitem(registry.SPECS, Count)
    with pytest.raises(UnknownAnalysis):
        wire_question.from_bytes(payload)


@pytest.mark.usefixtures("known_to_all")
def test_what_only_the_library_knows_no_center_works_out(center: SmallCenter, tmp_path: Path) -> None:
    question = replace(ask("cell_lines"), analysis=Median())
    policies = PolicyStore(tmp_path)
    policies.load(baseline())
    for stage in (
        lambda: CedarAccess(policies, DICTIONARY).authorise(asked(Median())),
        lambda: center.compute(question),
        lambda: ReleaseControl(ReleaseSection(), DICTIONARY, center.database).decide(computed(Median(), some_donors())),
        lambda: Desk(center.database, DICTIONARY, ApprovalsSection()).decides_on(question),
    ):
        with pytest.raises(UnknownAnalysis):
            stage()


@pytest.mark.usefixtures("known_to_all")
def test_what_it_looks_into_is_seen_by_every_step() -> None:
    by_donor = asked(Median("passage_no", by=("donor.sex",))).question
    assert [one.name for one in relations.touched(DICTIONARY, by_donor)] == ["cell_lines", "donors"]
    looked_up = asked(Median(looks_up=(Lookup("karyotype_findings", None, ("change",)),))).question
    assert "karyotype_findings" in [one.name for one in relations.touched(DICTIONARY, looked_up)]
    with pytest.raises(OtherDonors):
        require_own_rows(DICTIONARY, asked(Median("parent_line.grade")).question)
    inside = Lookup("lots", Compare("cell_line.parent_line.grade", Operator.EQUAL, "clinical"), ("status",))
    with pytest.raises(OtherDonors):
        require_own_rows(DICTIONARY, asked(Median(looks_up=(inside,))).question)


def test_what_it_looks_up_is_held_against_the_dictionary(
    center: SmallCenter, known_here: Callable[[MedianRows], None]
) -> None:
    known_here(MedianRows())
    wrong = Lookup("lots", Compare("no_such_field", Operator.EQUAL, "x"), ("status",))
    with pytest.raises(InvalidQuery, match="no_such_field"):
        center.compute(replace(ask("cell_lines"), analysis=Median("passage_no", looks_up=(wrong,))))


@pytest.mark.usefixtures("known_to_all")
def test_what_it_says_of_itself_reaches_rules_and_steward() -> None:
    assert protection_of(asked(Median()).question) == protection_of(asked(Count()).question)
    assert protection_of(asked(Median(kind=Kind.GRANTED)).question) == frozenset()
    assert in_words(asked(Median()).question) == "median age_at_donation of cell_lines, with noise"


def test_an_action_that_no_rule_speaks_about_is_denied(
    tmp_path: Path, known_here: Callable[[MedianRows], None]
) -> None:
    policies = PolicyStore(tmp_path)
    policies.load(baseline())
    known_here(MedianRows(action="count"))
    assert CedarAccess(policies, DICTIONARY).authorise(asked(Median())).rule
    known_here(MedianRows(action="median"))
    with pytest.raises(Refused) as caught:
        CedarAccess(policies, DICTIONARY).authorise(asked(Median()))
    assert isinstance(caught.value, AccessDenied) or caught.value.code == "dataset.not_offered"


def test_numbers_about_persons_leave_only_by_the_rules_of_their_kind(
    center: SmallCenter, known_here: Callable[[MedianRows], None]
) -> None:
    release = ReleaseControl(ReleaseSection(), DICTIONARY, center.database)
    granting = ReleaseControl(ReleaseSection(), DICTIONARY, center.database, covering=everything_granted)
    known_here(MedianRows(table=NoisyTable((), Unit.DONORS, numbers=1, range=None)))
    noisy = release.decide(computed(Median(), some_donors())).answer
    assert noisy.protection.kind == query_pb2.NUMBER_KIND_PRIVATE
    assert noisy.protection.noise.rho > 0
    for kind, code in ((None, "release.unknown_result"), (Kind.GRANTED, "release.not_granted")):
        with pytest.raises(Refused) as caught:
            release.decide(computed(Median(kind=kind), some_donors()))
        assert caught.value.code == code
    with pytest.raises(UnknownShape):
        granting.decide(computed(Median(kind=None), some_donors()))
    # An analysis that has no form with noise gets none, and no price for it.
    known_here(MedianRows(table=None))
    for one in (computed(Median(), some_donors()), computed(Median(), Uncomputed(), price_only=True)):
        with pytest.raises(Refused) as caught:
            release.decide(one)
        assert caught.value.code == "privacy.no_noisy_form"


def test_release_lets_out_only_the_shape_that_was_declared_and_that_it_knows(
    center: SmallCenter, known_here: Callable[[MedianRows], None]
) -> None:
    granting = ReleaseControl(ReleaseSection(), DICTIONARY, center.database, covering=everything_granted)
    known_here(MedianRows(shape=Medians))
    for kind in (*Kind, None):
        for shape in (some_donors(), Medians(7.0)):
            with pytest.raises(UnknownShape):
                granting.decide(computed(Median(kind=kind), shape))


def test_it_shares_no_noise_with_another_analysis(
    center: SmallCenter, known_here: Callable[[MedianRows], None]
) -> None:
    release = ReleaseControl(ReleaseSection(), DICTIONARY, center.database)
    known_here(MedianRows(table=NoisyTable((), Unit.DONORS, numbers=1, range=None)))
    drawn = [
        release.decide(computed(one, some_donors())).private
        for one in (Count(), Median(), Median("passage_no"), Median())
    ]
    digests = [one.draw.question for one in drawn if one is not None and one.draw is not None]
    assert len(digests) == 4
    assert len(set(digests)) == 3
    assert digests[1] == digests[3]


def test_it_is_computed_over_the_edition_where_it_says_so(
    center: SmallCenter, known_here: Callable[[MedianRows], None]
) -> None:
    known_here(MedianRows())
    assert center.compute(replace(ask("cell_lines"), analysis=Median("passage_no"))).edition == 1
    assert center.compute(ask("cell_lines")).edition == 0


def test_a_count_says_all_of_itself() -> None:
    spec = CountSpec()
    assert spec.fields(Count(("type", "donor.sex"))) == ("type", "donor.sex")
    assert spec.identity(Count(("b", "a"))) == spec.identity(Count(("a", "b")))
    assert spec.identity(Count(("a",))) != spec.identity(Count(("a",), Unit.RECORDS))
