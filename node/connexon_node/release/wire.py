"""Counts and descriptions as they go over the wire."""

from __future__ import annotations

from collections.abc import Sequence

from connexon.conditions.filters import Scalar
from connexon.conditions.wire_filter import write_value
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.data.dictionary import Dictionary, relations


def add_cell(result: answer_pb2.CountResult, key: Sequence[Scalar | None], count: int) -> None:
    """One more group, with its number."""
    # Filled in place: to make the messages first and copy them takes several times as long.
    cell = result.cells.add()
    cell.number = count
    for value in key:
        write_value(value, cell.key.add())


def add_sums(
    result: answer_pb2.MeanResult, key: Sequence[Scalar | None], number: int, *, steps: int = 0, total: float = 0.0
) -> None:
    """One more group, with its number and its sum."""
    cell = result.cells.add(number=number, steps=steps, total=total)
    for value in key:
        write_value(value, cell.key.add())


def described(
    dictionary: Dictionary, name: str, number: int | None, kind: query_pb2.NumberKind.ValueType
) -> answer_pb2.DatasetDescription:
    """A dataset as a catalog shows it, with the number of its donors, or of records that belong to nobody, if any."""
    dataset = dictionary.dataset(name)
    return answer_pb2.DatasetDescription(
        name=dataset.name,
        title=dataset.title,
        fields=[
            answer_pb2.FieldDescription(
                name=field.name,
                type=field.type.value,
                unit=field.unit,
                ontology=field.ontologies[0] if field.ontologies else "",
                values=field.values,
                title=field.title,
            )
            for field in dataset.offered
        ]
        + [
            answer_pb2.FieldDescription(name=name, type="way", values=[step.target.name], title=step.target.title)
            for name, step in relations.steps(dictionary, dataset).items()
        ],
        number=number,
        kind=query_pb2.NUMBER_KIND_UNSPECIFIED if number is None else kind,
    )
