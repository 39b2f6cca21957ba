"""Tracing of differentiation: protocols, runs and their time points."""

from __future__ import annotations

from connexon_node.dictionary import forms, usual
from connexon_node.dictionary.model import Dataset, Sensitivity

PROTOCOLS = Dataset(
    name="protocols",
    group="differentiation",
    title="Protocols (SOPs), one row per version",
    sensitivity=Sensitivity.PUBLIC,
    personal=False,
    in_order=(("effective_on", "retired_on"),),
    sorted_by=("kind",),
    fields=(
        usual.key("Identifier of this version at the center"),
        usual.code("code", "Code of the protocol, the same for all versions", required=True),
        usual.code("version", "Version", required=True),
        usual.line("title", "Title"),
        usual.choice(
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
        usual.date("effective_on", "First day in force"),
        usual.date("retired_on", "Day it was replaced"),
        usual.line("document_sha256", "Checksum of the document", form=forms.SHA256),
        usual.term("target_cell_term", "Cell type it leads to", "CL"),
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
        usual.key("Identifier of the run at the center"),
        usual.reference("lot_id", "lots", "Lot that was differentiated", required=True),
        usual.reference("protocol_id", "protocols", "Version of the protocol"),
        usual.line("operator_code", "Pseudonym of the operator", identifying=True, form=forms.CODE),
        usual.choice("vessel", "Vessel", "plate", "dish", "flask", "spinner", "bioreactor", "other"),
        usual.number("scale_ml", "Volume", "mL", low=0, high=100_000),
        usual.term("target_cell_term", "Cell type that was wanted", "CL"),
        usual.date("started_on", "First day"),
        usual.number("seed_density_1e6_ml", "Cells seeded", "10*6/mL", low=0, high=1_000),
        usual.number("outcome_day", "Day of the outcome", "d", low=0, high=1_000),
        usual.percent("target_pct", "Share of cells of the wanted type"),
        usual.percent("viability_pct", "Share of living cells"),
        usual.number("yield_1e6", "Cells harvested", "10*6", low=0, high=10_000_000),
        usual.flag("success", "Whether the run met its own criteria"),
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
        usual.key("Identifier of the measurement at the center"),
        usual.reference("run_id", "differentiation_runs", "Run", required=True),
        usual.number("day", "Day of the run", "d", low=-30, high=1_000, required=True),
        usual.choice(
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
        usual.code("marker", "Marker, where one was measured"),
        usual.number("value", "Value in the unit beside", required=True),
        usual.unit("UCUM unit of the value"),
    ),
)

DATASETS = (PROTOCOLS, RUNS, TIMEPOINTS)
