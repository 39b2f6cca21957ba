"""The answer to one question: the numbers, and for every center whether it answered and why not."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connexon.analyses.price import combined_prices
from connexon.analyses.registry import spec_of
from connexon.analyses.results import ResultUnreadable
from connexon.analyses.spec import Combined, Sheet
from connexon.client import exporting
from connexon.client.center_answer import (
    CenterAnswer,
    Obligation,
    Protection,
    Status,
    provenance_json,
    unverified,
    waiting,
)
from connexon.clock import to_datetime
from connexon.conditions.filters import Scalar, terms_in
from connexon.conditions.terms import CURIE
from connexon.conditions.where_text import to_text as condition_text
from connexon.errors import Misconfigured
from connexon.identity.keys import CenterId
from connexon.query import purpose as purposes
from connexon.query.question import Question

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas
    import polars
    import pyarrow
    from rich.console import Console, ConsoleOptions, RenderResult

SCHEMA = "connexon.answer/1"


class Answer:
    """What has come back so far. `wait` for more; everything else looks at what is there.

    `rows` are dicts, one for each group and center; `totals` add the centers up and say where they are lower bounds.
    A center that did not release is in `centers` with its reason and in no number.
    """

    def __init__(
        self,
        question: Question,
        names: Mapping[CenterId, str],
        *,
        follow: Callable[[Answer, float | None], None] | None = None,
        name_terms: Callable[[Iterable[str]], Mapping[str, str]] | None = None,
    ) -> None:
        self.question = question
        self.remarks: list[str] = []
        self.show_all = False
        self._follow = follow
        self._name_terms = name_terms
        self._centers = {center: waiting(center, names.get(center, center)) for center in question.centers}
        self._combined: Combined | None = None

    @property
    def query_id(self) -> str:
        """By which the question is resumed."""
        return self.question.query_id

    @property
    def complete(self) -> bool:
        """Whether nothing more will come."""
        return all(part.status.final for part in self._centers.values())

    @property
    def settled(self) -> bool:
        """Whether nothing more will come but what a steward, a person, has yet to decide."""
        return all(part.status is not Status.WAITING for part in self._centers.values())

    @property
    def centers(self) -> tuple[CenterAnswer, ...]:
        """Each center that was asked, by id."""
        misfits = self.combined.misfits
        return tuple(
            unverified(part.id, part.name, ResultUnreadable(misfits[part.id])) if part.id in misfits else part
            for part in self._centers.values()
        )

    def asked(self, center: CenterId) -> bool:
        """Whether the question went to this center."""
        return center in self._centers

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the centers released, center by center."""
        return [dict(row) for row in self.combined.rows]

    @property
    def totals(self) -> list[dict[str, Any]]:
        """What they released together; `at_least` marks a lower bound."""
        return [dict(row) for row in self.combined.totals]

    @property
    def notes(self) -> list[str]:
        """What the numbers do not cover, in sentences."""
        rounded = sorted({part.protection.rounded_to for part in self.released if part.protection})
        steps = [str(step) for step in rounded if step > 1]
        coarse = [
            f"Each center's numbers are rounded to multiples of {step}; totals carry that from every center."
            for step in [" or ".join(steps)]
            if step
        ]
        return [*self.combined.notes, *coarse, *self.remarks]

    @property
    def released(self) -> list[CenterAnswer]:
        """The centers whose numbers are counted."""
        return [part for part in self.centers if part.status is Status.RELEASED]

    @property
    def obligations(self) -> dict[Obligation, list[CenterId]]:
        """What must be done in return for the numbers, and for which centers."""
        duties: dict[Obligation, list[CenterId]] = {}
        for part in self.centers:
            for obligation in part.obligations:
                duties.setdefault(obligation, []).append(part.id)
        return duties

    @property
    def protection(self) -> dict[CenterId, Protection]:
        """What each center did to its numbers before they left."""
        return {part.id: part.protection for part in self.centers if part.protection is not None}

    @property
    def combined(self) -> Combined:
        """The centers' results put together."""
        if self._combined is None:
            released = [part for part in self._centers.values() if part.status is Status.RELEASED]
            results = {part.id: part.result for part in released}
            silent = len(self._centers) - len(results)
            analysis = self.question.analysis
            if self.question.price_only:
                self._combined = combined_prices(results)
            else:
                self._combined = spec_of(analysis).combine(analysis, results, silent=silent)
        return self._combined

    @property
    def labels(self) -> dict[str, str]:
        """The ontology terms in the question and among the groups, by id, with the names that are known here."""
        if self._name_terms is None:
            return {}
        asked = [] if self.question.filter is None else terms_in(self.question.filter)
        values = (value for row in self.combined.rows for value in row.values() if isinstance(value, str))
        found = {*asked, *filter(CURIE.match, values)} | ({self.question.purpose.disease} - {""})
        return dict(sorted(self._name_terms(found).items())) if found else {}

    @property
    def sheets(self) -> tuple[Sheet, ...]:
        """The tables for people; with `show_all`, also groups that cannot be told from none through the noise."""
        sheets, labels = (self.combined.whole_sheets if self.show_all else ()) or self.combined.sheets, self.labels
        return tuple(_with_names(sheet, labels) for sheet in sheets) if labels else sheets

    def center(self, center: str) -> CenterAnswer:
        """One center's part; KeyError where it was not asked."""
        found = {part.id: part for part in self.centers}
        return found[CenterId(center)]

    def wait(self, timeout: float | None = None) -> Answer:
        """Wait until complete, or for `timeout` seconds, and return this same answer. None waits without limit."""
        if not self.complete and self._follow is not None:
            self._follow(self, timeout)
        return self

    def take(self, part: CenterAnswer) -> None:
        """Put in what is newly known of one center. An unasked center is ignored.

        A proved answer is never displaced, but for one that awaits the steward: by the proved answer that follows it,
        or by the hub's word that the question's time is over.
        """
        present = self._centers.get(part.id)
        if present is None:
            return
        if present.provenance is not None and (present.status.final or part.status is Status.WAITING):
            return
        self._centers[part.id] = part
        self._combined = None

    def to_arrow(self) -> pyarrow.Table:
        """The rows, with names of terms, as an Arrow table. Raises Misconfigured where pyarrow is not installed."""
        arrow = _installed("pyarrow")
        rows, columns = exporting.rows_with_names(self), exporting.columns_with_names(self)
        return arrow.table({name: [row[name] for row in rows] for name in columns})

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a pandas frame. Raises Misconfigured where pandas is not installed."""
        columns = list(exporting.columns_with_names(self))
        return _installed("pandas").DataFrame(exporting.rows_with_names(self), columns=columns)

    def to_polars(self) -> polars.DataFrame:
        """The rows as a polars frame. Raises Misconfigured where polars is not installed."""
        columns = list(exporting.columns_with_names(self))
        return _installed("polars").DataFrame(exporting.rows_with_names(self), schema=columns, infer_schema_length=None)

    def to_csv(self) -> str:
        """The rows, with the names of ontology terms, as CSV."""
        return exporting.to_csv(self)

    def save(self, path: str | Path) -> None:
        """Write the answer to a .csv, .json or .parquet file. Raises InvalidQuery for another ending."""
        exporting.write(self, Path(path))

    def to_json(self) -> dict[str, Any]:
        """The whole answer as a document of the shape connexon.answer/1; see docs/json.md."""
        question, combined = self.question, self.combined
        spec = spec_of(question.analysis)
        return {
            "schema": SCHEMA,
            "query_id": question.query_id,
            "federation": question.federation,
            "dataset": question.dataset,
            "where": None if question.filter is None else condition_text(question.filter),
            "analysis": {"name": spec.traits.name, **spec.parameters(question.analysis)},
            "purpose": purpose_json(question),
            "within": question.within,
            "price_only": question.price_only,
            "asked_at": moment(question.issued_at_ms),
            "expires_at": moment(question.expires_at_ms),
            "complete": self.complete,
            "terms": [{"id": term, "label": label} for term, label in self.labels.items()],
            "columns": list(combined.columns),
            "rows": [_plain_values(row) for row in combined.rows],
            "totals": [_plain_values(row) for row in combined.totals],
            "notes": self.notes,
            "obligations": [
                {"term": duty.term, "message": duty.message, "centers": centers}
                for duty, centers in self.obligations.items()
            ],
            "centers": [_center_json(part) for part in self.centers],
        }

    def __len__(self) -> int:
        return len(self.combined.rows)

    def __bool__(self) -> bool:
        # An answer without rows is still an answer; 'if answer' must not read as 'if none'.
        return True

    def __repr__(self) -> str:
        done = sum(part.status.final for part in self.centers)
        return f"<Answer {self.query_id}: {done} of {len(self._centers)} centers, {len(self)} rows>"

    def __str__(self) -> str:
        from connexon.client.answer_display import to_plain_text

        return to_plain_text(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from connexon.client.answer_display import render

        yield from render(self)

    def _repr_html_(self) -> str:
        from connexon.client.answer_display import to_html

        return to_html(self)


def _with_names(sheet: Sheet, labels: Mapping[str, str]) -> Sheet:
    """The sheet with the name of a term beside each id."""
    rows = tuple(tuple(f"{labels[cell]} ({cell})" if cell in labels else cell for cell in row) for row in sheet.rows)
    return replace(sheet, rows=rows)


def moment(ms: int) -> str:
    """A time in documents: ISO 8601 in UTC with milliseconds."""
    return to_datetime(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def purpose_json(question: Question) -> dict[str, Any]:
    """A purpose in documents."""
    asked = question.purpose
    return {
        "text": purposes.describe(asked),
        "research": list(asked.research),
        "disease": asked.disease,
        "commercial_use": asked.commercial_use,
        "project": asked.project,
        "ethics_approval": asked.ethics_approval,
    }


def _center_json(part: CenterAnswer) -> dict[str, Any]:
    return {
        "id": part.id,
        "name": part.name,
        "status": part.status.value,
        "code": part.code,
        "message": part.message,
        "rule": part.rule,
        "answered_at": None if part.answered_at_ms is None else moment(part.answered_at_ms),
        "latency_ms": part.latency_ms,
        "provenance": part.provenance and provenance_json(part.provenance),
        "obligations": [{"term": duty.term, "message": duty.message} for duty in part.obligations],
        "protection": part.protection and asdict(part.protection),
        "receipt": part.receipt and asdict(part.receipt),
    }


def _plain_values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in row.items()}


def _plain_value(value: Scalar | Iterable[Any] | None) -> Any:
    return value.isoformat() if isinstance(value, datetime.date) else value


def _installed(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"This needs {package}, which is not installed: install it with  pip install {package}  "
            "or use answer.rows, which needs nothing.",
            code="extra.missing",
        ) from error
