"""The catalog: which datasets and fields the centers offer to a purpose, and how much of them it reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from connexon.analyses import noise as noises
from connexon.analyses.noise import Noise
from connexon.analyses.results import ResultUnreadable
from connexon.analyses.spec import Analysis, AnalysisSpec, Combined, Kind, Lookup, Sheet, Traits
from connexon.identity.keys import CenterId
from connexon.ontology.named import NamedTerm
from connexon.safe_text import plain
from connexon.v1 import answer_pb2, query_pb2

_COLUMNS = ("dataset", "field", "type", "unit", "ontology", "values", "title", "centers")
_TOTAL_COLUMNS = ("dataset", "title", "number", "at_least", "plus_minus", "centers")


@dataclass(frozen=True)
class Describe(Analysis):
    """What a center offers for the purpose."""


@dataclass(frozen=True)
class Field:
    """A field as a center describes it."""

    name: str
    type: str
    unit: str
    ontology: str
    values: tuple[str, ...]
    title: str


@dataclass(frozen=True)
class Offer:
    """A dataset as a center offers it. `number` is of donors that the purpose reaches; None where it is not said."""

    title: str
    fields: tuple[Field, ...]
    number: int | None
    noise: Noise | None = None


@dataclass(frozen=True)
class Catalog:
    """What one center offers, the ontology terms it names, and the versions of its ontologies by prefix."""

    datasets: dict[str, Offer]
    terms: tuple[NamedTerm, ...] = ()
    ontologies: Mapping[str, str] = dataclass_field(default_factory=dict)


class DescribeSpec(AnalysisSpec[Describe, Catalog]):
    """What centers offer is asked for, read and merged."""

    traits = Traits("describe", takes_filter=False, takes_accuracy=False, has_price=False, covers_all=True)

    def from_wire(self, wire: query_pb2.Query) -> Describe:
        """See AnalysisSpec."""
        return Describe()

    def to_wire(self, analysis: Describe, wire: query_pb2.Query) -> None:
        """See AnalysisSpec."""
        wire.describe.SetInParent()

    def fields(self, analysis: Describe) -> tuple[str, ...]:
        """None."""
        return ()

    def lookups(self, analysis: Describe) -> tuple[Lookup, ...]:
        """None."""
        return ()

    def kind(self, analysis: Describe) -> Kind | None:
        """Each number says its own."""
        return None

    def identity(self, analysis: Describe) -> dict[str, Any]:
        """All descriptions are alike."""
        return {}

    def words(self, analysis: Describe, dataset: str) -> str:
        """For example: describe the catalog."""
        return f"describe {dataset or 'the catalog'}"

    def parameters(self, analysis: Describe) -> dict[str, Any]:
        """None: the purpose says it all."""
        return {}

    def read(self, analysis: Describe, answer: answer_pb2.Answer) -> Catalog:
        """One center's datasets by name, with the terms it names."""
        if answer.WhichOneof("result") != "description":
            raise ResultUnreadable("The center's result does not fit the question.")
        description = answer.description
        return Catalog(
            datasets={plain(dataset.name): _offer(dataset) for dataset in description.datasets},
            terms=tuple(
                NamedTerm(plain(term.id), plain(term.label), tuple(map(plain, term.synonyms)))
                for term in description.terms
            ),
            ontologies={plain(prefix): plain(version) for prefix, version in sorted(description.ontologies.items())},
        )

    def combine(self, analysis: Describe, results: Mapping[CenterId, Catalog], *, silent: int) -> Combined:
        """Rows by dataset and field, totals by dataset. Centers that describe a field differently have each a row."""
        offers = {center: catalog.datasets for center, catalog in sorted(results.items())}
        names = sorted({name for datasets in offers.values() for name in datasets})
        rows = tuple(row for name in names for row in _rows(name, offers))
        totals = tuple(_total(name, offers, silent) for name in names)
        return Combined(
            columns=_COLUMNS,
            rows=rows,
            total_columns=_TOTAL_COLUMNS,
            totals=totals,
            notes=(
                *_notes(totals, silent, some=bool(offers)),
                *differing({name: one.ontologies for name, one in results.items()}),
            ),
            sheets=(_overview(totals),) if len(totals) > 1 else tuple(_sheet(total, list(rows)) for total in totals),
        )


def differing(ontologies: Mapping[CenterId, Mapping[str, str]]) -> tuple[str, ...]:
    """A sentence for each ontology of which centers have different versions."""
    notes = []
    for prefix in sorted({prefix for versions in ontologies.values() for prefix in versions}):
        having: dict[str, list[CenterId]] = {}
        for center, versions in sorted(ontologies.items()):
            if prefix in versions:
                having.setdefault(versions[prefix], []).append(center)
        if len(having) > 1:
            each = "; ".join(f"{', '.join(centers)}: {version}" for version, centers in sorted(having.items()))
            notes.append(f"Centers have different versions of {prefix}, so a term may mean more at one ({each}).")
    return tuple(notes)


def _offer(dataset: answer_pb2.DatasetDescription) -> Offer:
    return Offer(
        title=plain(dataset.title),
        fields=tuple(
            Field(
                name=plain(field.name),
                type=plain(field.type),
                unit=plain(field.unit),
                ontology=plain(field.ontology),
                values=tuple(plain(value) for value in field.values),
                title=plain(field.title),
            )
            for field in dataset.fields
        ),
        number=dataset.number if dataset.HasField("number") else None,
        noise=noises.read(dataset.noise) if dataset.HasField("noise") else None,
    )


def _rows(name: str, offers: Mapping[CenterId, dict[str, Offer]]) -> list[dict[str, Any]]:
    centers: dict[Field, list[CenterId]] = {}
    for center, datasets in offers.items():
        for field in datasets[name].fields if name in datasets else ():
            centers.setdefault(field, []).append(center)
    return [
        {
            "dataset": name,
            "field": field.name,
            "type": field.type,
            "unit": field.unit,
            "ontology": field.ontology,
            "values": list(field.values),
            "title": field.title,
            "centers": list(having),
        }
        for field, having in centers.items()
    ]


def _total(name: str, offers: Mapping[CenterId, dict[str, Offer]], silent: int) -> dict[str, Any]:
    having = {center: datasets[name] for center, datasets in offers.items() if name in datasets}
    known = [offer.number for offer in having.values() if offer.number is not None]
    return {
        "dataset": name,
        # No center renames a dataset for the others.
        "title": Counter(offer.title for offer in having.values()).most_common(1)[0][0],
        "number": sum(known) if known else None,
        "at_least": silent > 0 or len(known) < len(having),
        "plus_minus": noises.together(offer.noise for offer in having.values() if offer.number is not None),
        "centers": [{"id": center, "number": offer.number} for center, offer in having.items()],
    }


def _notes(totals: tuple[dict[str, Any], ...], silent: int, *, some: bool) -> tuple[str, ...]:
    notes = []
    if not some:
        notes.append("No center has described what it offers; this does not mean that there is nothing.")
    elif silent:
        others = "1 center" if silent == 1 else f"{silent} centers"
        notes.append(f"{others} described nothing and may offer more.")
    if any(one["number"] is None for total in totals for one in total["centers"]):
        notes.append("Where no number is shown, the center has not measured it for everybody; ask for it with count.")
    if any(total["plus_minus"] for total in totals):
        notes.append("Numbers of donors have noise and are of each center's present edition; they cost nothing.")
    return tuple(notes)


def _overview(totals: tuple[dict[str, Any], ...]) -> Sheet:
    """The datasets alone: with their fields, thirty of them would not fit anywhere."""
    everywhere = sorted({one["id"] for total in totals for one in total["centers"]})
    rows = []
    for total in totals:
        records = "" if total["number"] is None else _records(total)
        having = [one["id"] for one in total["centers"]]
        where = "" if having == everywhere else f"only {', '.join(having)}"
        rows.append((total["dataset"], f"{'≥ ' if total['at_least'] and total['number'] else ''}{records}", where))
    columns = ("dataset", "how many", "centers")
    # Where all centers have all datasets, the last column would stand there empty.
    width = 3 if any(row[2] for row in rows) else 2
    return Sheet(
        title=f"{len(totals)} datasets · {', '.join(everywhere)} · connexon catalog DATASET shows the fields of one",
        columns=columns[:width],
        rows=tuple(row[:width] for row in rows),
    )


def _sheet(total: dict[str, Any], rows: list[dict[str, Any]]) -> Sheet:
    everywhere = [one["id"] for one in total["centers"]]
    records = ""
    if total["number"] is not None:
        records = f" · {'≥ ' if total['at_least'] else ''}{_records(total)}"
    return Sheet(
        title=f"{total['dataset']}{records} · {', '.join(everywhere)}",
        columns=("field", "type", "values, unit or ontology"),
        rows=tuple((row["field"], row["type"], _content(row, everywhere)) for row in rows),
    )


def _records(total: dict[str, Any]) -> str:
    return f"{total['number']:,}{noises.plus_minus(total['plus_minus'])}"


def _content(row: dict[str, Any], everywhere: list[CenterId]) -> str:
    parts = [", ".join(row["values"]), row["unit"], row["ontology"]]
    if row["centers"] != everywhere:
        parts.append(f"only {', '.join(row['centers'])}")
    return "; ".join(part for part in parts if part)
