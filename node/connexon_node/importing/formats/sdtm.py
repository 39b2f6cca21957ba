"""SDTM (CDISC) as CSV: DM, AE, EX, DS and findings domains become the clinical datasets.

Days count from RFSTDTC, which is day 0, where SDTM's own study days count it as day 1. No date is kept, nor an age
that is not a range.
"""

from __future__ import annotations

from pathlib import Path

from connexon_node.importing.ages import age_range_sql
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats.delimited import require_once, scan
from connexon_node.importing.mapping import Study
from connexon_node.importing.pseudonymity import refuse_names
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import FileFormat, header_of, inspect, plain_text
from connexon_node.importing.sql import quoted, text

_MISSING = "('', 'NA', 'NaN', '.')"
_DOMAINS = {
    "subjects": ("DM",),
    "adverse_events": ("AE",),
    "treatments": ("EX",),
    "survival": ("DS",),
    "outcomes": (),
}
_DEATH = "DEATH"
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
_AGE_UNITS = {
    "YEARS": "",
    "MONTHS": "/ 12",
    "WEEKS": "* 7 / 365.25",
    "DAYS": "/ 365.25",
    "HOURS": "/ 8766",
    "DECADES": "* 10",
}
"""AGEU, and what makes years of it."""
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
        _stage_subjects(reading, reading.mapping.sdtm.demographics)
    made = _MAKERS[reading.dataset.name](reading, header, domain)
    if reading.dataset.name == "survival":
        return Relation(tuple(made), _survival(reading, header), line="_line", ready=True, refused="_refused")
    spare = [
        name for name in header if name not in made and not name.upper().endswith(_DATES) and name.upper() != "AGE"
    ]
    columns = ", ".join(
        [*(f"{sql} AS {quoted(name)}" for name, sql in made.items()), *(f"d.{quoted(name)}" for name in spare)]
    )
    # A subject whom the demographics do not know keeps its rows, so that the missing reference is reported.
    joined = "domain AS d" if domain == "DM" else "domain AS d LEFT JOIN subject AS s USING (USUBJID)"
    refused = _age_in_no_unit(header) if domain == "DM" else "NULL::VARCHAR"
    number = _first(header, f"{domain}SEQ")
    table = f"(SELECT {columns}, d._line, {number} AS _number, {refused} AS _refused FROM {joined})"
    return Relation((*made, *spare), table, line="_line", ready=True, refused="_refused", apart="_number")


def _needed(wanted: tuple[str, ...] | None) -> str:
    return "no domain" if wanted is None else " or ".join(wanted) or "a findings domain"


def _subjects(reading: Reading, header: list[str], _domain: str) -> dict[str, str]:
    sdtm = reading.mapping.sdtm
    beside = reading.beside.get("ds.csv")
    disposition = "NULL::VARCHAR"
    if beside is not None:
        there = _stage_beside(reading, "ds.csv", "dispositions")
        if not {"DSCAT", "DSDECOD"} <= set(there):
            raise FileRefused(
                f"{beside.name} beside {reading.source.name} needs the columns DSCAT and DSDECOD to tell how "
                "participation ended. Add them, or move that file to another folder to import the subjects without it.",
                code="import.columns",
            )
        # Participation may end once in each epoch. Who died did so, whatever was completed before.
        ended = (
            "(SELECT first(upper(DSDECOD) ORDER BY upper(DSDECOD) = 'DEATH' DESC, _line DESC) FROM dispositions AS e "
            "WHERE e.USUBJID = d.USUBJID AND upper(e.DSCAT) = 'DISPOSITION EVENT' AND DSDECOD IS NOT NULL)"
        )
        disposition = _recoded(ended, _DISPOSITIONS, other="'other'")
    if died := _died(header, "d"):
        disposition = f"CASE WHEN {died} THEN 'death' ELSE {disposition} END"
    return {
        "id": "d.USUBJID",
        "person_id": "d.USUBJID",
        "trial_id": text(sdtm.trial) if sdtm.trial else "NULL::VARCHAR",
        "arm": _first(header, "ACTARMCD", "ARMCD"),
        "age_range_y": age_range_sql(_years(header)),
        "sex": _recoded(_first(header, "SEX"), _SEXES, other=_first(header, "SEX")),
        "disposition": disposition,
        "last_day": f"{_end(header, 'd')}::VARCHAR",
    }


def _years(header: list[str]) -> str:
    """SQL of the age in whole years, as text. Without a unit it is in years; what is no number stays as it is."""
    age = _first(header, "AGE")
    cases = " ".join(
        f"WHEN {text(unit)} THEN coalesce(TRY_CAST(floor(TRY_CAST({age} AS DOUBLE) {years}) AS BIGINT)::VARCHAR, {age})"
        for unit, years in _AGE_UNITS.items()
        if years
    )
    return f"CASE upper({_first(header, 'AGEU')}) {cases} ELSE {age} END"


def _age_in_no_unit(header: list[str]) -> str:
    reason = text(f"has an age in an unknown unit: AGEU is none of {', '.join(_AGE_UNITS)}")
    unknown = f"upper({_first(header, 'AGEU')}) NOT IN ({', '.join(map(text, _AGE_UNITS))})"
    return f"CASE WHEN {_first(header, 'AGE')} IS NOT NULL AND {unknown} THEN {reason} END"


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


def _survival_fields(reading: Reading, header: list[str], _domain: str) -> dict[str, str]:
    if "DSDECOD" not in header:
        raise FileRefused(f"{reading.source.name} has no column DSDECOD: it tells no event.", code="import.columns")
    return dict.fromkeys(("subject_id", "endpoint", "time_d", "event"), "")


def _survival(reading: Reading, header: list[str]) -> str:
    """One row for each subject with a day 0: when the event came, or when observation ended without it.

    That the event came is told by its row alone: where its day is not known, the subject is refused.
    """
    options = reading.mapping.sdtm
    ((people,),) = reading.connection.execute(
        "SELECT list(column_name) FROM duckdb_columns() WHERE table_name = 'subject'"
    ).fetchall()
    unknown = text("had the event on a day that is not known: complete DSSTDTC, or give DSSTDY")
    beside = text(f"died on a day that is not known: complete DTHDTC in this line of {options.demographics}")
    # An event of somebody whom the demographics do not know is kept, so that the missing reference is reported.
    return (
        f"(SELECT USUBJID AS subject_id, {text(options.endpoint)} AS endpoint, "
        f"CASE WHEN e._line IS NULL THEN {_end(people, 's')} ELSE e.day END::VARCHAR AS time_d, "
        "CASE WHEN e._line IS NULL THEN 'false' ELSE 'true' END AS event, "
        "CASE WHEN s._line IS NOT NULL AND e._line IS NOT NULL AND e.day IS NULL "
        f"THEN CASE WHEN e.beside THEN {beside} ELSE {unknown} END END AS _refused, "
        f"coalesce(e._line, s._line) AS _line FROM subject AS s FULL JOIN ({_first_events(options, header, people)}) "
        "AS e USING (USUBJID) WHERE s.RFSTDTC IS NOT NULL OR s._line IS NULL)"
    )


def _first_events(options: Study, header: list[str], people: list[str]) -> str:
    """SQL of the first event of each subject: its day, where it is known, its line, and whether only `people` tell.

    The demographics know of deaths, too, and of their day best.
    """
    terms = [term.upper() for term in options.event_terms]
    noted = (
        f"SELECT d.USUBJID, upper(d.DSDECOD) AS term, {_day_number(header, 'DSST')} AS day, NULL::INTEGER AS died_on, "
        "d._line, false AS beside FROM domain AS d LEFT JOIN subject AS s USING (USUBJID) "
        f"WHERE upper(d.DSDECOD) IN ({', '.join(map(text, terms))})"
    )
    if _DEATH in terms and (died := _died(people, "s")):
        deaths = f"SELECT USUBJID, '{_DEATH}', NULL, {_died_on(people)}, _line, true FROM subject AS s WHERE {died}"
        noted += f" UNION ALL {deaths}"
    # One kind of event may be noted in several rows; that it came first is known where every kind has its day.
    kinds = (
        "SELECT USUBJID, coalesce(min(died_on), min(day)) AS day, arg_min(_line, (beside, _line)) AS _line, "
        f"bool_and(beside) AS beside FROM ({noted}) GROUP BY USUBJID, term"
    )
    return (
        "SELECT USUBJID, CASE WHEN bool_and(day IS NOT NULL) THEN min(day) END AS day, "
        "arg_min(_line, (beside, _line)) AS _line, bool_and(beside) AS beside "
        f"FROM ({kinds}) GROUP BY USUBJID"
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
    refuse_names(name, [one for one in header if not reading.mapping.excludes(one)], reading.dataset)
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


def _stage_subjects(reading: Reading, file: str) -> None:
    """Read the demographics from a file beside the imported one: one row for each subject, with its day 0."""
    header = _stage_beside(reading, file, "subject")
    if "RFSTDTC" not in header:
        raise FileRefused(
            f"{file} has no column RFSTDTC, so it does not tell the subjects' day 0.", code="import.columns"
        )
    columns = ", ".join(map(quoted, header))
    reading.connection.execute(
        f"DELETE FROM subject WHERE _line NOT IN (SELECT min(_line) FROM subject GROUP BY {columns})"
    )
    twice = reading.connection.execute(
        "SELECT min(_line), max(_line) FROM subject WHERE USUBJID IS NOT NULL "
        "GROUP BY USUBJID HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
    ).fetchone()
    if twice is not None:
        raise FileRefused(
            f"{file} tells of one subject in rows {twice[0]} and {twice[1]}, and not the same. Leave one row for each "
            f"subject there, then import {reading.source.name} again.",
            code="import.subject_twice",
        )


def _stage_beside(reading: Reading, name: str, table: str) -> list[str]:
    """Read another domain from a file beside the imported one. Returns its columns."""
    file = reading.beside.get(name.lower())
    if file is None:
        raise FileRefused(
            f"{reading.source.name} needs the subjects' day 0 from {name} beside it, which is not there.",
            code="import.needs_file",
        )
    source = inspect(file.path, FileFormat.SDTM, reading.mapping.encoding, name=file.name)
    header = _stage_domain(reading, plain_text(source, reading.scratch), source.file_format, source.name, table)
    source.require_unchanged()
    return header


def _first(header: list[str], *names: str) -> str:
    """SQL of the first of these columns that the domain has."""
    found = next((name for name in names if name in header), None)
    return f"d.{quoted(found)}" if found else "NULL::VARCHAR"


def _day(zero: str, moment: str) -> str:
    """SQL of whole days from one moment to another; nothing where either is no whole day."""
    return f"(TRY_CAST(left({moment}, 10) AS DATE) - TRY_CAST(left({zero}, 10) AS DATE))"


def _end(header: list[str], table: str) -> str:
    """SQL of the last whole day on which a subject was observed, from day 0."""
    there = [name for name in ("RFPENDTC", "RFENDTC") if name in header and "RFSTDTC" in header]
    days = [_day(f"{table}.RFSTDTC", f"{table}.{name}") for name in there]
    return f"coalesce({', '.join([*days, 'NULL::INTEGER'])})"


def _died(header: list[str], table: str) -> str:
    """A condition that is true for subjects who died as the demographics say; empty where these do not tell."""
    told = {"DTHFL": f"upper({table}.DTHFL) = 'Y'", "DTHDTC": f"{table}.DTHDTC IS NOT NULL"}
    return " OR ".join(f"coalesce({condition}, false)" for name, condition in told.items() if name in header)


def _died_on(header: list[str]) -> str:
    """SQL of the day of a death from day 0; nothing where it is not known whole."""
    return _day("s.RFSTDTC", "s.DTHDTC") if "DTHDTC" in header else "NULL::INTEGER"


def _study_day(header: list[str], stem: str) -> str:
    """SQL of the day from day 0, as text."""
    return f"({_day_number(header, stem)})::VARCHAR"


def _day_number(header: list[str], stem: str) -> str:
    """SQL of the day from day 0: of the date where it is whole, otherwise of the study day, which knows no 0."""
    dates = _day("s.RFSTDTC", _first(header, f"{stem}DTC"))
    told = f"TRY_CAST({_first(header, f'{stem}DY')} AS INTEGER)"
    return f"coalesce({dates}, CASE WHEN {told} > 0 THEN {told} - 1 ELSE {told} END)"


def _recoded(value: str, codes: dict[str, str], *, other: str) -> str:
    cases = " ".join(f"WHEN {text(code)} THEN {text(meaning)}" for code, meaning in codes.items())
    return f"CASE WHEN {value} IS NULL THEN NULL ELSE CASE {value} {cases} ELSE {other} END END"
