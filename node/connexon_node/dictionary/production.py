"""Production: batches of cells for use, step by step, what went into them, and where everything was sent."""

from __future__ import annotations

from connexon_node.dictionary import forms, usual
from connexon_node.dictionary.model import Dataset, Field, FieldType, Sensitivity

BATCHES = Dataset(
    name="batches",
    group="production",
    title="Batches of products",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("input_lot_id",),
    sorted_by=("product_code",),
    groups_per_donor=2,
    records_per_donor=2,
    fields=(
        usual.key("Identifier of the batch at the center"),
        usual.code("product_code", "Product", required=True),
        usual.reference("protocol_id", "protocols", "Master recipe, a version of a protocol"),
        usual.reference("input_lot_id", "lots", "Lot that it was made from", required=True),
        usual.date("started_on", "First day"),
        usual.choice("state", "State", "planned", "running", "held", "completed", "aborted", required=True),
        usual.choice("release_verdict", "Verdict on release", "released", "rejected", "pending"),
        usual.line("released_by", "Pseudonym of who released it", identifying=True, form=forms.CODE),
        usual.date("released_on", "Day of release"),
        Field(name="sec_code", type=FieldType.TEXT, title="Single European Code", form=forms.SEC, identifying=True),
    ),
)

BATCH_STEPS = Dataset(
    name="batch_steps",
    group="production",
    title="Steps of batches: target, limits and what was reached",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("batch_id",),
    sorted_by=("procedure",),
    no_more_than=(("low", "high"),),
    fields=(
        usual.key("Identifier of the step at the center"),
        usual.reference("batch_id", "batches", "Batch", required=True),
        usual.whole("seq", "Place in the batch, from 1", "1", low=1, high=10_000, required=True),
        usual.choice(
            "procedure",
            "Procedure",
            "thaw",
            "expansion",
            "differentiation",
            "formulation",
            "fill",
            "cryopreserve",
            "distribution",
            required=True,
        ),
        usual.code("operation", "Operation"),
        usual.code("phase", "Phase"),
        usual.code("equipment_id", "Equipment"),
        usual.code("param", "Parameter"),
        usual.number("target", "Target"),
        usual.number("low", "Lower limit"),
        usual.number("high", "Upper limit"),
        usual.number("actual", "What was reached"),
        usual.unit("UCUM unit of the numbers"),
        usual.date("started_on", "First day"),
        usual.date("ended_on", "Last day"),
        usual.line("performed_by", "Pseudonym of who did it", identifying=True, form=forms.CODE),
        usual.line("verified_by", "Pseudonym of who verified it", identifying=True, form=forms.CODE),
    ),
    in_order=(("started_on", "ended_on"),),
)

MATERIALS = Dataset(
    name="materials",
    group="production",
    title="Materials that went into batches",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("batch_id",),
    fields=(
        usual.reference("batch_id", "batches", "Batch", required=True),
        usual.code("material", "Material", required=True),
        usual.code("material_lot", "Lot of the material"),
        usual.number("qty", "Quantity", low=0),
        usual.unit("UCUM unit of the quantity"),
    ),
)

SHIPMENTS = Dataset(
    name="shipments",
    group="production",
    title="Shipments with their record of temperature",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("lot_id", "batch_id"),
    no_more_than=(("temp_min_cel", "temp_max_cel"),),
    in_order=(("packed_on", "received_on"),),
    records_per_donor=2,
    fields=(
        usual.key("Identifier of the shipment at the center"),
        usual.reference("lot_id", "lots", "Lot that was sent"),
        usual.reference("batch_id", "batches", "Batch that was sent"),
        usual.whole("vials", "Vials sent", "{vials}", high=100_000),
        usual.code("from_center", "Sender"),
        usual.code("to_center", "Receiver"),
        usual.line("mta_no", "Material transfer agreement", identifying=True),
        Field(
            name="duo_obligations",
            type=FieldType.TERM,
            title="DUO terms that travel with the material, separated by ';'",
            ontologies=("DUO",),
            many=True,
        ),
        usual.date("packed_on", "Day of packing"),
        usual.date("received_on", "Day of arrival"),
        usual.number("temp_min_cel", "Lowest temperature on the way", "Cel", low=-200, high=60),
        usual.number("temp_max_cel", "Highest temperature on the way", "Cel", low=-200, high=60),
        usual.number("excursion_min", "Time outside the limits", "min", low=0),
        usual.choice("condition", "Condition on arrival", "good", "doubtful", "damaged", "lost"),
        Field(name="sec_code", type=FieldType.TEXT, title="Single European Code", form=forms.SEC, identifying=True),
    ),
)

DATASETS = (BATCHES, BATCH_STEPS, MATERIALS, SHIPMENTS)
