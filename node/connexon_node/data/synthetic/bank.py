"""What is banked beside lines and lots: subclones, protocols, vials, STR profiles and HLA types."""

from __future__ import annotations

import numpy
import pyarrow
import pyarrow.compute

from connexon_node.data.dictionary.bank import STR_LOCI
from connexon_node.data.synthetic.tables import Center, Integers, days, joined, numbered, picked, present

compute = pyarrow.compute

PROTOCOLS = (
    ("CULT-E8", "culture", "", "Feeder-free culture"),
    ("BANK-1", "banking", "", "Banking by slow freezing"),
    ("BANK-2", "banking", "", "Banking by vitrification"),
    ("DIFF-DA", "differentiation", "CL:0000700", "Dopaminergic progenitors"),
    ("DIFF-MN", "differentiation", "CL:0000100", "Motor neurons"),
    ("DIFF-CM", "differentiation", "CL:0000746", "Cardiomyocytes"),
    ("DIFF-RPE", "differentiation", "CL:0002586", "Retinal pigment epithelium"),
    ("ASSAY-FC", "assay", "", "Flow cytometry"),
    ("MFG-DA", "manufacture", "CL:0000700", "Manufacture of dopaminergic progenitors"),
)
"""Code, kind, target cell, title; each in two versions, the first retired."""
ALLELES = {"A": ("02:01", "24:02", "01:01", "03:01", "11:01"), "B": ("07:02", "08:01", "44:02", "52:01", "15:01")}
_OTHER_ALLELES = {"DRB1": ("15:01", "03:01", "04:05", "07:01", "15:02")}
LOCI = {**ALLELES, **_OTHER_ALLELES}
STR_TYPED = STR_LOCI[:9]


def protocol_ids(center: Center, kind: str) -> list[str]:
    """The ids of the protocols of one kind in force, in the order of PROTOCOLS."""
    return [f"{center.prefix}-SOP-{code}-2" for code, its_kind, _, _ in PROTOCOLS if its_kind == kind]


def protocols(center: Center) -> pyarrow.Table:
    """Two versions of each protocol."""
    rows = [(*one, version) for one in PROTOCOLS for version in (1, 2)]
    first = numpy.array([0 if version == 1 else 1_500 for *_, version in rows])
    return pyarrow.table(
        {
            "id": [f"{center.prefix}-SOP-{code}-{version}" for code, _, _, _, version in rows],
            "code": [code for code, *_ in rows],
            "version": [str(version) for *_, version in rows],
            "title": [f"{title} (simulated)" for _, _, _, title, _ in rows],
            "kind": [kind for _, kind, *_ in rows],
            "effective_on": days(first),
            "retired_on": present(days(first + 1_500), first == 0),
            "document_sha256": [f"{place:064x}" for place in center.random.integers(1, 2**60, size=len(rows))],
            "target_cell_term": picked([cell for _, _, cell, _, _ in rows], numpy.arange(len(rows))),
        }
    )


def with_subclones(center: Center, lines: pyarrow.Table, derived: Integers) -> tuple[pyarrow.Table, Integers]:
    """The lines, and a corrected or knocked-out subclone of one in twenty: same donor, later, with its parent named."""
    random = center.random
    able = numpy.flatnonzero(compute.equal(lines["type"], "iPSC").to_numpy(zero_copy_only=False))
    parents = able[random.random(len(able)) < 0.05]
    count, taken = len(parents), lines.take(pyarrow.array(parents))
    later = numpy.minimum(derived[parents] + random.integers(100, 400, size=count), derived.max(initial=0) + 100)
    changed = {
        "id": numbered(f"{center.prefix}-L", lines.num_rows + numpy.arange(1, count + 1)),
        "hpscreg_name": joined(taken["hpscreg_name"].combine_chunks(), "-1"),
        "rrid": pyarrow.nulls(count, pyarrow.string()),
        "type": pyarrow.array(["derived"] * count, pyarrow.string()),
        "genetic_modification": picked(["correction", "knock_out"], random.integers(0, 2, size=count)),
        "derived_on": days(later),
    }
    for name, column in changed.items():
        taken = taken.set_column(taken.column_names.index(name), name, column)
    lines = lines.append_column("parent_line_id", pyarrow.nulls(lines.num_rows, pyarrow.string()))
    taken = taken.append_column("parent_line_id", lines["id"].combine_chunks().take(pyarrow.array(parents)))
    return pyarrow.concat_tables([lines, taken]).combine_chunks(), numpy.concatenate([derived, later])


def with_origin(center: Center, lots: pyarrow.Table) -> pyarrow.Table:
    """The lots with the protocol they were banked by and, above the seed, the lot they were expanded from."""
    protocol = picked(protocol_ids(center, "banking"), center.random.integers(0, 2, size=lots.num_rows))
    above = compute.not_equal(lots["bank_level"], "seed").to_numpy(zero_copy_only=False)
    before = lots["id"].combine_chunks().take(pyarrow.array(numpy.maximum(numpy.arange(lots.num_rows) - 1, 0)))
    return lots.append_column("protocol_id", protocol).append_column("parent_lot_id", present(before, above))


def vials(center: Center, lots: pyarrow.Table) -> pyarrow.Table:
    """Up to eight vials of each lot, most of them stored."""
    random = center.random
    made = numpy.minimum(lots["vials_made"].to_numpy(), 8)
    lot = numpy.repeat(numpy.arange(lots.num_rows), made)
    count = len(lot)
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-V", numpy.arange(1, count + 1), 8),
            "lot_id": lots["id"].combine_chunks().take(pyarrow.array(lot)),
            "vial_no": pyarrow.array(numpy.arange(count) - numpy.searchsorted(lot, lot) + 1),
            "location_code": joined("T", numbered("", random.integers(1, 30, size=count), 2)),
            "storage_condition": center.chosen(
                {"nitrogen_vapor": 0.9, "nitrogen_liquid": 0.08, "-85_to_-60": 0.02}, count
            ),
            "state": center.chosen(
                {"stored": 0.7, "used": 0.15, "shipped": 0.1, "reserved": 0.04, "destroyed": 0.01}, count
            ),
        }
    )


def str_profiles(center: Center, lines: pyarrow.Table) -> tuple[pyarrow.Table, pyarrow.Table]:
    """A profile of every line, the same for all lines of a donor but for a rare loss; and its alleles."""
    random, count = center.random, lines.num_rows
    donors, donor = numpy.unique(lines["donor_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    ids = numbered(f"{center.prefix}-T", numpy.arange(1, count + 1))
    profiles = pyarrow.table(
        {
            "id": ids,
            "cell_line_id": lines["id"],
            "kit": pyarrow.array(["SIM-KIT-9"] * count, pyarrow.string()),
            "measured_on": lines["derived_on"],
        }
    )
    pairs = random.integers(6, 15, size=(len(donors), len(STR_TYPED), 2))
    parts = []
    for place, locus in enumerate(STR_TYPED):
        for copy in range(2):
            alleles = pairs[donor, place, copy].astype(str)
            if locus == "Amelogenin":
                alleles = numpy.where((copy == 0) | (pairs[donor, place, 0] % 2 == 0), "X", "Y")
            lost = (copy == 1) & ((random.random(count) < 0.002) | (pairs[donor, place, 0] == pairs[donor, place, 1]))
            kept = numpy.flatnonzero(~lost)
            parts.append(
                pyarrow.table(
                    {
                        "profile_id": ids.take(pyarrow.array(kept)),
                        "locus": pyarrow.array([locus] * len(kept), pyarrow.string()),
                        "allele": pyarrow.array(alleles[kept].tolist(), pyarrow.string()),
                    }
                )
            )
    return profiles, pyarrow.concat_tables(parts).combine_chunks()


def hla_typings(center: Center, lines: pyarrow.Table) -> pyarrow.Table:
    """A, B and DRB1 of every line, the same for all lines of a donor; one donor in twenty is homozygous."""
    random = center.random
    donors, donor = numpy.unique(lines["donor_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    one = random.random(len(donors)) < 0.05
    parts = []
    for place, (locus, alleles) in enumerate(LOCI.items()):
        first = random.integers(0, len(alleles), size=len(donors))
        second = numpy.where(one, first, random.integers(0, len(alleles), size=len(donors)))
        parts.append(
            pyarrow.table(
                {
                    "id": numbered(f"{center.prefix}-H{place}-", numpy.arange(1, lines.num_rows + 1)),
                    "cell_line_id": lines["id"],
                    "locus": pyarrow.array([locus] * lines.num_rows, pyarrow.string()),
                    "allele1": picked(alleles, first[donor]),
                    "allele2": picked(alleles, second[donor]),
                    "resolution_fields": pyarrow.array(numpy.full(lines.num_rows, 2)),
                    "method": pyarrow.array(["NGS"] * lines.num_rows, pyarrow.string()),
                    "homozygous": pyarrow.array((first == second)[donor]),
                }
            )
        )
    return pyarrow.concat_tables(parts).combine_chunks()
