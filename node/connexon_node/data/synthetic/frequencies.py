"""What simulated centers are made of: plausible frequencies, as data. No figure here is a finding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Disease:
    """A disease with its share of donors, the ages it comes at (mean and spread, years) and what is seen of it."""

    term: str
    share: float
    age: tuple[float, float]
    female: float = 0.5
    phenotypes: tuple[str, ...] = ()


NONE = Disease(term="", share=0.42, age=(42, 18))
DISEASES = (
    NONE,
    Disease(term="MONDO:0005180", share=0.07, age=(62, 10), female=0.4, phenotypes=("HP:0001300", "HP:0001337")),
    Disease(term="MONDO:0008199", share=0.03, age=(70, 7), female=0.4, phenotypes=("HP:0001300",)),
    Disease(term="MONDO:0004976", share=0.06, age=(58, 11), female=0.42, phenotypes=("HP:0003202",)),
    Disease(term="MONDO:0004975", share=0.08, age=(73, 8), female=0.6, phenotypes=("HP:0002354", "HP:0000726")),
    Disease(term="MONDO:0007739", share=0.03, age=(46, 12), phenotypes=("HP:0002072",)),
    Disease(term="MONDO:0005301", share=0.05, age=(38, 11), female=0.7),
    Disease(term="MONDO:0005150", share=0.05, age=(75, 7), female=0.55),
    Disease(term="MONDO:0019200", share=0.04, age=(36, 15), phenotypes=("HP:0000510", "HP:0000662")),
    Disease(term="MONDO:0005267", share=0.06, age=(60, 14), female=0.42, phenotypes=("HP:0001635",)),
    Disease(term="MONDO:0005015", share=0.07, age=(50, 18), phenotypes=("HP:0003074",)),
    Disease(term="MONDO:0010679", share=0.02, age=(11, 4), female=0.01, phenotypes=("HP:0003560",)),
    Disease(term="MONDO:0043797", share=0.02, age=(37, 16), female=0.24),
)

ANCESTRIES = {
    "HANCESTRO:0005": 0.50,
    "HANCESTRO:0009": 0.10,
    "HANCESTRO:0019": 0.08,
    "HANCESTRO:0021": 0.08,
    "HANCESTRO:0006": 0.08,
    "HANCESTRO:0010": 0.08,
    "": 0.08,
}
COUNTRIES = {"FR": 0.25, "DE": 0.25, "JP": 0.2, "US": 0.2, "GB": 0.1}
ELIGIBILITY = {"eligible": 0.55, "ineligible": 0.05, "not_required": 0.3, "unknown": 0.1}

PERMISSIONS = {
    "DUO:0000042": 0.38,
    "DUO:0000006": 0.32,
    "DUO:0000007": 0.22,
    "DUO:0000004": 0.05,
    "DUO:0000011": 0.03,
}
"""General, health, disease specific (of donors with a disease), no restriction, ancestry only."""
DISEASE_SPECIFIC = "DUO:0000007"
MODIFIERS = {
    "": 0.55,
    "DUO:0000045": 0.10,
    "DUO:0000046": 0.07,
    "DUO:0000018": 0.05,
    "DUO:0000021": 0.05,
    "DUO:0000019": 0.05,
    "DUO:0000043": 0.03,
    "DUO:0000044": 0.03,
    "DUO:0000015": 0.02,
    "DUO:0000025=120": 0.02,
    "DUO:0000024=2027-01-01": 0.02,
    "DUO:0000045;DUO:0000021": 0.01,
}
"""Of consents that are not disease specific; those take one of the first three, with shares 0.8, 0.15, 0.05."""
CLINICAL_CARE = "DUO:0000043"
FORMS = ("SIM-1.0", "SIM-2.0")

SOURCE_CELLS = {"CL:0000057": 0.6, "CL:0000037": 0.25, "CL:0000134": 0.15}
EMBRYONIC = "CL:0002322"
METHODS = {
    "episomal": 0.42,
    "sendai": 0.36,
    "mrna": 0.08,
    "lentivirus": 0.06,
    "retrovirus": 0.06,
    "small_molecule": 0.02,
}
INTEGRATING = ("lentivirus", "retrovirus")
MODIFICATIONS = {"none": 0.86, "knock_out": 0.05, "knock_in": 0.03, "correction": 0.03, "transgene": 0.03}
AVAILABILITY = {
    "available": 0.5,
    "expand_to_order": 0.2,
    "restricted_distribution": 0.15,
    "not_available": 0.15,
}
LINE_STATUS = {"active": 0.95, "retired": 0.03, "withdrawn": 0.015, "recalled": 0.005}
LOT_STATUS = {"released": 0.72, "quarantine": 0.12, "exhausted": 0.1, "rejected": 0.05, "recalled": 0.01}
BANK_LEVELS = ("seed", "MCB", "WCB")
