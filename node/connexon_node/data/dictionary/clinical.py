"""Clinical studies: trials, subjects and what happened to them, in days from day 0 of each subject."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.donors import AGE_RANGES
from connexon_node.data.dictionary.model import Dataset, Field, FieldType, Sensitivity

TRIALS = Dataset(
    name="trials",
    group="clinical",
    title="Clinical trials with cells",
    sensitivity=Sensitivity.PUBLIC,
    personal=False,
    fields=(
        common_fields.key("Identifier of the trial at the center"),
        Field(name="registry_id", type=FieldType.TEXT, title="Number in a trial registry", form=patterns.REGISTRY),
        common_fields.choice("phase", "Phase", "1", "1/2", "2", "2/3", "3", "4", "not_applicable"),
        common_fields.term("indication_term", "Disease that is treated", "MONDO"),
        common_fields.code("product_code", "Product that is given"),
        Field(name="arms", type=FieldType.TEXT, title="Arms, separated by ';'", form=patterns.CODE, many=True),
    ),
)

SUBJECTS = Dataset(
    name="subjects",
    group="clinical",
    title="People who take part in trials",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("person_id",),
    introduces_donors=True,
    sorted_by=("arm",),
    fields=(
        common_fields.key("Pseudonym of the subject in the trial"),
        common_fields.line(
            "person_id",
            "Pseudonym under which the person's consent is recorded; a donor's, where the cells are their own",
            identifying=True,
            required=True,
            form=patterns.PSEUDONYM,
        ),
        common_fields.reference("trial_id", "trials", "Trial"),
        common_fields.code("arm", "Arm of the trial"),
        Field(
            name="age_range_y",
            type=FieldType.TEXT,
            title="Age on day 0, in ranges of five years",
            unit="a",
            values=AGE_RANGES,
        ),
        common_fields.choice("sex", "Sex as recorded", "female", "male", "intersex", "unknown"),
        common_fields.term("disease_term", "Disease that is treated", "MONDO"),
        common_fields.choice(
            "disposition",
            "How participation ended",
            "completed",
            "ongoing",
            "withdrawn",
            "adverse_event",
            "lost",
            "death",
            "screen_failure",
            "other",
        ),
        common_fields.study_day("last_day", "Last day of observation"),
    ),
)

TREATMENTS = Dataset(
    name="treatments",
    group="clinical",
    title="What subjects were given",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("subject_id",),
    fields=(
        common_fields.reference("subject_id", "subjects", "Subject", required=True),
        common_fields.reference("batch_id", "batches", "Batch of cells; missing for other treatments"),
        common_fields.code("product_code", "What was given"),
        common_fields.number("dose_1e6", "Dose", "10*6", low=0, high=1_000_000),
        common_fields.number("dose", "Dose of other treatments, in the unit beside", low=0),
        common_fields.unit("UCUM unit of the dose", "dose_unit"),
        common_fields.code("route", "Route"),
        common_fields.study_day("day", "Day it was given", required=True),
        common_fields.study_day("last_day", "Last day, of a treatment over days"),
    ),
)

ADVERSE_EVENTS = Dataset(
    name="adverse_events",
    group="clinical",
    title="Adverse events",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("subject_id",),
    sorted_by=("soc",),
    records_per_donor=4,
    fields=(
        common_fields.reference("subject_id", "subjects", "Subject", required=True),
        common_fields.line("pt_text", "Preferred term", required=True, form=patterns.WORDS),
        common_fields.code("pt_code", "Code of the preferred term, where the center has MedDRA"),
        common_fields.line("soc", "System organ class", form=patterns.WORDS),
        common_fields.whole("grade_ctcae", "Grade (CTCAE 5)", "{grade}", low=1, high=5),
        common_fields.flag("serious", "Serious"),
        common_fields.choice(
            "related", "Relation to the treatment", "none", "remote", "possible", "probable", "yes", "unknown"
        ),
        common_fields.study_day("onset_day", "Day it began"),
        common_fields.study_day("resolved_day", "Day it ended"),
    ),
)

OUTCOMES = Dataset(
    name="outcomes",
    group="clinical",
    title="Measured outcomes",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("subject_id",),
    sorted_by=("measure",),
    records_per_donor=5,
    fields=(
        common_fields.reference("subject_id", "subjects", "Subject", required=True),
        common_fields.code("measure", "What was measured", required=True),
        common_fields.study_day("day", "Day of the measurement", required=True),
        common_fields.number("value", "Value in the unit beside", required=True),
        common_fields.unit("UCUM unit of the value"),
    ),
)

SURVIVAL = Dataset(
    name="survival",
    group="clinical",
    title="Time to an event or to the end of observation",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("subject_id",),
    sorted_by=("endpoint",),
    once=("subject_id", "endpoint"),
    fields=(
        common_fields.reference("subject_id", "subjects", "Subject", required=True),
        common_fields.code("endpoint", "Event that is awaited", required=True),
        common_fields.number("time_d", "Time from day 0", "d", low=0, high=36_500, required=True),
        common_fields.flag("event", "Whether the event came; false where observation ended before", required=True),
    ),
)

DATASETS = (TRIALS, SUBJECTS, TREATMENTS, ADVERSE_EVENTS, OUTCOMES, SURVIVAL)
