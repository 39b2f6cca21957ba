"""Tracing of differentiation: protocols, runs and their time points."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.model import Dataset, Sensitivity

PROTOCOLS = Dataset(
    name="protocols",
    group="differentiation",
    title="Protocols (SOPs), one row per version",
    sensitivity=Sensitivity.PUBLIC,
    personal=False,
    in_order=(("effective_on", "retired_on"),),
    sorted_by=("kind",),
    fields=(
        common_fields.key("Identifier of this version at the center"),
        common_fields.code("code", "Code of the protocol, the same for all versions", required=True),
        common_fields.code("version", "Version", required=True),
        common_fields.line("title", "Title"),
        common_fields.choice(
            "kind",
            "What it is for",
            "culture",
            "differentiation",
            "assay",
            "cryo",
            "transport",
            "banking",
            "manufacture",
            required=True,
        ),
        common_fields.date("effective_on", "First day in force"),
        common_fields.date("retired_on", "Day it was replaced"),
        common_fields.line("document_sha256", "Checksum of the document", form=patterns.SHA256),
        common_fields.term("target_cell_term", "Cell type it leads to", "CL"),
    ),
)

RUNS = Dataset(
    name="differentiation_runs",
    group="differentiation",
    title="Runs of differentiation protocols",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("lot_id",),
    sorted_by=("target_cell_term",),
    records_per_donor=3,
    fields=(
        common_fields.key("Identifier of the run at the center"),
        common_fields.reference("lot_id", "lots", "Lot that was differentiated", required=True),
        common_fields.reference("protocol_id", "protocols", "Version of the protocol"),
        common_fields.line("operator_code", "Pseudonym of the operator", identifying=True, form=patterns.CODE),
        common_fields.choice("vessel", "Vessel", "plate", "dish", "flask", "spinner", "bioreactor", "other"),
        common_fields.number("scale_ml", "Volume", "mL", low=0, high=100_000),
        common_fields.term("target_cell_term", "Cell type that was wanted", "CL"),
        common_fields.date("started_on", "First day"),
        common_fields.number("seed_density_1e6_ml", "Cells seeded", "10*6/mL", low=0, high=1_000),
        common_fields.number("outcome_day", "Day of the outcome", "d", low=0, high=1_000),
        common_fields.percent("target_pct", "Share of cells of the wanted type"),
        common_fields.percent("viability_pct", "Share of living cells"),
        common_fields.number("yield_1e6", "Cells harvested", "10*6", low=0, high=10_000_000),
        common_fields.flag("success", "Whether the run met its own criteria"),
    ),
)

TIMEPOINTS = Dataset(
    name="timepoints",
    group="differentiation",
    title="What was measured on the days of a run",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("run_id",),
    sorted_by=("attribute", "marker"),
    fields=(
        common_fields.key("Identifier of the measurement at the center"),
        common_fields.reference("run_id", "differentiation_runs", "Run", required=True),
        common_fields.number("day", "Day of the run", "d", low=-30, high=1_000, required=True),
        common_fields.choice(
            "attribute",
            "What was measured",
            "cell_density",
            "aggregate_um",
            "do_pct",
            "ph",
            "marker_pct",
            "viability_pct",
            "glucose",
            "lactate",
            "temperature",
            "other",
            required=True,
        ),
        common_fields.code("marker", "Marker, where one was measured"),
        common_fields.number("value", "Value in the unit beside", required=True),
        common_fields.unit("UCUM unit of the value"),
    ),
)

DATASETS = (PROTOCOLS, RUNS, TIMEPOINTS)
