"""The dictionary as a page to read, and as data."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from connexon_node.data.dictionary.model import Dataset, Dictionary, Field
from connexon_node.data.dictionary.relations import steps

_HEAD = """# The dictionary, version {version}

What a center's data is, said once: import, storage, catalog and release follow it. This page is written by
`connexon-node dictionary --markdown`.

Units are UCUM. A field that identifies somebody is never offered to researchers. Ways lead a condition to another row:
`donor.sex`, `cell_line.disease_term`; `has` leads back. Rows of datasets that belong to nobody need no consent and
leave rounded; all others count only with the consent of the person that their path leads to.
"""


def markdown(dictionary: Dictionary) -> str:
    """The whole page."""
    parts = [_HEAD.format(version=dictionary.version)]
    for group, datasets in groupby(dictionary.datasets, key=lambda dataset: dataset.group):
        parts.append(f"## {group[0].upper()}{group[1:]}\n")
        parts += [_section(dictionary, dataset) for dataset in datasets]
    return "\n".join(parts)


def document(dictionary: Dictionary, dataset: Dataset) -> dict[str, Any]:
    """One dataset as JSON has it."""
    return {
        "name": dataset.name,
        "title": dataset.title,
        "group": dataset.group,
        "sensitivity": dataset.sensitivity.value,
        "personal": dataset.personal,
        "to_count": dataset.sensitivity.needs,
        "donor_through": list(dataset.donor_through),
        "once": list(dataset.once),
        "ways": {name: step.target.name for name, step in steps(dictionary, dataset).items()},
        "fields": [
            {
                "name": field.name,
                "type": field.type.value,
                "title": field.title,
                "unit": field.unit,
                "ontologies": list(field.ontologies),
                "values": list(field.values),
                "form": field.form.what if field.form else "",
                "minimum": field.minimum,
                "maximum": field.maximum,
                "required": field.required,
                "unique": field.unique,
                "many": field.many,
                "identifying": field.identifying,
                "groupable": field.groupable,
                "references": field.references,
            }
            for field in dataset.fields
        ],
    }


def content(field: Field) -> str:
    """What a field may hold, in words."""
    parts = []
    if field.references:
        parts.append(f"id in {field.references}")
    if field.values:
        shown = field.values if len(field.values) <= 30 else (*field.values[:12], "...")
        parts.append(", ".join(shown))
    elif field.form is not None:
        parts.append(field.form.what)
    if field.ontologies:
        parts.append(" or ".join(field.ontologies))
    if field.minimum is not None or field.maximum is not None:
        low, high = (f"{bound:,.10g}" if bound is not None else "" for bound in (field.minimum, field.maximum))
        parts.append(f"{low} to {high}" if low and high else f"from {low}" if low else f"to {high}")
    if field.unit:
        parts.append(f"in {field.unit}")
    return "; ".join(parts)


def remarks(field: Field) -> str:
    """What else is to be known of a field."""
    told = {
        "required": field.required,
        "unique": field.unique,
        "several values": field.many,
        "identifying": field.identifying,
        "counts by it": field.groupable,
        f"another name of {field.alias_of}": bool(field.alias_of),
    }
    return ", ".join(remark for remark, holds in told.items() if holds)


def facts(dictionary: Dictionary, dataset: Dataset) -> list[str]:
    """Sentences on a whole dataset."""
    told = [f"Sensitivity: {dataset.sensitivity.value}. To count: {dataset.sensitivity.needs}."]
    if dataset.personal:
        through = " or ".join(dataset.donor_through)
        told.append(f"Consent: of the person that {through} leads to.")
    else:
        told.append("Belongs to nobody: needs no consent.")
    if dataset.once:
        told.append(f"One row for each {', '.join(dataset.once[:-1])} and {dataset.once[-1]}.")
    ways = [f"{name} ({step.target.name})" for name, step in steps(dictionary, dataset).items()]
    if ways:
        told.append(f"Ways: {', '.join(ways)}.")
    return told


def _section(dictionary: Dictionary, dataset: Dataset) -> str:
    lines = [f"### {dataset.name}", "", f"{dataset.title}. {' '.join(facts(dictionary, dataset))}", ""]
    lines += ["| field | type | holds | remarks | |", "|---|---|---|---|---|"]
    for field in dataset.fields:
        cells = (f"`{field.name}`", field.type.value, content(field), remarks(field), field.title)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join([*lines, ""])
