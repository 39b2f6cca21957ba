"""What a researcher's words mean: names of terms become ids, and what no center would understand is said at once.

Everything is held against the catalog as last read here. What it does not know at all is left to the centers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from connexon.analyses.registry import spec_of
from connexon.analyses.spec import Analysis
from connexon.client.catalog_cache import WAY, Known, KnownField
from connexon.conditions.filters import All, Any, Compare, DescendsFrom, Filter, Has, Not, OneOf, Scalar, Under
from connexon.conditions.terms import CURIE
from connexon.errors import NotFound
from connexon.ontology.term_index import Hit, TermIndex
from connexon.suggest import nearest

_AGAIN = "If it is new, read the catalog again:  connexon catalog"
_DISEASE = re.compile(r"(?<![\w-])disease=([^,]+)")
_GENE = re.compile(r"(?:^|_)gene(?:_symbol)?$")
_OPEN_READING_FRAME = re.compile(r"^(C(?:\d+|X|Y))ORF(\d+)$")
_LISTED = 5


class Understanding:
    """Reads one question's words. `echoes` say in sentences what was understood."""

    def __init__(self, known: Known, terms: TermIndex) -> None:
        self._known = known
        self._terms = terms
        self.echoes: list[str] = []

    def purpose(self, text: str) -> str:
        """A purpose whose disease may be named, with its id. Raises NotFound."""

        def disease(match: re.Match[str]) -> str:
            name = match[1].strip().strip("'\"")
            return f"disease={name if CURIE.match(name) else self._term(name, 'MONDO', 'purpose')}"

        return _DISEASE.sub(disease, text)

    def condition(self, dataset: str, condition: Filter) -> Filter:
        """The condition with ids for names. Raises NotFound for what is not known, with what was probably meant."""
        self._require_dataset(dataset)
        return self._read(dataset, condition)

    def require_fields(self, dataset: str, analysis: Analysis) -> None:
        """Raise NotFound where an analysis names a field that the catalog does not have."""
        self._require_dataset(dataset)
        spec = spec_of(analysis)
        self._require_all(dataset, spec.fields(analysis))
        for one in spec.lookups(analysis):
            if "." not in one.dataset:
                self._require_all(one.dataset, one.fields)
                if one.filter is not None:
                    self.condition(one.dataset, one.filter)

    def _require_all(self, dataset: str, fields: Iterable[str]) -> None:
        for path in fields:
            self._field(dataset, path)

    def _read(self, dataset: str, node: Filter) -> Filter:
        match node:
            case All(parts):
                return All(tuple(self._read(dataset, part) for part in parts))
            case Any(parts):
                return Any(tuple(self._read(dataset, part) for part in parts))
            case Not(child):
                return Not(self._read(dataset, child))
            case Has(path, inside):
                other = path.rpartition(".")[2]
                self._require_dataset(other)
                return node if inside is None else Has(path, self._read(other, inside))
            case DescendsFrom():
                return node
            case leaf:
                field = self._field(dataset, leaf.field)
                return self._leaf(leaf, field) if field is not None else self._require_ids(leaf)

    def _leaf(self, node: Filter, field: KnownField) -> Filter:
        match node:
            case Under(_, term):
                return node if CURIE.match(term) else replace(node, term=self._named(term, field))
            case Compare(_, _, value):
                return replace(node, value=self._value(value, field))
            case OneOf(_, values):
                return replace(node, values=tuple(self._value(value, field) for value in values))
            case _:
                return node

    def _value(self, value: Scalar, field: KnownField) -> Scalar:
        if not isinstance(value, str):
            return value
        if field.type == "term":
            return value if CURIE.match(value) else self._named(value, field)
        if field.values and value not in field.values:
            raise _no_value(value, field)
        if _GENE.search(field.name):
            return self._gene(value)
        return value

    def _gene(self, value: str) -> str:
        """A gene's symbol in the letter case of HGNC; ids such as ENSG... are in capitals, too."""
        symbol = _OPEN_READING_FRAME.sub(r"\1orf\2", value.upper())
        if symbol != value and value.islower():
            self.echoes.append(f"Understood {value!r} as the gene {symbol}.")
            return symbol
        return value

    def _named(self, name: str, field: KnownField) -> str:
        return self._term(name, field.ontology, field.name)

    def _term(self, name: str, ontology: str, field: str) -> str:
        called = [hit for hit in self._terms.called(name) if _is_of(hit, ontology)]
        labelled = [hit for hit in called if hit.name == hit.label]
        chosen = labelled or called
        if len(chosen) == 1:
            self.echoes.append(f"Understood {name!r} as {chosen[0].label} ({chosen[0].id}).")
            return chosen[0].id
        if chosen:
            raise NotFound(
                f"Several terms of {ontology} are called {name!r}: {_listed(chosen)}. Write the id of one.",
                code="term.ambiguous",
            )
        near = [hit for hit in self._terms.find(name, limit=50) if _is_of(hit, ontology)][:_LISTED]
        meant = f" Did you mean {_listed(near)}?" if near else ""
        raise NotFound(
            f"No term of {ontology} that is known here is called {name!r}, for {field}.{meant} Terms are found with:  "
            "connexon find WORDS;  more of them come with:  connexon ontology add FILE",
            code="term.unknown",
        )

    def _require_ids(self, node: Filter) -> Filter:
        if isinstance(node, Under) and not CURIE.match(node.term):
            raise NotFound(
                f"What {node.term!r} means is not known, since {node.field} is in no catalog that was read here. "
                f"{_AGAIN}",
                code="term.unknown",
            )
        return node

    def _require_dataset(self, name: str) -> None:
        known = self._known.datasets
        if name in known or not known:
            return
        meant = nearest(name, known)
        if meant is not None:
            raise NotFound(
                f"{name!r} is no dataset in the catalog as last read. Did you mean {meant!r}? {_AGAIN}",
                code="dataset.unknown",
            )

    def _field(self, dataset: str, path: str) -> KnownField | None:
        """The field at the end of a path; None where the dataset is not known. Raises NotFound for a wrong name."""
        *ways, last = path.split(".")
        at = dataset
        for place, way in enumerate(ways):
            targets = self._known.ways(at)
            if at not in self._known.datasets:
                return None
            if way not in targets:
                before = ".".join((*ways[:place], ""))
                meant = nearest(way, targets)
                raise _no_field(f"{before}{way}", dataset, [f"{before}{meant}"] if meant else [], sorted(targets))
            at = targets[way]
        if at not in self._known.datasets:
            return None
        fields = self._known.datasets[at].fields
        found = fields.get(last)
        if found is not None and found.type != WAY:
            return found
        prefix = ".".join((*ways, ""))
        close = nearest(last, [name for name, one in fields.items() if one.type != WAY])
        meant_fields = [f"{prefix}{close}"] if close else []
        raise _no_field(path, dataset, [*meant_fields, *self._related(at, last, prefix)], sorted(fields))

    def _related(self, dataset: str, name: str, prefix: str) -> list[str]:
        """The ways to a field of that name in rows that this one points to, over two rows at most."""
        found = []
        for way, target in self._known.ways(dataset).items():
            if self._known.at(target, name):
                found.append(f"{prefix}{way}.{name}")
        if not found:
            for way, target in self._known.ways(dataset).items():
                found += [f"{prefix}{way}.{further}" for further in self._once_more(target, name)]
        return sorted(found, key=len)[:2]

    def _once_more(self, dataset: str, name: str) -> list[str]:
        return [f"{way}.{name}" for way, target in self._known.ways(dataset).items() if self._known.at(target, name)]


def has_names(condition: Filter | None) -> bool:
    """Whether a condition has a text where an ontology term's id would be."""
    match condition:
        case All(parts) | Any(parts):
            return any(map(has_names, parts))
        case Not(inside) | Has(_, inside):
            return has_names(inside)
        case Under(_, term):
            return not CURIE.match(term)
        case _:
            return False


def names_disease(purpose: object) -> bool:
    """Whether a purpose names its disease in words."""
    match = _DISEASE.search(purpose) if isinstance(purpose, str) else None
    return match is not None and not CURIE.match(match[1].strip())


def _is_of(hit: Hit, ontology: str) -> bool:
    return hit.id.partition(":")[0] == ontology


def _listed(hits: Iterable[Hit]) -> str:
    return ", ".join(f"{hit.label!r} ({hit.id})" for hit in list(hits)[:_LISTED])


def _no_field(path: str, dataset: str, meant: list[str], known: list[str]) -> NotFound:
    hint = f"Did you mean {' or '.join(map(repr, meant))}? " if meant else ""
    more = "" if meant else f"connexon catalog {dataset} shows its {len(known)} fields. "
    return NotFound(
        f"{path!r} is no field of {dataset} in the catalog as last read. {hint}{more}{_AGAIN}", code="field.unknown"
    )


def _no_value(value: str, field: KnownField) -> NotFound:
    same = [one for one in field.values if one.casefold() == value.casefold()]
    close = same or [one for one in (nearest(value, field.values),) if one]
    hint = f"Did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(field.values[:12]) + (" ..." if len(field.values) > 12 else "")
    return NotFound(f"{field.name} is never {value!r}. {hint}It is one of: {listed}.", code="value.unknown")
