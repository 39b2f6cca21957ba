"""The engine: exact results over the rows of a cohort, and over no other rows."""

from __future__ import annotations

from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import Dictionary
from connexon_node.data.generations import Generations
from connexon_node.editions import Editions
from connexon_node.engine.duck import DuckEngine
from connexon_node.engine.sql import SqlEngine
from connexon_node.ontology import Ontologies
from connexon_node.settings import EngineSection


def open_engine(
    generations: Generations,
    ledger: Ledger,
    ontologies: Ontologies,
    dictionary: Dictionary,
    limits: EngineSection,
    editions: Editions,
) -> SqlEngine:
    """The engine that the settings name. Raises Misconfigured where what it needs is not installed."""
    if limits.kind == "duckdb":
        return DuckEngine(generations, ledger, ontologies, dictionary, limits, editions)
    from connexon_node.engine.spark import SparkEngine

    return SparkEngine(generations, ledger, ontologies, dictionary, limits, editions)


__all__ = ["DuckEngine", "SqlEngine", "open_engine"]
