"""Quality: specifications as data with their source, tests against them, control runs, round robins, deviations."""

from __future__ import annotations

from connexon_node.dictionary import forms, usual
from connexon_node.dictionary.model import Dataset, Sensitivity

SPECIFICATIONS = Dataset(
    name="specifications",
    group="quality",
    title="Specifications that lots and products are released by",
    sensitivity=Sensitivity.PUBLIC,
    personal=False,
    fields=(
        usual.key("Identifier of this version at the center"),
        usual.line("name", "Name", required=True),
        usual.code("version", "Version", required=True),
        usual.code("applies_to", "Bank level or product it is for"),
        usual.choice("grade", "Grade it is for", "research", "clinical"),
        usual.code("source", "Who set it, for example ISCBI2009, GAiT2018, CiRA or local", required=True),
        usual.date("effective_on", "First day in force"),
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
        usual.key("Identifier of the item at the center"),
        usual.reference("specification_id", "specifications", "Specification", required=True),
        usual.code("attribute", "What is tested", required=True),
        usual.code("method", "Method"),
        usual.choice(
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
        usual.number("low", "Lower limit"),
        usual.number("high", "Upper limit"),
        usual.unit("UCUM unit of the limits"),
        usual.choice("role", "Whether it blocks release or is only reported", "release", "reference", required=True),
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
        usual.key("Identifier of the test at the center"),
        usual.reference("lot_id", "lots", "Lot that was tested"),
        usual.reference("batch_id", "batches", "Batch that was tested"),
        usual.reference("specification_item_id", "specification_items", "Limit that it was tested against"),
        usual.code("attribute", "What was tested", required=True),
        usual.code("method", "Method"),
        usual.reference("protocol_id", "protocols", "Protocol of the test"),
        usual.number("value_num", "Value as a number"),
        usual.line("value_text", "Value as text"),
        usual.unit("UCUM unit of the value"),
        usual.choice("comparator", "How the value is meant", "=", "<", "<=", ">", ">="),
        usual.number("lod", "Limit of detection, in the same unit", low=0),
        usual.date("tested_on", "Day of the test"),
        usual.code("lab_center_id", "Laboratory"),
        usual.code("instrument", "Instrument"),
        usual.line("analyst_code", "Pseudonym of the analyst", identifying=True, form=forms.CODE),
        usual.choice("verdict", "Verdict", "pass", "fail", "inconclusive", "not_judged", required=True),
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
        usual.key("Identifier of the control run at the center"),
        usual.code("assay", "Assay", required=True),
        usual.code("level", "Level of the control", required=True),
        usual.number("value", "Value", required=True),
        usual.unit("UCUM unit of the value"),
        usual.whole("run_no", "Number of the run", "{run}", ungrouped=True),
        usual.date("measured_on", "Day"),
    ),
)

PROFICIENCY_ROUNDS = Dataset(
    name="proficiency_rounds",
    group="quality",
    title="Rounds of comparison between laboratories",
    sensitivity=Sensitivity.PUBLIC,
    personal=False,
    fields=(
        usual.key("Identifier of the round"),
        usual.code("assay", "Assay", required=True),
        usual.code("item", "Item that was sent round"),
        usual.number("assigned_value", "Assigned value"),
        usual.number("sigma_pt", "Standard deviation for proficiency assessment (ISO 13528)", low=0),
        usual.unit("UCUM unit of the values"),
    ),
)

PROFICIENCY_RESULTS = Dataset(
    name="proficiency_results",
    group="quality",
    title="The center's own results in such rounds",
    sensitivity=Sensitivity.CONTROLLED,
    personal=False,
    fields=(
        usual.key("Identifier of the result at the center"),
        usual.reference("round_id", "proficiency_rounds", "Round", required=True),
        usual.number("value", "Value", required=True),
        usual.number("u", "Standard uncertainty of the value", low=0),
    ),
)

DEVIATIONS = Dataset(
    name="deviations",
    group="quality",
    title="Deviations in production and what was done about them",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("batch_id",),
    fields=(
        usual.key("Identifier of the deviation at the center"),
        usual.reference("batch_id", "batches", "Batch", required=True),
        usual.choice("severity", "Class", "minor", "major", "critical", required=True),
        usual.line("description", "What happened", identifying=True),
        usual.line("capa", "What was done about it", identifying=True),
        usual.date("closed_on", "Day it was closed"),
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
