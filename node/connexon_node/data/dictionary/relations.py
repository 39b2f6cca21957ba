"""Ways from one dataset to another: what a filter may name beside a dataset's own fields.

Every reference is a way, under the field's name without `_id`. So is every dataset on the paths to a row's donor, under
the name that the reference to it has there: of an expression, `lot`, `cell_line` and `donor`, by whichever of the
sample's paths leads there. `has` goes the other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from connexon.analyses.registry import spec_of
from connexon.conditions import filters
from connexon.conditions.filters import DescendsFrom, Filter, Has, Not
from connexon.errors import InvalidQuery
from connexon.query.question import Question
from connexon_node.data.dictionary.model import DONORS, Dataset, Dictionary, Field, nearest

DONOR_RELATION = "donor"


@dataclass(frozen=True)
class Step:
    """One way from a row to a row. `field` is the reference that is followed; None where the donor path is."""

    target: Dataset
    field: Field | None


def step(dictionary: Dictionary, dataset: Dataset, name: str) -> Step:
    """The way of that name. Raises InvalidQuery that lists the ways there are."""
    found = steps(dictionary, dataset).get(name)
    if found is None:
        known = list(steps(dictionary, dataset))
        near = nearest(name, known) or known
        raise InvalidQuery(
            f"From {dataset.name} no way is called {name!r}" + (f"; there is {', '.join(near)}." if near else "."),
            code="relation.not_offered",
        )
    if found.target.personal and not dataset.personal:
        raise personal_relation(dataset, found.target)
    return found


def steps(dictionary: Dictionary, dataset: Dataset) -> dict[str, Step]:
    """Every way from a row of the dataset, by name."""
    found = {name: Step(target, None) for name, target in _on_donor_paths(dictionary, dataset)}
    for field in dataset.fields:
        if field.relation and field.relation != DONOR_RELATION:
            found[field.relation] = Step(dictionary.dataset(field.references), field)
    if dataset.personal and dataset.name != DONORS:
        found[DONOR_RELATION] = Step(dictionary.dataset(DONORS), None)
    return found


def place(dictionary: Dictionary, dataset: Dataset, path: str) -> tuple[tuple[Step, ...], Dataset, str]:
    """The ways that a path such as cell_line.donor.sex takes, the dataset that it ends in, and the last name."""
    *names, last = path.split(".")
    taken: list[Step] = []
    for name in names:
        taken.append(step(dictionary, dataset, name))
        dataset = taken[-1].target
    return tuple(taken), dataset, last


def field_at(dictionary: Dictionary, dataset: Dataset, path: str) -> tuple[Dataset, Field]:
    """The offered field at the end of a path, and its dataset. Raises InvalidQuery."""
    _, dataset, name = place(dictionary, dataset, path)
    return dataset, dataset.offered_field(name)


def pointing(dictionary: Dictionary, dataset: Dataset, name: str) -> Dataset:
    """The dataset `name`, whose rows point to rows of `dataset` in some way. Raises InvalidQuery."""
    other = next((one for one in dictionary.datasets if one.name == name), None)
    if other is None or not is_reached(dictionary, other, dataset):
        known = [one.name for one in dictionary.datasets if is_reached(dictionary, one, dataset)]
        near = nearest(name, known) or known
        raise InvalidQuery(
            f"No dataset {name!r} points to {dataset.name}" + (f"; there is {', '.join(near)}." if near else "."),
            code="relation.not_offered",
        )
    if other.personal and not dataset.personal:
        raise personal_relation(dataset, other)
    return other


def is_reached(dictionary: Dictionary, dataset: Dataset, target: Dataset) -> bool:
    """Whether rows of a dataset point to rows of another, directly or through others."""
    return target.name in dictionary.reached[dataset.name]


def leads_to(dictionary: Dictionary, dataset: Dataset, target: Dataset) -> bool:
    """Whether a path to the donor of a row leads through the target."""
    # By name: to compare whole datasets is to compare all their fields.
    return dataset.name != target.name and any(
        parent.name == target.name or leads_to(dictionary, parent, target) for parent in dictionary.parents(dataset)
    )


def chain(dictionary: Dictionary, dataset: Dataset, target: Dataset) -> tuple[tuple[Dataset, Field], ...] | None:
    """The shortest chain of references from a dataset to another (or back to itself); None where there is none."""
    waiting: list[tuple[Dataset, tuple[tuple[Dataset, Field], ...]]] = [(dataset, ())]
    seen = {dataset.name}
    while waiting:
        place, taken = waiting.pop(0)
        for field in place.fields:
            if field.references == target.name:
                return (*taken, (place, field))
            if field.references and field.references not in seen:
                seen.add(field.references)
                waiting.append((dictionary.dataset(field.references), (*taken, (place, field))))
    return None


def touched(dictionary: Dictionary, asked: Question) -> tuple[Dataset, ...]:
    """Every dataset that a question about one looks into, that one first. Raises InvalidQuery or NotFound."""
    dataset = dictionary.dataset(asked.dataset)
    found = [dataset]
    spec = spec_of(asked.analysis)
    lookups = spec.lookups(asked.analysis)
    conditions = [asked.filter, *(Has(one.dataset, one.filter) for one in lookups)]
    for one in lookups:
        _, at, name = place(dictionary, dataset, one.dataset)
        found += _on_ways(dictionary, pointing(dictionary, at, name), one.fields)
    found += _on_ways(dictionary, dataset, spec.fields(asked.analysis))
    for condition in conditions:
        if condition is not None:
            found += _looked_into(dictionary, dataset, condition)
    return tuple({one.name: one for one in found}.values())


def _on_ways(dictionary: Dictionary, dataset: Dataset, paths: Iterable[str]) -> Iterator[Dataset]:
    return (one.target for path in paths for one in place(dictionary, dataset, path)[0])


def personal_relation(dataset: Dataset, other: Dataset) -> InvalidQuery:
    """What to raise where a question about data of nobody would look into data of people."""
    return InvalidQuery(
        f"{dataset.name} belong to nobody, so their counts are not protected and cannot depend on {other.name}. "
        f"Ask about {other.name} instead.",
        code="query.personal_relation",
    )


def _looked_into(dictionary: Dictionary, dataset: Dataset, node: Filter) -> Iterator[Dataset]:
    match node:
        case filters.All(parts) | filters.Any(parts):
            for child in parts:
                yield from _looked_into(dictionary, dataset, child)
        case Not(child):
            yield from _looked_into(dictionary, dataset, child)
        case Has(path, inside):
            taken, at, name = place(dictionary, dataset, path)
            other = pointing(dictionary, at, name)
            yield from (one.target for one in taken)
            yield other
            if inside is not None:
                yield from _looked_into(dictionary, other, inside)
        case DescendsFrom():
            yield dictionary.dataset("cell_lines")
        case leaf:
            yield from (one.target for one in place(dictionary, dataset, leaf.field)[0])


def _on_donor_paths(dictionary: Dictionary, dataset: Dataset) -> Iterator[tuple[str, Dataset]]:
    if dataset.introduces_donors:
        return
    for name in dataset.donor_through:
        field = dataset.field(name)
        target = dictionary.dataset(field.references)
        yield field.relation, target
        yield from _on_donor_paths(dictionary, target)
