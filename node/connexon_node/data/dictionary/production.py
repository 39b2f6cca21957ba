"""Production: batches of cells for use, step by step, what went into them, and where everything was sent."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.model import Dataset, Field, FieldType, Sensitivity

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
        common_fields.key("Identifier of the batch at the center"),
        common_fields.code("product_code", "Product", required=True),
        common_fields.reference("protocol_id", "protocols", "Master recipe, a version of a protocol"),
        common_fields.reference("input_lot_id", "lots", "Lot that it was made from", required=True),
        common_fields.date("started_on", "First day"),
        common_fields.choice("state", "State", "planned", "running", "held", "completed", "aborted", required=True),
        common_fields.choice("release_verdict", "Verdict on release", "released", "rejected", "pending"),
        common_fields.line("released_by", "Pseudonym of who released it", identifying=True, form=patterns.CODE),
        common_fields.date("released_on", "Day of release"),
        Field(name="sec_code", type=FieldType.TEXT, title="Single European Code", form=patterns.SEC, identifying=True),
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
        common_fields.key("Identifier of the step at the center"),
        common_fields.reference("batch_id", "batches", "Batch", required=True),
        common_fields.whole("seq", "Place in the batch, from 1", "1", low=1, high=10_000, required=True),
        common_fields.choice(
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
        common_fields.code("operation", "Operation"),
        common_fields.code("phase", "Phase"),
        common_fields.code("equipment_id", "Equipment"),
        common_fields.code("param", "Parameter"),
        common_fields.number("target", "Target"),
        common_fields.number("low", "Lower limit"),
        common_fields.number("high", "Upper limit"),
        common_fields.number("actual", "What was reached"),
        common_fields.unit("UCUM unit of the numbers"),
        common_fields.date("started_on", "First day"),
        common_fields.date("ended_on", "Last day"),
        common_fields.line("performed_by", "Pseudonym of who did it", identifying=True, form=patterns.CODE),
        common_fields.line("verified_by", "Pseudonym of who verified it", identifying=True, form=patterns.CODE),
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
        common_fields.reference("batch_id", "batches", "Batch", required=True),
        common_fields.code("material", "Material", required=True),
        common_fields.code("material_lot", "Lot of the material"),
        common_fields.number("qty", "Quantity", low=0),
        common_fields.unit("UCUM unit of the quantity"),
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
        common_fields.key("Identifier of the shipment at the center"),
        common_fields.reference("lot_id", "lots", "Lot that was sent"),
        common_fields.reference("batch_id", "batches", "Batch that was sent"),
        common_fields.whole("vials", "Vials sent", "{vials}", high=100_000),
        common_fields.code("from_center", "Sender"),
        common_fields.code("to_center", "Receiver"),
        common_fields.line("mta_no", "Material transfer agreement", identifying=True),
        Field(
            name="duo_obligations",
            type=FieldType.TERM,
            title="DUO terms that travel with the material, separated by ';'",
            ontologies=("DUO",),
            many=True,
        ),
        common_fields.date("packed_on", "Day of packing"),
        common_fields.date("received_on", "Day of arrival"),
        common_fields.number("temp_min_cel", "Lowest temperature on the way", "Cel", low=-200, high=60),
        common_fields.number("temp_max_cel", "Highest temperature on the way", "Cel", low=-200, high=60),
        common_fields.number("excursion_min", "Time outside the limits", "min", low=0),
        common_fields.choice("condition", "Condition on arrival", "good", "doubtful", "damaged", "lost"),
        Field(name="sec_code", type=FieldType.TEXT, title="Single European Code", form=patterns.SEC, identifying=True),
    ),
)

DATASETS = (BATCHES, BATCH_STEPS, MATERIALS, SHIPMENTS)
