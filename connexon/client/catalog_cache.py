"""What catalogs have told, kept to find and complete names, and to catch slips before a question is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from connexon.analyses.describe import Catalog
from connexon.client.home import Home
from connexon.identity.keys import CenterId
from connexon.ontology.term_index import TermIndex

if TYPE_CHECKING:
    from connexon.client.answer import Answer

FILE = "catalog.json"
TERMS = "terms.sqlite"
_SHAPE = 2
WAY = "way"
"""The type of what leads to another row; its one value is the dataset there."""


@dataclass(frozen=True)
class KnownField:
    """A field, or a way to another row, as catalogs describe it, and the centers that offer it."""

    name: str
    type: str
    title: str = ""
    unit: str = ""
    ontology: str = ""
    values: tuple[str, ...] = ()
    centers: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownDataset:
    """A dataset with its fields by name."""

    name: str
    title: str
    centers: tuple[str, ...]
    fields: Mapping[str, KnownField]


@dataclass(frozen=True)
class Known:
    """Everything that catalogs have told here; empty before the first one."""

    datasets: Mapping[str, KnownDataset] = field(default_factory=dict)
    ontologies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Center to prefix to version."""

    def at(self, dataset: str, path: str) -> KnownField | None:
        """The field at the end of a path such as cell_line.donor.sex; None where it, or its dataset, is not known."""
        *ways, last = path.split(".")
        for way in ways:
            step = self._field(dataset, way)
            if step is None or step.type != WAY:
                return None
            dataset = step.values[0]
        return self._field(dataset, last)

    def ways(self, dataset: str) -> dict[str, str]:
        """The ways from rows of a dataset, each with the dataset that it leads to."""
        known = self.datasets.get(dataset)
        return {one.name: one.values[0] for one in known.fields.values() if one.type == WAY} if known else {}

    def _field(self, dataset: str, name: str) -> KnownField | None:
        known = self.datasets.get(dataset)
        return known.fields.get(name) if known else None


def learn(home: Home, answer: Answer) -> None:
    """Add what a catalog tells to what is known. Names are only ever added: another purpose may reach others."""
    before = home.read_json(FILE)
    kept = {name: dict(one) for name, one in _datasets(before).items()}
    for total in answer.combined.totals:
        one = kept.setdefault(total["dataset"], {"title": "", "centers": [], "fields": {}})
        one["title"] = total["title"]
        one["centers"] = _joined(one["centers"], (center["id"] for center in total["centers"]))
        one["fields"] = dict(one["fields"])
    for row in answer.combined.rows:
        fields = kept[row["dataset"]]["fields"]
        former = fields.get(row["field"], {})
        fields[row["field"]] = {
            **{name: row[name] for name in ("type", "title", "unit", "ontology")},
            "values": list(dict.fromkeys([*row["values"], *former.get("values", [])])),
            "centers": _joined(former.get("centers", []), row["centers"]),
        }
    told = {part.id: part.result for part in answer.released if isinstance(part.result, Catalog)}
    ontologies = {**before.get("ontologies", {}), **{name: dict(one.ontologies) for name, one in told.items()}}
    after = {"shape": _SHAPE, "datasets": kept, "ontologies": ontologies}
    if after != before:
        home.write_json(FILE, after)
    _learn_terms(home, told)


def known(home: Home) -> Known:
    """What is kept; nothing where it was kept by an earlier version."""
    kept = home.read_json(FILE)
    datasets = {
        name: KnownDataset(
            name=name,
            title=one["title"],
            centers=tuple(one["centers"]),
            fields={field_name: _field(field_name, told) for field_name, told in one["fields"].items()},
        )
        for name, one in _datasets(kept).items()
    }
    return Known(datasets, kept.get("ontologies", {}) if datasets else {})


def fields_by_dataset(home: Home) -> dict[str, list[str]]:
    """The datasets known, each with the names of its fields; empty before the first catalog."""
    return {name: list(one.fields) for name, one in known(home).datasets.items()}


def terms(home: Home) -> TermIndex:
    """The ontology terms known in this folder: from files that were added, and from catalogs."""
    return TermIndex(home.folder / TERMS)


def _learn_terms(home: Home, told: Mapping[CenterId, Catalog]) -> None:
    """Keep the terms that centers name, each center's by itself, where its ontologies have changed."""
    index = terms(home)
    sources = index.sources
    for center, catalog in sorted(told.items()):
        source, version = f"catalog of {center}", " ".join(f"{name} {of}" for name, of in catalog.ontologies.items())
        if catalog.terms and sources.get(source) != f"{version} ({len(catalog.terms)})":
            index.add(catalog.terms, source=source, version=f"{version} ({len(catalog.terms)})", own=False)


def _datasets(kept: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    datasets = kept.get("datasets", {})
    return datasets if kept.get("shape") == _SHAPE and isinstance(datasets, dict) else {}


def _field(name: str, told: Mapping[str, Any]) -> KnownField:
    return KnownField(
        name=name,
        type=told["type"],
        title=told["title"],
        unit=told["unit"],
        ontology=told["ontology"],
        values=tuple(told["values"]),
        centers=tuple(told["centers"]),
    )


def _joined(former: Iterable[str], more: Iterable[str]) -> list[str]:
    return sorted({*former, *more})
