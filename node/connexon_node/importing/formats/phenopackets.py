"""Phenopackets v2 (GA4GH), in JSON: one packet, a list of them, or many one after another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from connexon_node.importing import ages
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats import batches
from connexon_node.importing.relation import Reading, Relation

_NAMES = (
    *("id", "person_id", "sex", "age_range_y", "primary_disease_term", "disease_term", "disease_terms"),
    *("phenotype_terms", "karyotypic_sex"),
)
_SEXES = {"MALE": "male", "FEMALE": "female", "OTHER_SEX": "intersex", "UNKNOWN_SEX": "unknown", "": "unknown"}
_IDENTIFYING = ("dateOfBirth", "name", "genderName")
_DURATION = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T[0-9HMS.]+)?")
"""A time in ISO 8601: years, months, weeks and days."""


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
_SHAPES: dict[str, type] = {
    "diseases": list,
    "phenotypicFeatures": list,
    "subject.id": str,
    "subject.sex": str,
    "subject.karyotypicSex": str,
    "subject.timeAtLastEncounter": dict,
    "subject.timeAtLastEncounter.age": dict,
    "subject.timeAtLastEncounter.age.iso8601duration": str,
    "subject.timeAtLastEncounter.ageRange": dict,
    "subject.timeAtLastEncounter.ageRange.start": dict,
    "subject.timeAtLastEncounter.ageRange.start.iso8601duration": str,
    "subject.timeAtLastEncounter.ageRange.end": dict,
    "subject.timeAtLastEncounter.ageRange.end.iso8601duration": str,
}
"""What is read of a packet, and its kind; null stands for nothing, as in protobuf."""


def relation(reading: Reading) -> Relation:
    """One row per packet's subject: sex, age range, diseases and phenotypic features that are not excluded.

    Raises FileRefused where the file is no JSON, or a packet holds a date of birth.
    """
    schema = batches.texts(_NAMES)
    name, path = reading.source.name, reading.plain

    def read() -> Iterator[Any]:
        content = path.read_text(encoding="utf-8-sig")
        yield from batches.batched((_row(packet, number, name) for number, packet in _packets(content, name)), schema)

    return Relation(_NAMES, batches.offer(reading, "packets", schema, read), line="_line", ready=True)


def _packets(content: str, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder, place, number = json.JSONDecoder(object_hook=_in_camel_case), 0, 0
    while match := re.compile(r"\s*\S").match(content, place):
        begins = match.end() - 1
        line = content.count("\n", 0, begins) + 1
        try:
            found, place = decoder.raw_decode(content, begins)
        except RecursionError as error:
            raise FileRefused(
                f"{file} line {line}: it is nested more deeply than a phenopacket.", code="import.too_large"
            ) from error
        except json.JSONDecodeError as error:
            raise FileRefused(f"{file} line {error.lineno}: this is not JSON, or is cut off: {error.msg}.") from error
        packets = found if isinstance(found, list) else [found]
        for packet in packets:
            number += 1
            if not isinstance(packet, dict) or not isinstance(packet.get("subject"), dict):
                raise FileRefused(f"{file} line {line}: packet {number} has no subject, so it is no phenopacket.")
            try:
                _require_shape(packet, f"{file} packet {number}")
            except RecursionError as error:
                raise FileRefused(f"{file} packet {number} is nested too deeply.", code="import.too_large") from error
            yield number, packet


def _require_shape(packet: dict[str, Any], where: str) -> None:
    """Raise FileRefused where a part that is read is not of the kind that the standard has there."""
    for name, kind in _SHAPES.items():
        *path, last = name.split(".")
        holder: Any = packet
        for step in path:
            holder = (holder or {}).get(step)
        value = (holder or {}).get(last)
        if value is not None and not isinstance(value, kind):
            raise FileRefused(f"{where}: {name} is {_called(value)}, where {_KINDS[kind]} must be.")
    for name, term in (("diseases", "term"), ("phenotypicFeatures", "type")):
        for one in packet.get(name) or []:
            if not isinstance(one, dict) or not isinstance(one.get(term) or {}, dict):
                raise FileRefused(f"{where}: {name} holds {_called(one)}, where an object with {term} must be.")


def _called(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")


def _row(packet: dict[str, Any], number: int, file: str) -> tuple[object, ...]:
    subject = packet["subject"]
    told = next((name for name in _IDENTIFYING if subject.get(name)), None)
    if told is not None:
        raise FileRefused(
            f"{file} packet {number}: subject.{told} identifies a person. Take it out; nothing was imported.",
            code="import.identifying",
        )
    diseases = [_term(disease, "term") for disease in packet.get("diseases") or [] if not disease.get("excluded")]
    features = [_term(one, "type") for one in packet.get("phenotypicFeatures") or [] if not one.get("excluded")]
    main = diseases[0] if diseases else None
    return (
        *(_text(subject.get("id")), _text(subject.get("id"))),
        _SEXES.get(subject.get("sex") or "", subject.get("sex")),
        _age(subject),
        *(main, main, ";".join(diseases) or None, ";".join(dict.fromkeys(features)) or None),
        _text(subject.get("karyotypicSex")),
        number,
    )


def _term(holder: dict[str, Any], name: str) -> str:
    return str((holder.get(name) or {}).get("id", ""))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _in_camel_case(found: dict[str, Any]) -> dict[str, Any]:
    """Translate snake_case field names of the schema to the JSON names of the standard."""
    return {re.sub(r"_([a-z])", lambda letter: letter[1].upper(), name): value for name, value in found.items()}


def _age(subject: dict[str, Any]) -> str | None:
    """The range of the age at the last encounter; as it is written where it is in no single range.

    Moments in time tell no age without a date of birth.
    """
    last = subject.get("timeAtLastEncounter") or {}
    if last.get("ageRange"):
        ends = [(last["ageRange"].get(end) or {}).get("iso8601duration") or "" for end in ("start", "end")]
        ranges = {_range(end) for end in ends}
        return ranges.pop() if len(ranges) == 1 else " to ".join(ends)
    return _range((last.get("age") or {}).get("iso8601duration") or "") or None


def _range(duration: str) -> str:
    """The range that holds a time of life; what is none stays as it is, and meets the dictionary's checks."""
    told = _DURATION.fullmatch(duration)
    if told is None or not any(told.groups()):
        return duration
    years, months, weeks, days = (int(part or 0) for part in told.groups())
    return ages.age_range(int(years + months / 12 + (weeks * 7 + days) / 365.25))
