"""Phenopackets v2 (GA4GH), in JSON: one packet, a list of them, or many one after another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from connexon_node.importing import ages
from connexon_node.importing.formats import batches
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import FileRefused

_NAMES = (
    *("id", "person_id", "sex", "age_range_y", "primary_disease_term", "disease_term", "disease_terms"),
    *("phenotype_terms", "karyotypic_sex"),
)
_SEXES = {"MALE": "male", "FEMALE": "female", "OTHER_SEX": "intersex", "UNKNOWN_SEX": "unknown", "": "unknown"}
_IDENTIFYING = ("dateOfBirth", "date_of_birth", "name", "gender_name")


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
    decoder, place, number = json.JSONDecoder(), 0, 0
    while match := re.compile(r"\s*\S").match(content, place):
        begins = match.end() - 1
        line = content.count("\n", 0, begins) + 1
        try:
            found, place = decoder.raw_decode(content, begins)
        except json.JSONDecodeError as error:
            raise FileRefused(f"{file} line {error.lineno}: this is not JSON, or is cut off: {error.msg}.") from error
        packets = found if isinstance(found, list) else [found]
        for packet in packets:
            number += 1
            if not isinstance(packet, dict) or not isinstance(packet.get("subject"), dict):
                raise FileRefused(f"{file} line {line}: packet {number} has no subject, so it is no phenopacket.")
            yield number, packet


def _row(packet: dict[str, Any], number: int, file: str) -> tuple[object, ...]:
    subject = packet["subject"]
    told = next((name for name in _IDENTIFYING if subject.get(name)), None)
    if told is not None:
        raise FileRefused(
            f"{file} packet {number}: subject.{told} identifies a person. Take it out; nothing was imported.",
            code="import.identifying",
        )
    diseases = [_term(disease, "term") for disease in packet.get("diseases", []) if not disease.get("excluded")]
    features = [_term(one, "type") for one in packet.get("phenotypicFeatures", []) if not one.get("excluded")]
    main = diseases[0] if diseases else None
    return (
        *(_text(subject.get("id")), _text(subject.get("id"))),
        _SEXES.get(str(subject.get("sex", "")), str(subject.get("sex"))),
        _age(subject),
        *(main, main, ";".join(diseases) or None, ";".join(dict.fromkeys(features)) or None),
        _text(subject.get("karyotypicSex")),
        number,
    )


def _term(holder: dict[str, Any], name: str) -> str:
    return str((holder.get(name) or {}).get("id", ""))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _age(subject: dict[str, Any]) -> str | None:
    """The range of the age at the last encounter. Moments in time tell no age without a date of birth."""
    last = subject.get("timeAtLastEncounter") or {}
    age = (last.get("age") or (last.get("ageRange") or {}).get("start") or {}).get("iso8601duration", "")
    found = re.match(r"P(\d+)Y", age)
    if found:
        return ages.age_range(int(found[1]))
    return ages.age_range(0) if re.match(r"P\d", age) else None
