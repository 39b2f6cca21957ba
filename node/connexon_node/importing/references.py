"""What a row points to: terms in the ontologies, rows in other datasets, and in the end its donor's number."""

from __future__ import annotations

import pyarrow

from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import KEY, Dataset, Dictionary, Field, FieldType
from connexon_node.data.generations import Generation, Generations
from connexon_node.importing import sql
from connexon_node.importing.checks import pieces
from connexon_node.importing.distinct_values import greatest, least
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.report import Problem
from connexon_node.importing.staging import Staging, quoted, text
from connexon_node.ontology import Ontologies

DONOR = "_donor"


class References:
    """Follows the references of one staged file."""

    def __init__(
        self,
        dataset: Dataset,
        dictionary: Dictionary,
        generations: Generations,
        ontologies: Ontologies,
        *,
        trial: bool = False,
    ) -> None:
        """`trial`: nothing is loaded, so that datasets which lead to donors may still be lacking."""
        self._trial = trial
        self._dataset = dataset
        self._dictionary = dictionary
        self._generations = generations
        self._ontologies = ontologies

    def require_parents(self) -> None:
        """Raise FileRefused where no dataset that leads to donors was imported yet."""
        parents = [parent for parent in self._dictionary.parents(self._dataset) if parent != self._dataset]
        if parents and not any(self._generations.current(parent.name) for parent in parents):
            raise FileRefused(
                f"{self._dataset.name} refers to {parents[0].name}, which this center has not imported yet. "
                f"Import {parents[0].name} first.",
                code="import.needs_parent",
            )

    def find_dangling(self, staging: Staging) -> list[Problem]:
        """Note every row that points to a row that is not there, until no more follow from those found.

        Returns warnings: of references, beside those that lead to donors, to a dataset that was not imported yet.
        """
        warnings = []
        for field in self._referring():
            generation = self._generations.current(field.references)
            if field.references == self._dataset.name:
                continue
            if generation is not None:
                self._note_dangling(staging, field, f"SELECT {KEY} FROM {read(generation)}")
            elif field.name in self._dataset.donor_through and not self._trial:
                self._note_dangling(staging, field, f"SELECT NULL::VARCHAR AS {KEY} WHERE false")
            else:
                warnings += self._unchecked(staging, field)
        for field in self._referring():
            if field.references == self._dataset.name:
                right = f'SELECT {KEY} FROM staged WHERE rowid NOT IN (SELECT "row" FROM problems)'
                while self._note_dangling(staging, field, right):
                    pass
        self._find_donorless(staging)
        self._find_contradicting_names(staging)
        return warnings

    def find_unknown_terms(self, staging: Staging) -> dict[str, dict[str, str]]:
        """Note every row with a term that a loaded ontology does not know.

        Returns, by field, the terms written under an older id and the id that counts today.
        """
        renamed: dict[str, dict[str, str]] = {}
        for field in self._dataset.fields:
            if field.type is FieldType.TERM:
                renamed[field.name] = self._terms(staging, field)
        return renamed

    def join_donors(self, staging: Staging, ledger: Ledger) -> tuple[str, str]:
        """SQL of joins to table `staged`, and of the donor number of each right row; 0 where rows are nobody's."""
        through = self._dataset.donor_through
        if self._dataset.introduces_donors:
            (column,) = through
            self._number(staging, quoted(column), ledger)
            return f"JOIN donor_numbers AS through_0 ON staged.{quoted(column)} = through_0._key", f"through_0.{DONOR}"
        return self._join_parents()

    def foreseen(self) -> str:
        """SQL of the key and the donor of each right row, as loading would make them, without numbering new donors.

        A donor that is not in the dataset as it is in force has no number: no row in force points to it.
        """
        if self._dataset.introduces_donors:
            known = self._generations.current(self._dataset.name)
            own = f"(SELECT {KEY} AS _key, {DONOR} FROM {read(known)})" if known else ""
            joins = f"LEFT JOIN {own} AS through_0 ON staged.{KEY} = through_0._key" if known else ""
            donor = f"through_0.{DONOR}" if known else "NULL::INTEGER"
        else:
            joins, donor = self._join_parents()
        staged = '(SELECT *, rowid FROM staged WHERE rowid NOT IN (SELECT "row" FROM bad)) AS staged'
        return f"(SELECT staged.{KEY}, {donor} AS {DONOR} FROM {staged} {joins})"

    def _join_parents(self) -> tuple[str, str]:
        through = self._dataset.donor_through
        paths = [name for name in through if self._generations.current(self._dataset.field(name).references)]
        joins = " ".join(self._join(name, place) for place, name in enumerate(paths))
        donors = ", ".join(f"through_{place}.{DONOR}" for place in range(len(paths)))
        return joins, f"coalesce({donors})" if paths else "0::INTEGER"

    def _join(self, name: str, place: int) -> str:
        generation = self._generations.current(self._dataset.field(name).references)
        assert generation is not None
        parent = f"(SELECT {KEY} AS _key, {DONOR} FROM {read(generation)}) AS through_{place}"
        return f"LEFT JOIN {parent} ON staged.{quoted(name)} = through_{place}._key"

    def _number(self, staging: Staging, column: str, ledger: Ledger) -> None:
        donors = staging.connection.execute(
            f'SELECT DISTINCT {column} AS _key FROM staged WHERE rowid NOT IN (SELECT "row" FROM bad) ORDER BY 1'
        ).to_arrow_table()
        ids = donors["_key"].to_pylist()
        numbers = pyarrow.table(
            {"_key": donors["_key"], DONOR: pyarrow.array(ledger.number_donors(ids), pyarrow.int32())}
        )
        staging.connection.register("numbered", numbers)
        staging.connection.execute("CREATE TABLE donor_numbers AS SELECT * FROM numbered")
        staging.connection.unregister("numbered")

    def _find_donorless(self, staging: Staging) -> None:
        """Note rows that may lead to their donor in several ways and do in none, or to two donors."""
        through = self._dataset.donor_through
        if len(through) < 2:
            return
        reason = text(f"is missing, and so {'is' if len(through) == 2 else 'are'} {' and '.join(through[1:])}")
        none = " AND ".join(f"{quoted(name)} IS NULL" for name in through)
        staging.connection.execute(
            f"INSERT INTO problems SELECT rowid, {text(through[0])}, {reason}, '' FROM staged WHERE {none} "
            'AND rowid NOT IN (SELECT "row" FROM unread)'
        )
        paths = [name for name in through if self._generations.current(self._dataset.field(name).references)]
        joins = " ".join(self._join(name, place) for place, name in enumerate(paths))
        for place, name in enumerate(paths[1:], start=1):
            first = f"coalesce({', '.join(f'through_{earlier}.{DONOR}' for earlier in range(place))})"
            staging.connection.execute(
                f"INSERT INTO problems SELECT staged.rowid, {text(name)}, 'leads to another donor than the row''s "
                f"other references', left(staged.{quoted(name)}, 60) FROM staged {joins} "
                f"WHERE through_{place}.{DONOR} <> {first}"
            )

    def _find_contradicting_names(self, staging: Staging) -> None:
        """Note rows that give a coded value another second name than earlier rows do."""
        for field in self._dataset.coded:
            for alias in self._dataset.aliases(field):
                value, name = quoted(field.name), quoted(alias.name)
                if staging.recurring.recurs(field):
                    first, last = least(alias), greatest(alias)
                    several = f"FROM {staging.recurring.table(field)} WHERE {first} <> {last}"
                else:
                    first, last = f"min({name})", f"max({name})"
                    several = f"FROM staged GROUP BY 1 HAVING {first} <> {last}"
                staging.connection.execute(
                    f"INSERT INTO problems SELECT staged.rowid, {text(alias.name)}, "
                    f"{text(f'is not the one that other rows give the same {field.name}')}, left(staged.{name}, 60) "
                    f"FROM staged JOIN (SELECT {value} AS _value, {first} AS _name {several}) AS named "
                    f"ON staged.{value} = named._value WHERE staged.{name} <> named._name"
                )

    def _unchecked(self, staging: Staging, field: Field) -> list[Problem]:
        ((rows,),) = staging.connection.execute(f"SELECT count({quoted(field.name)}) FROM staged").fetchall()
        reason = f"was not checked: this center has not imported {field.references} yet"
        return [Problem(field.name, reason, int(rows))] if rows else []

    def unsettled(self, staging: Staging, loaded: str) -> dict[str, int]:
        """Datasets in force whose rows would lose their donor, or get another, by the rows `loaded`.

        `loaded` is a table, or what `foreseen` gives. Gives the number of such rows, and 0 for the datasets that find
        their donors through those.
        """
        found: dict[str, int] = {}
        for child in self._dictionary.children(self._dataset):
            generation = self._generations.current(child.name)
            if generation is None or child == self._dataset:
                continue
            rows = 0
            for name in child.donor_through:
                if child.field(name).references == self._dataset.name:
                    ((lost,),) = staging.connection.execute(
                        f"SELECT coalesce(sum(child.rows), 0) FROM ({_pointers(generation, child.field(name))}) "
                        f"AS child LEFT JOIN {loaded} AS parent ON child.pointer = parent.{KEY} "
                        f"WHERE parent.{DONOR} IS DISTINCT FROM child.{DONOR}"
                    ).fetchall()
                    rows += int(lost)
            if rows:
                found[child.name] = rows
                found.update(dict.fromkeys(self._below(child), 0))
        return found

    def _below(self, dataset: Dataset) -> list[str]:
        children = [child for child in self._dictionary.children(dataset) if self._generations.current(child.name)]
        return [name for child in children for name in (child.name, *self._below(child))]

    def _referring(self) -> list[Field]:
        return [field for field in self._dataset.fields if field.references]

    def _note_dangling(self, staging: Staging, field: Field, known: str) -> int:
        column = quoted(field.name)
        name, reason = text(field.name), text(f"is no {KEY} in {field.references}")
        unknown = f"ANTI JOIN ({known}) AS known ON staged.{column} = known.{KEY} WHERE {column} IS NOT NULL"
        if staging.recurring.recurs(field):
            values = f"SELECT {column} FROM {staging.recurring.table(field)} AS staged {unknown}"
            unknown = f"WHERE {column} IN ({values})"
        ((count,),) = staging.connection.execute(
            f"INSERT INTO problems SELECT rowid, {name}, {reason}, left({column}, 60) FROM staged {unknown} "
            f'AND rowid NOT IN (SELECT "row" FROM problems WHERE field = {name})'
        ).fetchall()
        return int(count)

    def _terms(self, staging: Staging, field: Field) -> dict[str, str]:
        column = quoted(field.name)
        each = f"unnest({pieces(column)})" if field.many else column
        found = staging.connection.execute(
            f"SELECT DISTINCT {each} FROM {staging.recurring.table(field)} WHERE {column} IS NOT NULL ORDER BY 1"
        ).fetchall()
        written = [str(term) for (term,) in found if str(term).partition(":")[0] in field.ontologies]
        loaded = [term for term in written if self._ontologies.version(term.partition(":")[0])]
        unknown = [term for term in loaded if not self._ontologies.knows(term)]
        if unknown:
            wanted = ", ".join(map(text, unknown))
            wrong = f"list_has_any({pieces(column)}, [{wanted}])" if field.many else f"{column} IN ({wanted})"
            staging.connection.execute(
                f"INSERT INTO problems SELECT rowid, {text(field.name)}, "
                f"'is not in the ontology that this center has', left({column}, 60) FROM staged WHERE {wrong}"
            )
        current = {term: self._ontologies.resolve(term) for term in loaded if term not in unknown}
        return {term: now for term, now in current.items() if now != term}


def _pointers(generation: Generation, field: Field) -> str:
    """SQL of a table (pointer, _donor, rows) of the rows of a generation that have the reference `field`."""
    column = quoted(field.name)
    counted = (
        f"SELECT {column} AS pointer, {DONOR}, count(*) AS rows FROM {read(generation)} WHERE {column} IS NOT NULL"
    )
    if not field.coded:
        return f"{counted} GROUP BY ALL"
    codes = f"read_parquet({sql.file(generation.codes_of(field.name))})"
    return (
        f"SELECT codes.value AS pointer, {DONOR}, rows FROM ({counted} GROUP BY ALL) AS counted "
        f"JOIN {codes} AS codes ON counted.pointer = codes.code"
    )


def read(generation: Generation) -> str:
    """SQL that reads a generation."""
    return f"read_parquet([{', '.join(sql.file(part) for part in generation.parts)}])"
