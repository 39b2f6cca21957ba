"""Imported consents on their way to the ledger: each distinct form is parsed once, each row becomes a record."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from connexon.clock import DAY, now_ms, to_datetime
from connexon.errors import InvalidQuery
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.importing.checks import pieces
from connexon_node.importing.staging import Staging

CONSENTS = "consents"
_FETCH = 20_000
_FORM = ("duo_permission", "modifiers", "form_version", "scope")


class ConsentForms:
    """The distinct consent forms of a staged file."""

    def __init__(self, staging: Staging) -> None:
        self._connection = staging.connection
        self._profiles: list[ConsentProfile | None] = []

    def find_unreadable(self) -> None:
        """Parse every distinct form, and note the rows of those that are no consent profile, or not signed yet."""
        # Where the day has begun already it is not yet the future; UTC may be behind it.
        tomorrow = to_datetime(now_ms() + DAY).date()
        self._connection.execute(
            "INSERT INTO problems SELECT rowid, 'obtained_on', 'lies in the future', obtained_on FROM staged "
            "WHERE try_cast(obtained_on AS DATE) > $1",
            [tomorrow],
        )
        columns = ", ".join(_FORM)
        self._connection.execute(
            f"CREATE TABLE forms AS SELECT row_number() OVER () - 1 AS form, * FROM "
            f"(SELECT DISTINCT {columns} FROM staged ORDER BY ALL)"
        )
        found = self._connection.execute(
            f"SELECT form, duo_permission, {pieces('modifiers')}, form_version, scope FROM forms ORDER BY form"
        ).fetchall()
        for form, permission, modifiers, version, scope in found:
            try:
                profile = ConsentProfile.parse(
                    permission or "", modifiers or (), form_version=version or "", scope=scope or ""
                )
            except InvalidQuery as error:
                self._profiles.append(None)
                same = " AND ".join(f"staged.{name} IS NOT DISTINCT FROM forms.{name}" for name in _FORM)
                self._connection.execute(
                    "INSERT INTO problems SELECT staged.rowid, 'duo_permission', $1, "
                    "left(concat_ws(' + ', staged.duo_permission, staged.modifiers), 60) "
                    f"FROM staged JOIN forms ON {same} WHERE form = $2 "
                    'AND staged.rowid NOT IN (SELECT "row" FROM problems)',
                    [f"does not hold: {error.public}", form],
                )
            else:
                self._profiles.append(profile)

    def records(self) -> Iterator[ConsentRecord]:
        """A record for every right row, in bounded memory."""
        same = " AND ".join(f"staged.{name} IS NOT DISTINCT FROM forms.{name}" for name in _FORM)
        rows = self._connection.execute(
            "SELECT donor_id, form, obtained_on::DATE, withdrawn_on::DATE, expires_on::DATE, status FROM staged "
            f'JOIN forms ON {same} WHERE staged.rowid NOT IN (SELECT "row" FROM bad) ORDER BY staged.rowid'
        )
        while chunk := rows.fetchmany(_FETCH):
            for donor, form, obtained, withdrawn, ends, status in chunk:
                profile = self._profiles[form]
                assert profile is not None
                yield ConsentRecord(
                    donor_id=donor,
                    profile=profile,
                    obtained_on=obtained,
                    withdrawn_on=_withdrawn(status, obtained, withdrawn),
                    expired=status == "expired",
                    expires_on=ends,
                )


def _withdrawn(status: str, obtained: datetime.date, withdrawn: datetime.date | None) -> datetime.date | None:
    # A day of withdrawal counts whatever the status says; a withdrawal without a day counts from the first day.
    return obtained if status == "withdrawn" and withdrawn is None else withdrawn
