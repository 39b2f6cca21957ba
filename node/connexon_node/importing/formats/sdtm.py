"""SDTM (CDISC) as CSV: DM, AE, EX, DS and findings domains become the clinical datasets.

Days count from RFSTDTC, which is day 0, where SDTM's own study days count it as day 1. No date is kept, nor an age
that is not a range.
"""

from __future__ import annotations

from pathlib import Path

from connexon_node.importing.ages import age_range_sql
from connexon_node.importing.formats.delimited import require_once, scan
from connexon_node.importing.pseudonymity import refuse_names
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import FileFormat, FileRefused, header_of, inspect, plain_text
from connexon_node.importing.sql import quoted, text

_MISSING = "('', 'NA', 'NaN', '.')"
_DOMAINS = {
    "subjects": ("DM",),
    "adverse_events": ("AE",),
    "treatments": ("EX",),
    "survival": ("DS",),
    "outcomes": (),
}
_DATES = ("DTC", "DTM", "DT")
_DISPOSITIONS = {
    "COMPLETED": "completed",
    "ADVERSE EVENT": "adverse_event",
    "DEATH": "death",
    "LOST TO FOLLOW-UP": "lost",
    "SCREEN FAILURE": "screen_failure",
    "WITHDRAWAL BY SUBJECT": "withdrawn",
    "PHYSICIAN DECISION": "withdrawn",
    "STUDY TERMINATED BY SPONSOR": "other",
    "PROTOCOL VIOLATION": "other",
    "LACK OF EFFICACY": "other",
}
_RELATED = {
    **dict.fromkeys(("NONE", "NOT RELATED", "UNRELATED", "N"), "none"),
    **dict.fromkeys(("REMOTE", "UNLIKELY", "UNLIKELY RELATED"), "remote"),
    **dict.fromkeys(("POSSIBLE", "POSSIBLY RELATED"), "possible"),
    **dict.fromkeys(("PROBABLE", "PROBABLY RELATED"), "probable"),
    **dict.fromkeys(("RELATED", "DEFINITE", "Y"), "yes"),
}
_SEXES = {"F": "female", "M": "male", "UNDIFFERENTIATED": "intersex", "U": "unknown"}


def relation(reading: Reading) -> Relation:
    """The domain as the dataset's rows. Raises FileRefused where the file is another domain than the dataset needs."""
    header = _stage_domain(reading, reading.plain, reading.source.file_format, reading.source.name, "domain")
    (domains,) = reading.connection.execute('SELECT list(DISTINCT upper("DOMAIN")) FROM domain').fetchone()
    wanted = _DOMAINS.get(reading.dataset.name)
    if wanted is None or len(domains) != 1 or (wanted and domains[0] not in wanted):
        raise FileRefused(
            f"{reading.source.name} is SDTM domain {', '.join(map(str, domains))}; "
            f"{reading.dataset.name} is made of {_needed(wanted)}.",
            code="import.unfit",
        )
    domain = domains[0]
    if domain != "DM":
        _stage_beside(reading, reading.mapping.sdtm.demographics, "subject")
    made = _MAKERS[reading.dataset.name](reading, header, domain)
    if reading.dataset.name == "survival":
        return Relation(tuple(made), _survival(reading), line="_line", ready=True)
    spare = [
        name for name in header if name not in made and not name.upper().endswith(_DATES) and name.upper() != "AGE"
    ]
    columns = ", ".join(
        [*(f"{sql} AS {quoted(name)}" for name, sql in made.items()), *(f"d.{quoted(name)}" for name in spare)]
    )
    # A subject whom the demographics do not know keeps its rows, so that the missing reference is reported.
    joined = "domain AS d" if domain == "DM" else "domain AS d LEFT JOIN subject AS s USING (USUBJID)"
    return Relation((*made, *spare), f"(SELECT {columns}, d._line FROM {joined})", line="_line", ready=True)


def _needed(wanted: tuple[str, ...] | None) -> str:
    return "no domain" if wanted is None else " or ".join(wanted) or "a findings domain"


def _subjects(reading: Reading, header: list[str], _domain: str) -> dict[str, str]:
    sdtm = reading.mapping.sdtm
    beside = reading.source.path.parent / "ds.csv"
    disposition = "NULL::VARCHAR"
    if beside.is_file():
        _stage_beside(reading, beside.name, "dispositions")
        ended = (
            "(SELECT any_value(upper(DSDECOD)) FROM dispositions AS e WHERE e.USUBJID = d.USUBJID "
            "AND upper(e.DSCAT) = 'DISPOSITION EVENT')"
        )
        disposition = _recoded(ended, _DISPOSITIONS, other="'other'")
    return {
        "id": "d.USUBJID",
        "person_id": "d.USUBJID",
        "trial_id": text(sdtm.trial) if sdtm.trial else "NULL::VARCHAR",
        "arm": _first(header, "ACTARMCD", "ARMCD"),
        "age_range_y": age_range_sql(_first(header, "AGE")),
        "sex": _recoded(_first(header, "SEX"), _SEXES, other=_first(header, "SEX")),
        "disposition": disposition,
        "last_day": f"({_day('d.RFSTDTC', _first(header, 'RFPENDTC', 'RFENDTC'))})::VARCHAR",
    }


def _adverse_events(_reading: Reading, header: list[str], _domain: str) -> dict[str, str]:
    related = _first(header, "AEREL")
    return {
        "subject_id": "d.USUBJID",
        "pt_text": _first(header, "AEDECOD", "AETERM"),
        "pt_code": _first(header, "AEPTCD"),
        "soc": _first(header, "AESOC", "AEBODSYS"),
        "grade_ctcae": _first(header, "AETOXGR"),
        "serious": _recoded(_first(header, "AESER"), {"Y": "true", "N": "false"}, other=_first(header, "AESER")),
        "related": _recoded(f"upper({related})", _RELATED, other=related),
        "onset_day": _study_day(header, "AEST"),
        "resolved_day": _study_day(header, "AEEN"),
    }


def _treatments(_reading: Reading, header: list[str], _domain: str) -> dict[str, str]:
    return {
        "subject_id": "d.USUBJID",
        "product_code": _first(header, "EXTRT"),
        "dose": _first(header, "EXDOSE"),
        "dose_unit": _first(header, "EXDOSU"),
        "route": _first(header, "EXROUTE"),
        "day": _study_day(header, "EXST"),
        "last_day": _study_day(header, "EXEN"),
    }


def _outcomes(_reading: Reading, header: list[str], domain: str) -> dict[str, str]:
    return {
        "subject_id": "d.USUBJID",
        "measure": _first(header, f"{domain}TESTCD"),
        "day": _study_day(header, domain),
        "value": _first(header, f"{domain}STRESN"),
        "unit": _first(header, f"{domain}STRESU"),
    }


def _survival_fields(_reading: Reading, _header: list[str], _domain: str) -> dict[str, str]:
    return dict.fromkeys(("subject_id", "endpoint", "time_d", "event"), "")


def _survival(reading: Reading) -> str:
    """One row for each subject with a day 0: when the event came, or when observation ended without it."""
    options = reading.mapping.sdtm
    events = ", ".join(text(term.upper()) for term in options.event_terms)
    ((header,),) = reading.connection.execute(
        "SELECT list(column_name) FROM duckdb_columns() WHERE table_name = 'subject'"
    ).fetchall()
    ends = [f"s.{quoted(name)}" for name in ("RFPENDTC", "RFENDTC") if name in header]
    ended = _day("s.RFSTDTC", f"coalesce({', '.join(ends)})")
    return (
        f"(SELECT s.USUBJID AS subject_id, {text(options.endpoint)} AS endpoint, "
        f"coalesce(e.day, {ended})::VARCHAR AS time_d, CASE WHEN e.day IS NULL THEN 'false' ELSE 'true' END AS event, "
        "s._line AS _line FROM subject AS s LEFT JOIN ("
        f"SELECT d.USUBJID, min({_day('s.RFSTDTC', 'd.DSSTDTC')}) AS day FROM domain AS d "
        f"JOIN subject AS s USING (USUBJID) WHERE upper(d.DSDECOD) IN ({events}) GROUP BY ALL"
        ") AS e USING (USUBJID) WHERE s.RFSTDTC IS NOT NULL)"
    )


_MAKERS = {
    "subjects": _subjects,
    "adverse_events": _adverse_events,
    "treatments": _treatments,
    "outcomes": _outcomes,
    "survival": _survival_fields,
}


def _stage_domain(reading: Reading, plain: Path, file_format: FileFormat, name: str, table: str) -> list[str]:
    header, delimiter = header_of(plain, file_format, name)
    require_once(header, name)
    refuse_names(name, [one for one in header if one not in reading.mapping.exclude], reading.dataset)
    lacking = {"DOMAIN", "USUBJID"} - set(header)
    if lacking:
        raise FileRefused(f"{name} has no column {min(lacking)}: it is no SDTM domain.", code="import.columns")
    columns = ", ".join(
        f"CASE WHEN trim({quoted(one)}) IN {_MISSING} THEN NULL ELSE trim({quoted(one)}) END AS {quoted(one)}"
        for one in header
    )
    numbered = f"{columns}, row_number() OVER () + 1 AS _line"
    reading.connection.execute(f"CREATE TABLE {table} AS SELECT {numbered} FROM {scan(plain, header, delimiter)}")
    return header


def _stage_beside(reading: Reading, file: str, table: str) -> None:
    """Read another domain from a file beside the imported one."""
    path = reading.source.path.parent / file
    if not path.is_file():
        raise FileRefused(
            f"{reading.source.name} needs the subjects' day 0 from {file} beside it, which is not there.",
            code="import.needs_file",
        )
    source = inspect(path, FileFormat.SDTM, reading.mapping.encoding)
    _stage_domain(reading, plain_text(source, reading.scratch), source.file_format, source.name, table)
    source.require_unchanged()


def _first(header: list[str], *names: str) -> str:
    """SQL of the first of these columns that the domain has."""
    found = next((name for name in names if name in header), None)
    return f"d.{quoted(found)}" if found else "NULL::VARCHAR"


def _day(zero: str, moment: str) -> str:
    """SQL of whole days from one moment to another; nothing where either is no whole day."""
    return f"(TRY_CAST(left({moment}, 10) AS DATE) - TRY_CAST(left({zero}, 10) AS DATE))"


def _study_day(header: list[str], stem: str) -> str:
    """SQL of the day from day 0: of the date where it is whole, otherwise of the study day, which knows no 0."""
    dates = _day("s.RFSTDTC", _first(header, f"{stem}DTC"))
    told = f"TRY_CAST({_first(header, f'{stem}DY')} AS INTEGER)"
    return f"coalesce({dates}, CASE WHEN {told} > 0 THEN {told} - 1 ELSE {told} END)::VARCHAR"


def _recoded(value: str, codes: dict[str, str], *, other: str) -> str:
    cases = " ".join(f"WHEN {text(code)} THEN {text(meaning)}" for code, meaning in codes.items())
    return f"CASE WHEN {value} IS NULL THEN NULL ELSE CASE {value} {cases} ELSE {other} END END"
