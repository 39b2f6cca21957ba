"""Differentiation, samples and genomes: runs follow their protocol and disease, abnormalities rise with passage."""

from __future__ import annotations

import numpy
import pyarrow
import pyarrow.compute

from connexon_node.data.synthetic import bank
from connexon_node.data.synthetic.tables import Center, Integers, days, numbered, picked, present

compute = pyarrow.compute

TARGETS = {
    "DIFF-DA": ("CL:0000700", "FOXA2", 85.0, ("MONDO:0005180", "MONDO:0008199")),
    "DIFF-MN": ("CL:0000100", "MNX1", 70.0, ("MONDO:0004976",)),
    "DIFF-CM": ("CL:0000746", "TNNT2", 80.0, ("MONDO:0005267", "MONDO:0010679")),
    "DIFF-RPE": ("CL:0002586", "PMEL", 90.0, ("MONDO:0005150", "MONDO:0019200")),
}
"""Target cell, marker, mean share of target cells, and the diseases whose lines are mostly taken this way."""
PLURIPOTENT = "CL:0002248"
_DAYS = (0, 7, 14, 21, 28)

REGIONS = (("20q11.21", "20", "q11.21", "gain"), ("12p", "12", "p13.31", "gain"), ("1q", "1", "q32.1", "gain"))
_REGION_SHARES = (0.5, 0.3, 0.2)

VARIANTS = (
    ("17", 7_675_088, "C", "T", "TP53", "c.524G>A", "p.Arg175His", "acquired", ()),
    ("17", 7_674_220, "C", "T", "TP53", "c.743G>A", "p.Arg248Gln", "acquired", ()),
    ("17", 7_673_802, "C", "T", "TP53", "c.818G>A", "p.Arg273His", "acquired", ()),
    ("12", 40_340_400, "G", "A", "LRRK2", "c.6055G>A", "p.Gly2019Ser", "germline", ("MONDO:0005180", "MONDO:0008199")),
    ("4", 89_828_149, "C", "T", "SNCA", "c.157G>A", "p.Ala53Thr", "germline", ("MONDO:0005180",)),
    ("21", 31_659_783, "C", "T", "SOD1", "c.14C>T", "p.Ala5Val", "germline", ("MONDO:0004976",)),
)
"""Known variants on GRCh38; the last column are the diseases they are seen with. The others are made up."""


def runs(center: Center, lots: pyarrow.Table, disease: pyarrow.Array) -> tuple[pyarrow.Table, pyarrow.Table]:
    """Runs of three in ten lots by a protocol that fits the disease, and the time points of each."""
    random = center.random
    lot = numpy.flatnonzero(random.random(lots.num_rows) < 0.3)
    count, names = len(lot), list(TARGETS)
    fitting = {term: place for place, name in enumerate(names) for term in TARGETS[name][3]}
    wanted = numpy.array([fitting.get(term, -1) for term in disease.take(pyarrow.array(lot)).to_pylist()], dtype=int)
    protocol = numpy.where((wanted >= 0) & (random.random(count) < 0.8), wanted, random.integers(0, len(names), count))
    mean = numpy.array([TARGETS[name][2] for name in names])[protocol]
    share = numpy.clip(random.normal(mean, 9.0), 1, 99.5).round(1)
    ids = numbered(f"{center.prefix}-R", numpy.arange(1, count + 1))
    frozen = lots["frozen_on"].combine_chunks().take(pyarrow.array(lot)).cast(pyarrow.int32()).to_numpy()
    table = pyarrow.table(
        {
            "id": ids,
            "lot_id": lots["id"].combine_chunks().take(pyarrow.array(lot)),
            "protocol_id": picked(bank.protocol_ids(center, "differentiation"), protocol),
            "operator_code": numbered("OP-", random.integers(1, 9, size=count), 2),
            "vessel": center.chosen({"plate": 0.5, "flask": 0.2, "spinner": 0.2, "bioreactor": 0.1}, count),
            "scale_ml": pyarrow.array(random.choice([12.0, 100.0, 500.0], size=count)),
            "target_cell_term": picked([TARGETS[name][0] for name in names], protocol),
            "started_on": pyarrow.array((frozen + random.integers(10, 200, size=count)).astype(numpy.int32)).cast(
                pyarrow.date32()
            ),
            "seed_density_1e6_ml": pyarrow.array(random.gamma(5, 0.1, size=count).round(3)),
            "outcome_day": pyarrow.array(numpy.full(count, float(_DAYS[-1]))),
            "target_pct": pyarrow.array(share),
            "viability_pct": pyarrow.array(numpy.clip(random.normal(93, 4, size=count), 40, 100).round(1)),
            "yield_1e6": pyarrow.array(random.gamma(4, 20, size=count).round(1)),
            "success": pyarrow.array(share >= mean - 10),
        }
    )
    return table, _timepoints(center, ids, protocol, share)


def _timepoints(center: Center, ids: pyarrow.Array, protocol: Integers, share: numpy.ndarray) -> pyarrow.Table:
    """The marker of the target rises to the outcome, OCT4 falls."""
    random, count, steps = center.random, len(ids), len(_DAYS)
    run = numpy.tile(numpy.repeat(numpy.arange(count), steps), 2)
    day = numpy.tile(numpy.array(_DAYS, dtype=float), 2 * count)
    target = numpy.repeat([True, False], count * steps)
    rise = 1 / (1 + numpy.exp(-(day - 14) / 3))
    value = numpy.where(target, share[run] * rise, 95 * (1 - rise)) + random.normal(0, 1, size=len(run))
    markers = [TARGETS[name][1] for name in TARGETS]
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-Y", numpy.arange(1, len(run) + 1), 8),
            "run_id": ids.take(pyarrow.array(run)),
            "day": pyarrow.array(day),
            "attribute": pyarrow.array(["marker_pct"] * len(run), pyarrow.string()),
            "marker": picked([*markers, "OCT4"], numpy.where(target, protocol[run], len(markers))),
            "value": pyarrow.array(numpy.clip(value, 0, 100).round(2)),
            "unit": pyarrow.array(["%"] * len(run), pyarrow.string()),
        }
    )


def samples(center: Center, lots: pyarrow.Table, run_table: pyarrow.Table) -> pyarrow.Table:
    """RNA, DNA and protein of four in ten lots, and of half of the runs."""
    random = center.random
    lot = numpy.flatnonzero(random.random(lots.num_rows) < 0.4)
    run = numpy.flatnonzero(random.random(run_table.num_rows) < 0.5)
    kinds = ("rna", "dna", "protein")
    of_lots, of_runs = len(lot) * len(kinds), len(run) * len(kinds)
    count = of_lots + of_runs
    from_lot = numpy.arange(count) < of_lots
    lot_place = numpy.concatenate([numpy.repeat(lot, len(kinds)), numpy.zeros(of_runs, dtype=int)])
    run_place = numpy.concatenate([numpy.zeros(of_lots, dtype=int), numpy.repeat(run, len(kinds))])
    kind = numpy.tile(numpy.arange(len(kinds)), len(lot) + len(run))
    cells = _taken(run_table["target_cell_term"], run_place, ~from_lot)
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-S", numpy.arange(1, count + 1), 8),
            "lot_id": _taken(lots["id"], lot_place, from_lot),
            "run_id": _taken(run_table["id"], run_place, ~from_lot),
            "kind": picked(kinds, kind),
            "day": present(pyarrow.array(numpy.full(count, 28.0)), ~from_lot),
            "cell_type_term": compute.if_else(pyarrow.array(from_lot), PLURIPOTENT, cells),
            "assay_term": picked(["EFO:0008896", "", ""], kind),
            "platform": picked(["SIM-SEQ", "SIM-ARRAY", "SIM-MS"], kind),
            "reference_build": picked(["GRCh38", "GRCh38", ""], kind),
            "qc_pass": pyarrow.array(random.random(count) < 0.95),
        }
    )


def _taken(column: pyarrow.ChunkedArray, places: Integers, keep: numpy.ndarray) -> pyarrow.Array:
    array = column.combine_chunks()
    if not len(array):
        return pyarrow.nulls(len(places), array.type)
    return present(array.take(pyarrow.array(places)), keep)


def karyotype_findings(center: Center, lots: pyarrow.Table) -> pyarrow.Table:
    """One test of seven in ten lots; the chance of a recurrent gain rises with the passage."""
    random = center.random
    lot = numpy.flatnonzero(random.random(lots.num_rows) < 0.7)
    count = len(lot)
    passage = lots["passage_no"].to_numpy()[lot]
    changed = random.random(count) < 1 - numpy.exp(-passage / 120)
    region = numpy.where(changed, random.choice(len(REGIONS), size=count, p=_REGION_SHARES), len(REGIONS))
    cells = numpy.where(changed, random.integers(2, 20, size=count), 0)
    blank = ("none", "", "", "none")
    known = [*REGIONS, blank]
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-K", numpy.arange(1, count + 1)),
            "lot_id": lots["id"].combine_chunks().take(pyarrow.array(lot)),
            "passage_no": pyarrow.array(passage),
            "method": center.chosen({"G-band": 0.5, "SNP": 0.3, "ddPCR": 0.1, "WGS": 0.1}, count),
            "chrom": picked([one[1] for one in known], region),
            "band_start": picked([one[2] for one in known], region),
            "change": picked([one[3] for one in known], region),
            "cells_abnormal": pyarrow.array(cells),
            "cells_counted": pyarrow.array(numpy.full(count, 20)),
            "clone_pct": pyarrow.array(cells * 5.0),
            "recurrent_region": picked([one[0] for one in known], region),
            "significance": picked(["normal", "abnormal"], changed.astype(int)),
        }
    )


def variants(
    center: Center, sample_table: pyarrow.Table, disease: list[str | None], passage: Integers
) -> pyarrow.Table:
    """Of every DNA sample: variants that go with its disease, some that were acquired, and ten that mean nothing."""
    random = center.random
    rows = numpy.flatnonzero(compute.equal(sample_table["kind"], "dna").to_numpy(zero_copy_only=False))
    made_up = _made_up(center, 200)
    known = [*VARIANTS, *made_up]
    sample, which = [], []
    for place in rows.tolist():
        chosen = [
            number
            for number, one in enumerate(VARIANTS)
            if random.random() < (0.25 if disease[place] in one[8] else passage[place] / 2_000 if not one[8] else 0.002)
        ]
        chosen += (len(VARIANTS) + random.choice(len(made_up), size=10, replace=False)).tolist()
        sample += [place] * len(chosen)
        which += chosen
    count, index = len(which), numpy.array(which, dtype=int)
    germline = numpy.array([one[7] == "germline" for one in known])[index]
    share = numpy.where(germline, 0.5, random.beta(2, 8, size=count)).round(3)
    return pyarrow.table(
        {
            "sample_id": sample_table["id"].combine_chunks().take(pyarrow.array(numpy.array(sample, dtype=int))),
            "assembly": pyarrow.array(["GRCh38"] * count, pyarrow.string()),
            "chrom": picked([one[0] for one in known], index),
            "pos": pyarrow.array(numpy.array([one[1] for one in known])[index]),
            "ref": picked([one[2] for one in known], index),
            "alt": picked([one[3] for one in known], index),
            "gene": picked([one[4] for one in known], index),
            "hgvs_c": picked([one[5] for one in known], index),
            "hgvs_p": picked([one[6] for one in known], index),
            "zygosity": picked(["mosaic", "heterozygous"], germline.astype(int)),
            "vaf": pyarrow.array(share),
            "depth": pyarrow.array(random.poisson(40, size=count)),
            "clinical_class": picked(["pathogenic", "uncertain"], (index >= len(VARIANTS)).astype(int)),
            "origin": picked([one[7] for one in known], index),
        }
    )


def _made_up(center: Center, count: int) -> list[tuple[str, int, str, str, str, str, str, str, tuple[str, ...]]]:
    random = center.random
    found: list[tuple[str, int, str, str, str, str, str, str, tuple[str, ...]]] = []
    for number in range(count):
        before, after = random.choice(list("ACGT"), size=2, replace=False)
        place = int(random.integers(1_000_000, 40_000_000))
        chrom = str(random.integers(1, 23))
        coding = f"c.{number + 1}{before}>{after}"
        found.append((chrom, place, str(before), str(after), f"SIMG{number:04d}", coding, "", "germline", ()))
    return found


def day_numbers(column: pyarrow.ChunkedArray) -> Integers:
    """Dates as days since FIRST_DAY's calendar, for arithmetic with tables.days."""
    first = days(numpy.zeros(1, dtype=int)).cast(pyarrow.int32())[0].as_py()
    numbers: Integers = column.combine_chunks().cast(pyarrow.int32()).to_numpy().astype(numpy.int64) - first
    return numbers
