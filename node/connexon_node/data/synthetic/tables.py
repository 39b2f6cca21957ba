"""The tables of one simulated center: coherent, the same for the same seed, made in whole columns."""

from __future__ import annotations

import datetime
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any as Column  # an Arrow array, chunked or not: pyarrow brings no types

import numpy
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray

from connexon_node.data.dictionary.donors import AGE_RANGES
from connexon_node.data.synthetic import frequencies

compute = pyarrow.compute
Integers = NDArray[numpy.int64]

FIRST_DAY = datetime.date(2012, 1, 1)
LAST_DAY = datetime.date(2025, 6, 30)
"""Fixed, so that the same seed gives the same days next year."""
_DAYS = (LAST_DAY - FIRST_DAY).days
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NAMES = 26 * 26 * 999
"""hPSCreg names of one simulated institute group; donors beyond it have lines without a registry name."""


@dataclass(frozen=True)
class Center:
    """What all tables of one center share."""

    name: str
    random: numpy.random.Generator

    @classmethod
    def seeded(cls, name: str, seed: int) -> Center:
        """A center whose tables follow from name and seed alone."""
        return cls(name, numpy.random.default_rng([seed, zlib.crc32(name.encode())]))

    @property
    def prefix(self) -> str:
        """What every identifier begins with: it says that nothing of this is real."""
        return f"SIM-{self.name.upper()}"

    def chosen(self, shares: Mapping[str, float], count: int) -> Column:
        """`count` values drawn by their shares; an empty value stands for a missing one."""
        weights = numpy.array(list(shares.values()))
        drawn = self.random.choice(len(shares), size=count, p=weights / weights.sum())
        return picked(list(shares), drawn)


def picked(values: Sequence[str], indexes: Integers) -> Column:
    """The value for each index; an empty value becomes missing."""
    return pyarrow.array([value or None for value in values], pyarrow.string()).take(pyarrow.array(indexes))


def numbered(prefix: str, numbers: Integers, width: int = 7) -> Column:
    """Texts such as SIM-LYON-D0000001."""
    return joined(prefix, compute.utf8_lpad(pyarrow.array(numbers).cast(pyarrow.string()), width, "0"))


def joined(*parts: str | Column) -> Column:
    """The parts one after another, missing where one is missing."""
    return compute.binary_join_element_wise(*parts, "")


def lettered(numbers: Integers, letters: str, width: int) -> Column:
    """The numbers written with `letters` as digits, at fixed width."""
    digits = pyarrow.array(list(letters))
    powers = len(letters) ** numpy.arange(width - 1, -1, -1)
    return joined(*(digits.take(pyarrow.array(numbers // power % len(letters))) for power in powers))


def days(offsets: Integers) -> Column:
    """Dates from days after FIRST_DAY."""
    since_1970 = (FIRST_DAY - datetime.date(1970, 1, 1)).days
    return pyarrow.array((offsets + since_1970).astype(numpy.int32)).cast(pyarrow.date32())


def present(column: Column, keep: NDArray[numpy.bool_]) -> Column:
    """The column, with the values that are not kept replaced by missing."""
    return compute.if_else(pyarrow.array(keep), column, pyarrow.scalar(None, column.type))


def donors(center: Center, count: int) -> tuple[pyarrow.Table, Integers]:
    """`count` donors, and for each the index of its disease in frequencies.DISEASES."""
    random, known = center.random, frequencies.DISEASES
    shares = numpy.array([disease.share for disease in known])
    disease = random.choice(len(known), size=count, p=shares / shares.sum())
    female = random.random(count) < numpy.array([one.female for one in known])[disease]
    sex = numpy.where(random.random(count) < 0.01, 2, numpy.where(female, 0, 1))
    mean, spread = (numpy.array([one.age[part] for one in known])[disease] for part in (0, 1))
    age = numpy.clip(random.normal(mean, spread), 0, 99).astype(numpy.int64)
    findings = picked([";".join(one.phenotypes) for one in known], disease)
    table = pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-D", numpy.arange(1, count + 1)),
            "sex": picked(["female", "male", "unknown"], sex),
            "age_range_y": picked(AGE_RANGES, numpy.minimum(age // 5, 18)),
            "ancestry_term": center.chosen(frequencies.ANCESTRIES, count),
            "country_iso2": center.chosen(frequencies.COUNTRIES, count),
            "primary_disease_term": picked([one.term for one in known], disease),
            "phenotype_terms": present(findings, random.random(count) < 0.7),
            "eligibility": center.chosen(frequencies.ELIGIBILITY, count),
        }
    )
    return table, disease


def consents(center: Center, donor_table: pyarrow.Table, disease: Integers) -> pyarrow.Table:
    """Consents of 97 in 100 donors; 2 in 100 of those are withdrawn, 1 expired. The other donors have none."""
    random = center.random
    holders = numpy.flatnonzero(random.random(donor_table.num_rows) < 0.97)
    count, disease = len(holders), disease[holders]
    permissions = list(frequencies.PERMISSIONS)
    shares = numpy.array(list(frequencies.PERMISSIONS.values()))
    permission = random.choice(len(shares), size=count, p=shares / shares.sum())
    specific = permission == permissions.index(frequencies.DISEASE_SPECIFIC)
    # A consent to research on the donor's disease needs one; the others are general.
    permission = numpy.where(specific & (disease == 0), 0, permission)
    specific &= disease > 0
    modifiers = _modifiers(center, disease, specific)
    obtained = random.integers(0, _DAYS - 30, size=count)
    state = random.choice(3, size=count, p=[0.97, 0.02, 0.01])
    withdrawn = obtained + random.integers(1, 30, size=count)
    clinical = compute.fill_null(compute.match_substring(modifiers, frequencies.CLINICAL_CARE), False)
    return pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-C", holders + 1),
            "donor_id": donor_table["id"].combine_chunks().take(pyarrow.array(holders)),
            "form_version": picked(frequencies.FORMS, (permission % 2)),
            "obtained_on": days(obtained),
            "status": picked(["active", "withdrawn", "expired"], state),
            "withdrawn_on": present(days(withdrawn), state == 1),
            "scope": compute.if_else(clinical, "both", "research"),
            "duo_permission": picked(permissions, permission),
            "modifiers": modifiers,
            "ethics_body": picked(["Simulated ethics committee"], numpy.zeros(count, dtype=numpy.int64)),
            "ethics_approval_no": numbered("SIM-", permission + 1, 3),
            "isscr_category": picked(["1A"], numpy.zeros(count, dtype=numpy.int64)),
        }
    )


def _modifiers(center: Center, disease: Integers, specific: NDArray[numpy.bool_]) -> Column:
    general = center.chosen(frequencies.MODIFIERS, len(disease))
    few = picked(list(frequencies.MODIFIERS)[:3], center.random.choice(3, size=len(disease), p=[0.8, 0.15, 0.05]))
    named = picked([f"{frequencies.DISEASE_SPECIFIC}={one.term}" for one in frequencies.DISEASES], disease)
    narrow = compute.if_else(compute.is_null(few), named, joined(named, ";", few))
    return compute.if_else(pyarrow.array(specific), narrow, general)


def cell_lines(center: Center, donor_table: pyarrow.Table, disease: Integers) -> tuple[pyarrow.Table, Integers]:
    """One to three clones of six in ten donors, and for each line the day of its derivation."""
    random = center.random
    sources = numpy.flatnonzero(random.random(donor_table.num_rows) < 0.6)
    owner = numpy.repeat(numpy.arange(len(sources)), random.choice([1, 2, 3], size=len(sources), p=[0.6, 0.3, 0.1]))
    count = len(owner)
    clone = numpy.arange(count) - numpy.searchsorted(owner, owner)
    donor = sources[owner]
    embryonic = ((disease[sources] == 0) & (random.random(len(sources)) < 0.15))[owner]
    method = compute.if_else(pyarrow.array(embryonic), "not_applicable", center.chosen(frequencies.METHODS, count))
    integrating = compute.is_in(method, pyarrow.array(frequencies.INTEGRATING)).to_numpy(zero_copy_only=False)
    detectable = numpy.where(integrating, 0, numpy.where(random.random(count) < 0.1, 2, 1))
    clinical = random.random(count) < 0.06
    derived = random.integers(0, _DAYS - 400, size=count)
    source_cells = center.chosen(frequencies.SOURCE_CELLS, count)
    table = pyarrow.table(
        {
            "id": numbered(f"{center.prefix}-L", numpy.arange(1, count + 1)),
            "hpscreg_name": _registry_names(center, owner, clone, embryonic),
            "rrid": _rrids(center, count),
            "donor_id": donor_table["id"].combine_chunks().take(pyarrow.array(donor)),
            "type": compute.if_else(pyarrow.array(embryonic), "ESC", "iPSC"),
            "grade": picked(["research", "clinical"], clinical.astype(numpy.int64)),
            "source_cell_term": compute.if_else(pyarrow.array(embryonic), frequencies.EMBRYONIC, source_cells),
            "reprogramming_method": method,
            "vector_detectable": present(picked(["yes", "no", "unknown"], detectable), ~embryonic),
            "disease_term": picked([one.term for one in frequencies.DISEASES], disease[donor]),
            "genetic_modification": center.chosen(frequencies.MODIFICATIONS, count),
            "derived_on": days(derived),
            "xeno_free": pyarrow.array(clinical | (random.random(count) < 0.2)),
            "gmp": pyarrow.array(clinical),
            "status": center.chosen(frequencies.LINE_STATUS, count),
            "availability": center.chosen(frequencies.AVAILABILITY, count),
        }
    )
    return table, derived


def _registry_names(center: Center, owner: Integers, clone: Integers, embryonic: NDArray[numpy.bool_]) -> Column:
    institute = "S" + "".join(_LETTERS[zlib.crc32(center.name.encode()) // 26**place % 26] for place in range(2))
    names = joined(
        institute,
        lettered(owner // 999, _LETTERS, 2),
        compute.if_else(pyarrow.array(embryonic), "e", "i"),
        numbered("", owner % 999 + 1, 3),
        "-",
        picked(["A", "B", "C"], clone),
    )
    return present(names, owner < _NAMES)


def _rrids(center: Center, count: int) -> Column:
    numbers = numpy.arange(count) + zlib.crc32(center.name.encode()) % 36**2
    named = (center.random.random(count) < 0.7) & (numbers < 36**4)
    return present(joined("CVCL_", lettered(numbers, _DIGITS, 4)), named)


def lots(center: Center, line_table: pyarrow.Table, derived: Integers) -> pyarrow.Table:
    """A seed lot of every line, a master bank of most and a working bank of many; passages rise with the level."""
    random = center.random
    banks = random.choice([1, 2, 3], size=line_table.num_rows, p=[0.3, 0.4, 0.3])
    line = numpy.repeat(numpy.arange(line_table.num_rows), banks)
    count = len(line)
    level = numpy.arange(count) - numpy.searchsorted(line, line)
    frozen = derived[line] + 60 + level * 90 + random.integers(0, 30, size=count)
    ids = numbered(f"{center.prefix}-B", numpy.arange(1, count + 1))
    return pyarrow.table(
        {
            "id": ids,
            "cell_line_id": line_table["id"].combine_chunks().take(pyarrow.array(line)),
            "lot_no": numbered("SIM", numpy.arange(1, count + 1), 8),
            "bank_level": picked(frequencies.BANK_LEVELS, level),
            "passage_no": pyarrow.array(8 + level * 8 + random.poisson(4, size=count)),
            "cells_per_vial_1e6": pyarrow.array(numpy.round(random.gamma(8, 0.25, size=count) + 0.2, 2)),
            "vials_made": pyarrow.array(numpy.array([12, 60, 200])[level] + random.integers(0, 20, size=count)),
            "frozen_on": days(frozen),
            "expiry_on": days(frozen + 3650),
            "status": center.chosen(frequencies.LOT_STATUS, count),
        }
    )
