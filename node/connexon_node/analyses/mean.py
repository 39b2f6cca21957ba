"""The mean of a numeric field: over donors each donor's own mean, over what belongs to nobody each record's value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import Any as Expression

from connexon.analyses.mean import Mean
from connexon.analyses.spec import Kind, Unit
from connexon.conditions.filters import All, Filter, IsMissing, Not
from connexon.errors import InvalidQuery
from connexon.query.question import Question
from connexon_node.analyses.groups import MAXIMUM_CELLS, require_few, require_groupable
from connexon_node.analyses.spec import DONOR, OWN, NodeAnalysis, NodeTraits, NoisyTable, Rows
from connexon_node.data.dictionary import Dataset, Dictionary, Field, FieldType, relations
from connexon_node.pipeline.values import SumCell, SumTable


class MeanRows(NodeAnalysis[Mean]):
    """Mean: the values of each group, each donor's own mean with the donor."""

    traits = NodeTraits("statistics", SumTable, may_be_referred=True)

    def reads_edition(self, analysis: Mean) -> bool:
        """Private numbers are of the edition."""
        return analysis.kind is Kind.PRIVATE

    def condition(self, question: Question, analysis: Mean) -> Filter | None:
        """The question's filter, and that the field has a value."""
        known: Filter = Not(IsMissing(analysis.field))
        return known if question.filter is None else All((question.filter, known))

    def further_conditions(
        self, analysis: Mean, dataset: Dataset, dictionary: Dictionary
    ) -> tuple[tuple[Dataset, Filter], ...]:
        """None."""
        return ()

    def fields(self, analysis: Mean, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """The field, a single number, and those grouped by."""
        at, field = relations.field_at(dictionary, dataset, analysis.field)
        _require_number(at, field)
        require_groupable(analysis.by, dataset, dictionary)
        return tuple(dict.fromkeys((analysis.field, *analysis.by)))

    def aggregate(self, analysis: Mean, dataset: Dataset, rows: Expression) -> Expression:
        """Columns: the fields grouped by, then of each donor the number and the mean of its own values.

        Of a dataset that belongs to nobody, then the number of records and the sum of their values.
        """
        # Loaded here: most commands of the steward know the analyses and compute none.
        import ibis

        value = rows[analysis.field].cast("float64")
        if not dataset.personal:
            numbers = {"records": rows.count(), "total": value.sum()}
            grouped = rows.group_by(list(analysis.by)) if analysis.by else rows
        else:
            # By places: a field grouped by may be called as one of our columns.
            keys = {f"k{place}": rows[name] for place, name in enumerate(analysis.by)}
            each = rows.group_by(**keys, donor=rows[DONOR]).aggregate(own=value.mean())
            numbers = {OWN: ibis.struct({"donor": each["donor"], "own": each["own"]}).collect()}
            grouped = each.group_by(list(keys)) if keys else each
        return grouped.aggregate(**numbers).limit(MAXIMUM_CELLS + 1)

    def result(self, analysis: Mean, results: Mapping[str, Rows]) -> SumTable:
        """A SumTable."""
        (rows,) = results.values()
        require_few(analysis.by, rows)
        places = len(analysis.by)
        return SumTable(analysis.field, analysis.by, tuple(_cell(row[:places], row[places:]) for row in rows))

    def noisy_table(self, analysis: Mean, dataset: Dataset, dictionary: Dictionary) -> NoisyTable:
        """Two numbers for each group: the donors, and the sum of their values in units of half the range."""
        at, field = relations.field_at(dictionary, dataset, analysis.field)
        low = field.minimum if analysis.low is None else analysis.low
        high = field.maximum if analysis.high is None else analysis.high
        if low is None or high is None:
            raise InvalidQuery(
                f"Say between which values {at.name}.{field.name} lies, for example --range 0:100: noise that hides a "
                "donor must be as wide as one value can be.",
                code="mean.no_range",
            )
        return NoisyTable(analysis.by, Unit.DONORS, numbers=2, range=(low, high))


def _cell(key: tuple[object, ...], numbers: tuple[object, ...]) -> SumCell:
    if len(numbers) == 1:
        pair: Any = numbers[0]
        return SumCell(key, donors=pair[0], own=pair[1])  # type: ignore[arg-type]
    records, total = numbers
    return SumCell(key, records=records, total=float(total or 0.0))  # type: ignore[arg-type]


def _require_number(dataset: Dataset, field: Field) -> None:
    if field.type not in (FieldType.NUMBER, FieldType.INTEGER) or field.many or field.coded or field.alias_of:
        numbers = ", ".join(
            one.name
            for one in dataset.offered
            if one.type in (FieldType.NUMBER, FieldType.INTEGER) and not (one.many or one.coded or one.alias_of)
        )
        raise InvalidQuery(
            f"{dataset.name}.{field.name} does not hold one number in each row, so it has no mean; "
            + (f"numbers are: {numbers}." if numbers else f"{dataset.name} have none that has."),
            code="field.not_a_number",
        )
