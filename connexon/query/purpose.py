"""Purposes in the words researchers use, and the DUO terms they stand for.

Terms: Data Use Ontology (EBISPOT/DUO, CC BY 4.0). The investigation classes are used where DUO has one;
general research and clinical care are asked for by the permission that grants them.
"""

from __future__ import annotations

from connexon.conditions.terms import CURIE
from connexon.errors import InvalidQuery
from connexon.query.question import Purpose
from connexon.suggest import hint

GENERAL = "DUO:0000042"
METHODS = "DUO:0000031"
POPULATION = "DUO:0000032"
ANCESTRY = "DUO:0000033"
AGE_GROUP = "DUO:0000034"
SEX = "DUO:0000035"
CONTROL = "DUO:0000036"
HEALTH = "DUO:0000037"
GENETIC = "DUO:0000038"
DRUG_DEVELOPMENT = "DUO:0000039"
DISEASE = "DUO:0000040"
CLINICAL_CARE = "DUO:0000043"
VULNERABLE_GROUP = "CONNEXON:vulnerable_group"
STIGMATIZED = "CONNEXON:stigmatized"
NON_HEALTH = "CONNEXON:non_health"
"""DUO has no term for these three, which centers look at one by one."""

WORDS = {
    "general": GENERAL,
    "health": HEALTH,
    "disease": DISEASE,
    "ancestry": ANCESTRY,
    "methods": METHODS,
    "genetic": GENETIC,
    "population": POPULATION,
    "age-group": AGE_GROUP,
    "sex": SEX,
    "control": CONTROL,
    "drug-development": DRUG_DEVELOPMENT,
    "clinical-care": CLINICAL_CARE,
    "vulnerable-group": VULNERABLE_GROUP,
    "stigmatized": STIGMATIZED,
    "non-health": NON_HEALTH,
}
"""What is written after --purpose, and its DUO term."""

KINDS_OF_HEALTH = frozenset({HEALTH, DISEASE, GENETIC, DRUG_DEVELOPMENT})
"""Biomedical research and what DUO puts under it."""
TERMS = {term: word for word, term in WORDS.items()}


def parse_purpose(text: str, *, commercial_use: bool = False, project: str = "", ethics_approval: str = "") -> Purpose:
    """Read a purpose such as "health", "disease=MONDO:0005180" or "methods,disease=MONDO:0005180".

    Raises InvalidQuery that names the words which exist.
    """
    research: list[str] = []
    disease = ""
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        word, _, value = part.partition("=")
        term = WORDS.get(word, word)
        if term not in TERMS:
            known = ", ".join(WORDS)
            raise InvalidQuery(
                f"{word!r} is not a purpose.{hint(word, WORDS)} Use one of: {known}; "
                "for a disease write disease=MONDO:0005180.",
                code="purpose.unknown",
            )
        if value and term != DISEASE:
            raise InvalidQuery(f"The purpose {word!r} takes no value.", code="purpose.invalid")
        research.append(term)
        disease = value or disease
    return checked(
        Purpose(
            research=tuple(dict.fromkeys(research)),
            disease=disease,
            commercial_use=commercial_use,
            project=project,
            ethics_approval=ethics_approval,
        )
    )


def checked(purpose: Purpose) -> Purpose:
    """Return the purpose if it is whole; raise InvalidQuery with what it lacks."""
    if not purpose.research:
        raise InvalidQuery("Say what the question is for: give a purpose, for example health.", code="purpose.missing")
    unknown = [term for term in purpose.research if term not in TERMS]
    if unknown:
        raise InvalidQuery(f"{unknown[0][:80]!r} is not a purpose that is known here.", code="purpose.unknown")
    if len(set(purpose.research)) != len(purpose.research):
        raise InvalidQuery("The purpose names a kind of research twice.", code="purpose.invalid")
    if DISEASE in purpose.research and not purpose.disease:
        raise InvalidQuery(
            "Disease research must name the disease, for example disease=MONDO:0005180.",
            code="purpose.disease_missing",
        )
    if purpose.disease and not (CURIE.match(purpose.disease) and purpose.disease.startswith("MONDO:")):
        raise InvalidQuery(
            f"{purpose.disease[:80]!r} is not a MONDO term such as MONDO:0005180.", code="purpose.disease_invalid"
        )
    for name, value in (("project", purpose.project), ("ethics approval", purpose.ethics_approval)):
        if len(value) > 200 or not value.isprintable():
            raise InvalidQuery(f"The {name} must be one line of at most 200 characters.", code="purpose.invalid")
    return purpose


def describe(purpose: Purpose) -> str:
    """The purpose in the words of `parse_purpose`, for people."""
    words = [TERMS[term] for term in purpose.research]
    if purpose.disease:
        words = [f"disease={purpose.disease}" if word == "disease" else word for word in words]
        if DISEASE not in purpose.research:
            words.append(f"on {purpose.disease}")
    return ",".join(words) + (" (commercial)" if purpose.commercial_use else "")
