"""The names learned from catalogs, kept to complete what is typed and to catch slips before a question is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connexon.analyses.registry import spec_of
from connexon.client.home import Home
from connexon.conditions.filters import All, Any, DescendsFrom, Filter, Has, Not
from connexon.errors import NotFound
from connexon.query.question import Question
from connexon.suggest import nearest

if TYPE_CHECKING:
    from connexon.client.answer import Answer

FILE = "catalog.json"


def learn(home: Home, answer: Answer) -> None:
    """Add what a catalog names to what is known. Names are only ever added: another purpose may reach others."""
    names = fields_by_dataset(home)
    before = {dataset: list(fields) for dataset, fields in names.items()}
    for row in answer.combined.rows:
        fields = names.setdefault(row["dataset"], [])
        if row["field"] not in fields:
            fields.append(row["field"])
    if names != before:
        home.write_json(FILE, {"datasets": names})


def fields_by_dataset(home: Home) -> dict[str, list[str]]:
    """The datasets known, each with its fields; empty before the first catalog."""
    datasets = home.read_json(FILE).get("datasets", {})
    if not isinstance(datasets, dict):
        return {}
    return {
        str(name): [str(field) for field in fields] for name, fields in datasets.items() if isinstance(fields, list)
    }


def check(home: Home, question: Question) -> None:
    """Raise NotFound where a name is unknown but close to a known one: most likely a slip of the pen."""
    names = fields_by_dataset(home)
    if not names or not question.dataset:
        return
    spec = spec_of(question.analysis)
    asked = [*spec.fields(question.analysis), *_fields_in(question.filter)]
    _check_fields(names, question.dataset, asked)
    for one in spec.lookups(question.analysis):
        if "." not in one.dataset:
            _check_fields(names, one.dataset, [*one.fields, *_fields_in(one.filter)])


def _check_fields(names: dict[str, list[str]], dataset: str, fields: list[str]) -> None:
    _refuse_slip("dataset", dataset, list(names))
    for field in fields:
        if "." in field:
            continue  # the fields of another dataset: its center knows the way there
        _refuse_slip("field", field, names.get(dataset, []), of=f" of {dataset}")


def _refuse_slip(what: str, name: str, known: list[str], *, of: str = "") -> None:
    meant = None if name in known else nearest(name, known)
    if meant is not None:
        raise NotFound(
            f"{name!r} is no {what}{of} in the catalog as last read. Did you mean {meant!r}? "
            "If it is new, read the catalog again:  connexon catalog",
            code=f"{what}.unknown",
        )


def _fields_in(condition: Filter | None) -> list[str]:
    fields: list[str] = []
    waiting: list[Filter] = [] if condition is None else [condition]
    while waiting:
        match waiting.pop():
            case All(filters) | Any(filters):
                waiting.extend(filters)
            case Not(child):
                waiting.append(child)
            case Has() | DescendsFrom():
                pass
            case leaf:
                fields.append(leaf.field)
    return fields
