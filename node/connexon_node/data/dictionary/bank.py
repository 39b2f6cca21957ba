"""The resource bank: cell lines, their lots and vials, and what identifies them."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.model import DONORS, KEY, Dataset, Field, FieldType, Sensitivity

CELL_LINES = Dataset(
    name="cell_lines",
    group="bank",
    title="Pluripotent stem cell lines and lines derived from them",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("donor_id",),
    sorted_by=("disease_term",),
    groups_per_donor=2,
    records_per_donor=3,
    fields=(
        Field(
            name=KEY,
            type=FieldType.TEXT,
            title="Identifier of the line at the center",
            form=patterns.PSEUDONYM,
            required=True,
            unique=True,
            identifying=True,
        ),
        Field(
            name="hpscreg_name",
            type=FieldType.TEXT,
            title="Name in hPSCreg",
            form=patterns.HPSCREG_NAME,
            unique=True,
            identifying=True,
        ),
        Field(
            name="rrid", type=FieldType.TEXT, title="Cellosaurus accession (RRID)", form=patterns.RRID, identifying=True
        ),
        Field(
            name="biosample_id",
            type=FieldType.TEXT,
            title="BioSamples id of the line",
            form=patterns.BIOSAMPLE,
            identifying=True,
        ),
        Field(
            name="donor_id",
            type=FieldType.TEXT,
            title="Donor of the source cells",
            references=DONORS,
            required=True,
            identifying=True,
        ),
        Field(
            name="parent_line_id",
            type=FieldType.TEXT,
            title="Line that this one was derived from",
            references="cell_lines",
            identifying=True,
        ),
        Field(
            name="type",
            type=FieldType.TEXT,
            title="Kind of line",
            values=("ESC", "iPSC", "derived"),
            required=True,
        ),
        Field(
            name="grade",
            type=FieldType.TEXT,
            title="Grade, which decides the specification that applies",
            values=("research", "clinical"),
            required=True,
        ),
        Field(
            name="source_cell_term",
            type=FieldType.TERM,
            title="Cell type that the line was made from",
            ontologies=("CL",),
        ),
        Field(
            name="reprogramming_method",
            type=FieldType.TEXT,
            title="How the source cells were reprogrammed",
            values=(
                "episomal",
                "sendai",
                "mrna",
                "mirna",
                "protein",
                "small_molecule",
                "lentivirus",
                "retrovirus",
                "other",
                "unknown",
                "not_applicable",
            ),
        ),
        Field(
            name="vector_detectable",
            type=FieldType.TEXT,
            title="Whether the reprogramming vector can still be detected",
            values=("yes", "no", "unknown"),
        ),
        Field(
            name="disease_term",
            type=FieldType.TERM,
            title="Disease that the line carries; missing where none",
            ontologies=("MONDO",),
        ),
        Field(
            name="genetic_modification",
            type=FieldType.TEXT,
            title="Kind of genetic modification",
            values=("none", "knock_out", "knock_in", "transgene", "correction", "other", "unknown"),
        ),
        Field(name="derived_on", type=FieldType.DATE, title="Day of derivation"),
        Field(name="xeno_free", type=FieldType.BOOLEAN, title="Derived without animal products"),
        Field(name="gmp", type=FieldType.BOOLEAN, title="Derived under good manufacturing practice"),
        Field(
            name="status",
            type=FieldType.TEXT,
            title="State of the line",
            values=("active", "recalled", "withdrawn", "retired"),
        ),
        Field(
            name="availability",
            type=FieldType.TEXT,
            title="Whether others can have it",
            values=("available", "expand_to_order", "restricted_distribution", "not_available"),
        ),
    ),
)

LOTS = Dataset(
    name="lots",
    group="bank",
    title="Banked lots of cell lines",
    sensitivity=Sensitivity.PUBLIC,
    donor_through=("cell_line_id",),
    in_order=(("frozen_on", "expiry_on"),),
    sorted_by=("bank_level",),
    records_per_donor=5,
    fields=(
        Field(
            name=KEY,
            type=FieldType.TEXT,
            title="Identifier of the lot at the center",
            form=patterns.PSEUDONYM,
            required=True,
            unique=True,
            identifying=True,
        ),
        Field(
            name="cell_line_id",
            type=FieldType.TEXT,
            title="Line that was banked",
            references="cell_lines",
            required=True,
            identifying=True,
        ),
        Field(
            name="lot_no",
            type=FieldType.TEXT,
            title="Lot number on the vial",
            form=patterns.LINE,
            required=True,
            identifying=True,
        ),
        Field(
            name="bank_level",
            type=FieldType.TEXT,
            title="Level in the banking system",
            values=("seed", "MCB", "WCB", "EOP", "product"),
            required=True,
        ),
        Field(
            name="passage_no",
            type=FieldType.INTEGER,
            title="Passages since derivation",
            unit="{passages}",
            minimum=0,
            maximum=500,
        ),
        Field(
            name="cells_per_vial_1e6",
            type=FieldType.NUMBER,
            title="Million cells in a vial",
            unit="10*6",
            minimum=0,
            maximum=10_000,
        ),
        Field(
            name="vials_made",
            type=FieldType.INTEGER,
            title="Vials frozen",
            unit="{vials}",
            minimum=0,
            maximum=1_000_000,
        ),
        Field(name="frozen_on", type=FieldType.DATE, title="Day of freezing"),
        Field(name="expiry_on", type=FieldType.DATE, title="Last day of use"),
        common_fields.reference("protocol_id", "protocols", "Version of the protocol used"),
        common_fields.reference("parent_lot_id", "lots", "Lot that this one was expanded from"),
        Field(name="sec_code", type=FieldType.TEXT, title="Single European Code", form=patterns.SEC, identifying=True),
        Field(
            name="status",
            type=FieldType.TEXT,
            title="State of the lot",
            values=("quarantine", "released", "rejected", "recalled", "exhausted"),
            required=True,
        ),
    ),
)

VIALS = Dataset(
    name="vials",
    group="bank",
    title="Vials of lots",
    sensitivity=Sensitivity.PUBLIC,
    donor_through=("lot_id",),
    sorted_by=("state",),
    fields=(
        common_fields.key("Identifier of the vial at the center"),
        common_fields.reference("lot_id", "lots", "Lot", required=True),
        common_fields.whole("vial_no", "Number within the lot", "1", low=1, high=1_000_000, ungrouped=True),
        common_fields.line("biosample_id", "BioSamples id of the vial", identifying=True, form=patterns.BIOSAMPLE),
        common_fields.line("location_code", "Where it stands", identifying=True, form=patterns.CODE),
        common_fields.choice(
            "storage_condition",
            "How it is stored (MIABIS; nitrogen is liquid nitrogen, ranges are in Cel)",
            "room_temperature",
            "2_to_10",
            "-35_to_-18",
            "-85_to_-60",
            "nitrogen_vapor",
            "nitrogen_liquid",
            "other",
        ),
        common_fields.choice("state", "State", "stored", "reserved", "shipped", "used", "destroyed", required=True),
    ),
)

STR_LOCI = (
    *("D5S818", "D13S317", "D7S820", "D16S539", "vWA", "TH01", "TPOX", "CSF1PO", "Amelogenin"),
    *("D3S1358", "D21S11", "D18S51", "D8S1179", "FGA", "Penta_D", "Penta_E", "D1S1656", "D2S441", "D2S1338"),
    *("D10S1248", "D12S391", "D19S433", "D22S1045", "D6S1043", "SE33", "DYS391"),
)
"""The eight core loci of ANSI/ATCC ASN-0002 and Amelogenin first, then those of larger kits."""

STR_PROFILES = Dataset(
    name="str_profiles",
    group="bank",
    title="STR profiles of lines, lots and donors",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("cell_line_id", "donor_id", "lot_id"),
    fields=(
        common_fields.key("Identifier of the profile at the center"),
        common_fields.reference("cell_line_id", "cell_lines", "Line that was typed"),
        common_fields.reference("donor_id", "donors", "Donor that was typed"),
        common_fields.reference("lot_id", "lots", "Lot that was typed"),
        common_fields.code("kit", "Kit"),
        common_fields.date("measured_on", "Day"),
    ),
)

STR_ALLELES = Dataset(
    name="str_alleles",
    group="bank",
    title="Alleles of STR profiles, one in a row; they identify people",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("profile_id",),
    sorted_by=("locus",),
    equal_rows=2,  # a locus may have the same allele from both parents
    fields=(
        common_fields.reference("profile_id", "str_profiles", "Profile", required=True),
        common_fields.choice("locus", "Locus", *STR_LOCI, required=True),
        common_fields.line("allele", "Allele", required=True, identifying=True, form=patterns.STR_ALLELE),
    ),
)

HLA_TYPINGS = Dataset(
    name="hla_typings",
    group="bank",
    title="HLA types of lines and donors, one locus in a row",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("cell_line_id", "donor_id"),
    sorted_by=("locus",),
    records_per_donor=8,
    fields=(
        common_fields.key("Identifier of the typing at the center"),
        common_fields.reference("cell_line_id", "cell_lines", "Line that was typed"),
        common_fields.reference("donor_id", "donors", "Donor that was typed"),
        common_fields.choice("locus", "Locus", "A", "B", "C", "DRB1", "DQB1", "DPB1", required=True),
        common_fields.line("allele1", "One allele", required=True, form=patterns.HLA_ALLELE),
        common_fields.line("allele2", "The other allele", required=True, form=patterns.HLA_ALLELE),
        common_fields.whole("resolution_fields", "Fields resolved", "{fields}", low=1, high=4),
        common_fields.choice("method", "Method", "NGS", "SBT", "SSO", "SSP", "imputed", "other"),
        common_fields.flag("homozygous", "Whether both alleles are the same"),
    ),
)

DATASETS = (CELL_LINES, LOTS, VIALS, STR_PROFILES, STR_ALLELES, HLA_TYPINGS)
