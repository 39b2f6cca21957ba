"""Quality: specifications as data with their source, tests against them, control runs, round robins, deviations."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.model import Dataset, Sensitivity

SPECIFICATIONS = Dataset(
    name="specifications",
    group="quality",
    title="Specifications that lots and products are released by",
    sensitivity=Sensitivity.PUBLIC,
    personal=False,
    fields=(
        common_fields.key("Identifier of this version at the center"),
        common_fields.line("name", "Name", required=True),
        common_fields.code("version", "Version", required=True),
        common_fields.code("applies_to", "Bank level or product it is for"),
        common_fields.choice("grade", "Grade it is for", "research", "clinical"),
        common_fields.code("source", "Who set it, for example ISCBI2009, GAiT2018, CiRA or local", required=True),
        common_fields.date("effective_on", "First day in force"),
    ),
)

SPECIFICATION_ITEMS = Dataset(
    name="specification_items",
    group="quality",
    title="Attributes of specifications with their limits",
    sensitivity=Sensitivity.PUBLIC,
    personal=False,
    no_more_than=(("low", "high"),),
    fields=(
        common_fields.key("Identifier of the item at the center"),
        common_fields.reference("specification_id", "specifications", "Specification", required=True),
        common_fields.code("attribute", "What is tested", required=True),
        common_fields.code("method", "Method"),
        common_fields.choice(
            "operator",
            "How value and limit compare",
            "<=",
            ">=",
            "<",
            ">",
            "between",
            "equals",
            "negative",
            "match",
            required=True,
        ),
        common_fields.number("low", "Lower limit"),
        common_fields.number("high", "Upper limit"),
        common_fields.unit("UCUM unit of the limits"),
        common_fields.choice(
            "role", "Whether it blocks release or is only reported", "release", "reference", required=True
        ),
    ),
)

QUALITY_TESTS = Dataset(
    name="quality_tests",
    group="quality",
    title="Results of quality tests of lots and batches",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("lot_id", "batch_id"),
    sorted_by=("attribute",),
    groups_per_donor=6,
    records_per_donor=10,
    fields=(
        common_fields.key("Identifier of the test at the center"),
        common_fields.reference("lot_id", "lots", "Lot that was tested"),
        common_fields.reference("batch_id", "batches", "Batch that was tested"),
        common_fields.reference("specification_item_id", "specification_items", "Limit that it was tested against"),
        common_fields.code("attribute", "What was tested", required=True),
        common_fields.code("method", "Method"),
        common_fields.reference("protocol_id", "protocols", "Protocol of the test"),
        common_fields.number("value_num", "Value as a number"),
        common_fields.line("value_text", "Value as text"),
        common_fields.unit("UCUM unit of the value"),
        common_fields.choice("comparator", "How the value is meant", "=", "<", "<=", ">", ">="),
        common_fields.number("lod", "Limit of detection, in the same unit", low=0),
        common_fields.date("tested_on", "Day of the test"),
        common_fields.code("lab_center_id", "Laboratory"),
        common_fields.code("instrument", "Instrument"),
        common_fields.line("analyst_code", "Pseudonym of the analyst", identifying=True, form=patterns.CODE),
        common_fields.choice("verdict", "Verdict", "pass", "fail", "inconclusive", "not_judged", required=True),
    ),
)

CONTROL_RUNS = Dataset(
    name="control_runs",
    group="quality",
    title="Runs of control materials, which belong to no person",
    sensitivity=Sensitivity.CONTROLLED,
    personal=False,
    sorted_by=("assay", "level"),
    fields=(
        common_fields.key("Identifier of the control run at the center"),
        common_fields.code("assay", "Assay", required=True),
        common_fields.code("level", "Level of the control", required=True),
        common_fields.number("value", "Value", required=True),
        common_fields.unit("UCUM unit of the value"),
        common_fields.whole("run_no", "Number of the run", "{run}", ungrouped=True),
        common_fields.date("measured_on", "Day"),
    ),
)

PROFICIENCY_ROUNDS = Dataset(
    name="proficiency_rounds",
    group="quality",
    title="Rounds of comparison between laboratories",
    sensitivity=Sensitivity.PUBLIC,
    personal=False,
    fields=(
        common_fields.key("Identifier of the round"),
        common_fields.code("assay", "Assay", required=True),
        common_fields.code("item", "Item that was sent round"),
        common_fields.number("assigned_value", "Assigned value"),
        common_fields.number("sigma_pt", "Standard deviation for proficiency assessment (ISO 13528)", low=0),
        common_fields.unit("UCUM unit of the values"),
    ),
)

PROFICIENCY_RESULTS = Dataset(
    name="proficiency_results",
    group="quality",
    title="The center's own results in such rounds",
    sensitivity=Sensitivity.CONTROLLED,
    personal=False,
    fields=(
        common_fields.key("Identifier of the result at the center"),
        common_fields.reference("round_id", "proficiency_rounds", "Round", required=True),
        common_fields.number("value", "Value", required=True),
        common_fields.number("u", "Standard uncertainty of the value", low=0),
    ),
)

DEVIATIONS = Dataset(
    name="deviations",
    group="quality",
    title="Deviations in production and what was done about them",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("batch_id",),
    fields=(
        common_fields.key("Identifier of the deviation at the center"),
        common_fields.reference("batch_id", "batches", "Batch", required=True),
        common_fields.choice("severity", "Class", "minor", "major", "critical", required=True),
        common_fields.line("description", "What happened", identifying=True),
        common_fields.line("capa", "What was done about it", identifying=True),
        common_fields.date("closed_on", "Day it was closed"),
    ),
)

DATASETS = (
    SPECIFICATIONS,
    SPECIFICATION_ITEMS,
    QUALITY_TESTS,
    CONTROL_RUNS,
    PROFICIENCY_ROUNDS,
    PROFICIENCY_RESULTS,
    DEVIATIONS,
)
