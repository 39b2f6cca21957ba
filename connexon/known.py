"""The names learned from catalogs, kept to complete what is typed and to catch slips before a question is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connexon.config import Home
from connexon.errors import NotFound
from connexon.question import All, Any, Count, DescendsFrom, Filter, Has, Not, Question
from connexon.suggest import nearest

if TYPE_CHECKING:
    from connexon.answer import Answer

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
    _refuse_slip("dataset", question.dataset, list(names))
    known = names.get(question.dataset, [])
    for field in _fields(question):
        if "." in field:
            continue  # the fields of another dataset: its center knows the way there
        _refuse_slip("field", field, known, of=f" of {question.dataset}")


def _refuse_slip(what: str, name: str, known: list[str], *, of: str = "") -> None:
    meant = None if name in known else nearest(name, known)
    if meant is not None:
        raise NotFound(
            f"{name!r} is no {what}{of} in the catalog as last read. Did you mean {meant!r}? "
            "If it is new, read the catalog again:  connexon catalog",
            code=f"{what}.unknown",
        )


def _fields(question: Question) -> list[str]:
    fields = list(question.analysis.by) if isinstance(question.analysis, Count) else []
    waiting: list[Filter] = [] if question.filter is None else [question.filter]
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
