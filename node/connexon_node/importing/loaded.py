"""The right rows of a staged file as they will lie on disk: typed, with their donor, repeated texts as codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any as Connection

from connexon_node.dictionary import Dataset, Field
from connexon_node.generations import Draft
from connexon_node.importing.checks import typed
from connexon_node.importing.references import DONOR
from connexon_node.importing.staging import quoted, text

_RIGHT = 'staged.rowid NOT IN (SELECT "row" FROM bad)'


@dataclass(frozen=True)
class Loaded:
    """`renamed` maps terms, by field, to the ids that count today; `joins` and `donor` are References.join_donors'."""

    dataset: Dataset
    renamed: Mapping[str, dict[str, str]]
    joins: str
    donor: str

    def write_codes(self, connection: Connection, draft: Draft) -> None:
        """Number the distinct values of every coded field in their order, from 0; keep them beside the rows."""
        for field in self.dataset.coded:
            names = "".join(f", min({quoted(other.name)}) AS {quoted(other.name)}" for other in self._aliases(field))
            connection.execute(
                f"CREATE TABLE {_codes(field)} AS SELECT (row_number() OVER (ORDER BY value) - 1)::INTEGER AS code, * "
                f"FROM (SELECT {quoted(field.name)} AS value{names} FROM staged WHERE {_RIGHT} "
                f"AND {quoted(field.name)} IS NOT NULL GROUP BY 1)"
            )
            target = text(str(draft.codes_of(field.name)))
            connection.execute(f"COPY (FROM {_codes(field)} ORDER BY code) TO {target} (FORMAT parquet)")

    def rows(self) -> str:
        """SQL of the rows: donor, then the fields."""
        columns = ", ".join(f"{self._value(field)} AS {quoted(field.name)}" for field in self.dataset.stored)
        codes = " ".join(
            f"LEFT JOIN (SELECT value AS _value, code AS _code FROM {_codes(field)}) AS {_codes(field)} "
            f"ON staged.{quoted(field.name)} = {_codes(field)}._value"
            for field in self.dataset.coded
        )
        staged = "(SELECT *, rowid FROM staged) AS staged"
        return f"SELECT {self.donor} AS {DONOR}, {columns} FROM {staged} {self.joins} {codes} WHERE {_RIGHT}"

    def order(self) -> str:
        """SQL of the columns by which the rows are sorted."""
        first = self.dataset.fields[0].name
        return ", ".join([*map(quoted, self.dataset.sorted_by), DONOR, quoted(first)])

    def _value(self, field: Field) -> str:
        return f"{_codes(field)}._code" if field.coded else typed(field, self.renamed.get(field.name, {}))

    def _aliases(self, field: Field) -> tuple[Field, ...]:
        return self.dataset.aliases(field)


def _codes(field: Field) -> str:
    return quoted(f"codes of {field.name}")
