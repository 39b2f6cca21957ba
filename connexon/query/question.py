"""The question as Connexon thinks of it: frozen values, parsed once from the wire (connexon.query.wire_question).

The language is closed. What is not here cannot be asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from connexon.analyses.spec import Analysis
from connexon.conditions.filters import Filter
from connexon.identity.keys import CenterId


@dataclass(frozen=True)
class Purpose:
    """Why a question is asked, in DUO terms; see connexon.query.purpose for the words people use."""

    research: tuple[str, ...]
    disease: str = ""
    commercial_use: bool = False
    project: str = ""
    ethics_approval: str = ""


@dataclass(frozen=True)
class Question:
    """One researcher's question to named centers. Times are milliseconds since 1970-01-01 UTC.

    `within`: the half-width of the 95 % interval that numbers with noise must have at each center; None: the center's
    default. `price_only`: say what the answer would cost instead of answering.
    """

    query_id: str
    federation: str
    centers: tuple[CenterId, ...]
    issued_at_ms: int
    expires_at_ms: int
    purpose: Purpose
    dataset: str
    filter: Filter | None
    analysis: Analysis
    within: int | None = None
    price_only: bool = False
