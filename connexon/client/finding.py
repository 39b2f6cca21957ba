"""Finding what can be asked about by the words people use: ontology terms, fields, values of fields, and datasets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from connexon.client.catalog_cache import WAY, Known, KnownDataset, KnownField
from connexon.conditions.where_text import to_text_value
from connexon.ontology.named import normal
from connexon.ontology.term_index import TermIndex

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_CLOSE = 0.8


@dataclass(frozen=True)
class Found:
    """One thing that fits. `condition` is how it is asked for; `centers` is how many centers offer it.

    `kind` is term, field, value or dataset. Of a term `dataset` and `condition` are those of the first field that
    holds such terms, and empty where none does; `centers` says nothing of whether any donor has it.
    """

    kind: str
    id: str
    name: str
    dataset: str
    condition: str
    centers: int
    also: str = ""


@dataclass(frozen=True)
class Findings:
    """What fits some words, the best first within each kind."""

    words: str
    found: tuple[Found, ...]
    of_centers: int
    notes: tuple[str, ...] = field(default=())

    def __iter__(self) -> Iterator[Found]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def to_json(self) -> dict[str, Any]:
        """As a document of the shape connexon.find/1; see docs/json.md."""
        return {
            "schema": "connexon.find/1",
            "words": self.words,
            "centers": self.of_centers,
            "found": [asdict(one) for one in self.found],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        from connexon.client.answer_display import plain_text

        return plain_text(self)

    def __repr__(self) -> str:
        return f"<Findings for {self.words!r}: {len(self.found)}>"

    def _repr_html_(self) -> str:
        from connexon.client.answer_display import html_text

        return html_text(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for kind, title in (("term", "Terms"), ("value", "Values"), ("field", "Fields"), ("dataset", "Datasets")):
            rows = [one for one in self.found if one.kind == kind]
            if rows:
                yield Text(title, style="bold")
            for one in rows:
                yield Text.assemble("  ", (one.id, "bold"), "  ", (one.name, "green"), "  ", (one.also, "dim"))
                offered = f" · {one.centers} of {self.of_centers} centers" if one.dataset else ""
                asked = one.condition or "in no field of the catalog"
                yield Text.assemble("    ", one.dataset, ": " if one.dataset else "", (asked, "cyan"), (offered, "dim"))
        for note in self.notes:
            yield Text(note, style="yellow")


def find(words: str, known: Known, terms: TermIndex, *, limit: int = 10) -> Findings:
    """What fits the words, at most `limit` of each kind."""
    everywhere = {center for one in known.datasets.values() for center in one.centers}
    found = [*_terms(words, known, terms, limit), *_values(words, known)[:limit]]
    found += _fields(words, known)[:limit] + _datasets(words, known)[:limit]
    notes = []
    if not found:
        notes.append(
            "Nothing fits. More terms come with:  connexon ontology add FILE;  all datasets:  connexon catalog"
        )
    return Findings(words, tuple(found), len(everywhere), tuple(notes))


def _terms(words: str, known: Known, terms: TermIndex, limit: int) -> list[Found]:
    found = []
    for hit in terms.find(words, limit=limit):
        prefix = hit.id.partition(":")[0]
        holding = [
            (dataset, one)
            for dataset in known.datasets.values()
            for one in dataset.fields.values()
            if one.ontology == prefix
        ]
        dataset, one = max(holding, key=lambda pair: len(pair[1].centers), default=(None, None))
        also = f"({hit.name})" if hit.name != hit.label else ""
        others = (
            f"also {', '.join(f'{d.name}.{f.name}' for d, f in holding if f is not one)}" if len(holding) > 1 else ""
        )
        found.append(
            Found(
                kind="term",
                id=hit.id,
                name=hit.label,
                dataset=dataset.name if dataset else "",
                condition=f"{one.name} under {to_text_value(hit.label)}" if one else "",
                centers=len(one.centers) if one else 0,
                also=" ".join(filter(None, (also, others))),
            )
        )
    return found


def _values(words: str, known: Known) -> list[Found]:
    aimed, scored = normal(words), list[tuple[float, Found]]()
    for dataset, one in _all_fields(known):
        if one.type == WAY:
            continue
        for value in one.values:
            # "normal karyotype", "research grade": the value with words of its field or dataset beside it.
            beside = {*normal(one.name.replace("_", " ")).split(), *normal(dataset.name.replace("_", " ")).split()}
            beside |= set(normal(one.title).split())
            score = _score(aimed, value.replace("_", " "), beside)
            if score:
                condition = f"{one.name} = {to_text_value(value)}"
                scored.append((score, _of_field("value", value, dataset, one, condition)))
    return _best(scored)


def _fields(words: str, known: Known) -> list[Found]:
    aimed, scored = normal(words), list[tuple[float, Found]]()
    for dataset, one in _all_fields(known):
        if one.type == WAY:
            continue
        score = max(_score(aimed, one.name.replace("_", " "), set()), _score(aimed, one.title, set()))
        if score:
            scored.append((score, _of_field("field", one.name, dataset, one, _example(one))))
    return _best(scored)


def _datasets(words: str, known: Known) -> list[Found]:
    aimed, scored = normal(words), list[tuple[float, Found]]()
    for one in known.datasets.values():
        score = max(_score(aimed, one.name.replace("_", " "), set()), _score(aimed, one.title, set()))
        if score:
            asked = f"connexon catalog {one.name}"
            scored.append((score, Found("dataset", one.name, one.title, one.name, asked, len(one.centers))))
    return _best(scored)


def _all_fields(known: Known) -> Iterator[tuple[KnownDataset, KnownField]]:
    for dataset in known.datasets.values():
        for one in dataset.fields.values():
            yield dataset, one


def _of_field(kind: str, shown: str, dataset: KnownDataset, one: KnownField, condition: str) -> Found:
    return Found(kind, shown, one.title, dataset.name, condition, len(one.centers))


def _example(one: KnownField) -> str:
    """How a field is asked about."""
    if one.ontology:
        return f"{one.name} under {one.ontology}:..."
    if one.values:
        return (
            f"{one.name} in ({', '.join(map(to_text_value, one.values[:3]))}{', ...' if len(one.values) > 3 else ''})"
        )
    how = {"boolean": "= true", "number": "> 1.5", "integer": "> 10", "date": ">= 2026-01-31"}
    return f"{one.name} {how.get(one.type, '= ...')}"


def _score(aimed: str, name: str, beside: set[str]) -> float:
    """How well words fit a name, from 0; `beside` are words that may stand with it."""
    key = normal(name)
    if not key or not aimed:
        return 0.0
    if aimed == key:
        return 3.0
    left = [word for word in aimed.split() if word not in key.split()]
    if len(left) < len(aimed.split()) and all(word in beside for word in left):
        # Every word is in the name or beside it, and some are in the name.
        return 2.0 + len(key.split()) / 100
    if all(any(word.startswith(one) for word in key.split()) for one in aimed.split()):
        return 1.5
    ratio = SequenceMatcher(None, aimed, key).ratio() if abs(len(aimed) - len(key)) < 5 else 0.0
    return ratio if ratio >= _CLOSE else 0.0


def _best(scored: list[tuple[float, Found]]) -> list[Found]:
    ordered = sorted(scored, key=lambda pair: (-pair[0], -pair[1].centers, pair[1].dataset, pair[1].id))
    return [one for _, one in ordered]
