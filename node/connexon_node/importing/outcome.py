"""The right rows of a staged file as they will lie on disk: typed, with their donor, repeated texts as codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connexon_node.data.dictionary import Dataset, Field, FieldType
from connexon_node.data.generations import Draft
from connexon_node.importing.checks import typed
from connexon_node.importing.distinct_values import Recurring, least
from connexon_node.importing.references import DONOR
from connexon_node.importing.staging import Staging, quoted, text

_RIGHT = 'staged.rowid NOT IN (SELECT "row" FROM bad)'


@dataclass(frozen=True)
class Loaded:
    """`renamed` maps terms, by field, to the ids that count today; `joins` and `donor` are References.join_donors'."""

    dataset: Dataset
    renamed: Mapping[str, dict[str, str]]
    joins: str
    donor: str

    def write_codes(self, staging: Staging, draft: Draft) -> None:
        """Number the distinct values of every coded field in their order, from 0; keep them beside the rows."""
        ((bad,),) = staging.connection.execute("SELECT count(*) FROM bad").fetchall()
        for field in self.dataset.coded:
            values = self._values(field, staging.recurring if not bad else None)
            staging.connection.execute(
                f"CREATE TABLE {_codes(field)} AS "
                f"SELECT (row_number() OVER (ORDER BY value) - 1)::INTEGER AS code, * FROM ({values})"
            )
            target = text(str(draft.codes_of(field.name)))
            staging.connection.execute(f"COPY (FROM {_codes(field)} ORDER BY code) TO {target} (FORMAT parquet)")

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

    @property
    def order(self) -> list[str]:
        """The columns by which the rows are sorted."""
        keys = [field.name for field in self._keys()]
        return [*keys[:-1], DONOR, keys[-1]]

    def _keys(self) -> list[Field]:
        return [*map(self.dataset.field, self.dataset.sorted_by), self.dataset.fields[0]]

    def _value(self, field: Field) -> str:
        if field.coded:
            return f"{_codes(field)}._code"
        value = typed(field, self.renamed.get(field.name, {}))
        if field.values and field.type is FieldType.TEXT and not field.many and field not in self._keys():
            # Sorted and written as a small number, read as the text it stands for.
            return f"CAST({value} AS ENUM({', '.join(map(text, field.values))}))"
        return value

    def _values(self, field: Field, recurring: Recurring | None) -> str:
        """SQL of each value of the right rows, with its other names."""
        column, aliases = quoted(field.name), self.dataset.aliases(field)
        if recurring is not None and recurring.recurs(field):
            names = "".join(f", {least(alias)} AS {quoted(alias.name)}" for alias in aliases)
            return f"SELECT {column} AS value{names} FROM {recurring.table(field)} WHERE {column} IS NOT NULL"
        names = "".join(f", min({quoted(alias.name)}) AS {quoted(alias.name)}" for alias in aliases)
        return f"SELECT {column} AS value{names} FROM staged WHERE {_RIGHT} AND {column} IS NOT NULL GROUP BY 1"


def _codes(field: Field) -> str:
    return quoted(f"codes of {field.name}")
