"""Donors and what they consented to."""

from __future__ import annotations

from connexon_node.data.dictionary import patterns
from connexon_node.data.dictionary.model import DONORS, KEY, Dataset, Field, FieldType, Sensitivity

AGE_RANGES = (*(f"{low}-{low + 4}" for low in range(0, 90, 5)), "90+", "unknown")

DONOR_DATASET = Dataset(
    name=DONORS,
    group="donors",
    title="The people whose cells the center holds",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=(KEY,),
    one_row_per_donor=True,
    introduces_donors=True,
    sorted_by=("primary_disease_term",),
    fields=(
        Field(
            name=KEY,
            type=FieldType.TEXT,
            title="Pseudonym of the donor",
            form=patterns.PSEUDONYM,
            required=True,
            unique=True,
            identifying=True,
        ),
        Field(
            name="biosample_id",
            type=FieldType.TEXT,
            title="BioSamples id of the donor",
            form=patterns.BIOSAMPLE,
            identifying=True,
        ),
        Field(
            name="sex",
            type=FieldType.TEXT,
            title="Sex as recorded",
            values=("female", "male", "intersex", "unknown"),
            required=True,
        ),
        Field(
            name="age_range_y",
            type=FieldType.TEXT,
            title="Age at donation, in ranges of five years",
            unit="a",
            values=AGE_RANGES,
        ),
        Field(
            name="ancestry_term",
            type=FieldType.TERM,
            title="Ancestry, as the donor described it",
            ontologies=("HANCESTRO",),
        ),
        Field(
            name="country_iso2", type=FieldType.TEXT, title="Country of donation (ISO 3166-1)", form=patterns.COUNTRY
        ),
        Field(
            name="primary_disease_term",
            type=FieldType.TERM,
            title="Main disease of the donor; missing where none was diagnosed",
            ontologies=("MONDO",),
        ),
        Field(
            name="phenotype_terms",
            type=FieldType.TERM,
            title="Phenotypic findings",
            ontologies=("HP",),
            many=True,
        ),
        Field(
            name="eligibility",
            type=FieldType.TEXT,
            title="Donor eligibility (21 CFR 1271)",
            values=("eligible", "ineligible", "not_required", "unknown"),
        ),
    ),
)

CONSENT_DATASET = Dataset(
    name="consents",
    group="donors",
    title="Consent forms as they were signed; the ledger says which consent is in force",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("donor_id",),
    introduces_donors=True,
    in_order=(("obtained_on", "withdrawn_on"), ("obtained_on", "expires_on")),
    fields=(
        Field(
            name=KEY,
            type=FieldType.TEXT,
            title="Pseudonym of the consent",
            form=patterns.PSEUDONYM,
            required=True,
            unique=True,
            identifying=True,
        ),
        Field(
            name="donor_id",
            type=FieldType.TEXT,
            title="Donor, or person in a trial, who consented",
            form=patterns.PSEUDONYM,
            required=True,
            identifying=True,
        ),
        Field(
            name="form_version",
            type=FieldType.TEXT,
            title="Version of the consent form",
            form=patterns.LINE,
            required=True,
        ),
        Field(name="obtained_on", type=FieldType.DATE, title="Day the consent was obtained", required=True),
        Field(
            name="status",
            type=FieldType.TEXT,
            title="State of the consent when it was exported",
            values=("active", "withdrawn", "expired"),
            required=True,
        ),
        Field(name="withdrawn_on", type=FieldType.DATE, title="Day the consent was withdrawn"),
        Field(name="expires_on", type=FieldType.DATE, title="Day from which the consent no longer counts"),
        Field(
            name="scope",
            type=FieldType.TEXT,
            title="What the consent covers",
            values=("research", "clinical", "both"),
            required=True,
        ),
        Field(
            name="duo_permission",
            type=FieldType.TERM,
            title="The one DUO permission; missing or unknown permits nothing",
            ontologies=("DUO",),
        ),
        Field(
            name="modifiers",
            type=FieldType.TEXT,
            title="DUO modifiers with their values, separated by ';'; the disease of DUO:0000007 among them",
            form=patterns.PERMISSION_VALUE,
            many=True,
            # Values may name persons, projects and institutions.
            identifying=True,
        ),
        Field(name="ethics_body", type=FieldType.TEXT, title="Body that approved", form=patterns.LINE),
        Field(
            name="ethics_approval_no", type=FieldType.TEXT, title="Reference of the ethics approval", form=patterns.LINE
        ),
        Field(
            name="isscr_category",
            type=FieldType.TEXT,
            title="Oversight category (ISSCR Guidelines 2021)",
            values=("1A", "1B", "2", "3A", "3B"),
        ),
    ),
)

DATASETS = (DONOR_DATASET, CONSENT_DATASET)
