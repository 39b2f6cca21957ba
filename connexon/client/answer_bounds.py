"""What a center may sign at most: bounds on an answer as a whole, judged when it is read.

A proved signature says who signed, not that the content can be added up, shown or written to a file. An answer beyond
these bounds is that center's fault alone, so it is refused before anything of it stands beside the others' parts.
"""

from __future__ import annotations

from connexon.analyses.results import MAXIMUM_CELLS, MAXIMUM_NUMBER, ResultUnreadable
from connexon.analyses.spec import MAXIMUM_WITHIN
from connexon.clock import END
from connexon.conditions import wire_filter
from connexon.conditions.terms import CURIE
from connexon.errors import InvalidQuery
from connexon.query.question import Question
from connexon.v1 import answer_pb2

MAXIMUM_WHOLE = 2**53 - 1
"""Of versions and serial numbers: readers of JSON in other languages take larger ones for a neighbor."""
MAXIMUM_VERSIONS = 1_000
"""Datasets with their generation, and ontologies, of one answer."""
MAXIMUM_OBLIGATIONS = 100
MAXIMUM_DATASETS = 200
MAXIMUM_FIELDS = 5_000
"""Of all datasets together."""
MAXIMUM_TERMS = 20_000
"""Named in a description; with the length of a message they cannot be many more."""
MAXIMUM_RULE = 1_000_000
"""Of the least number of donors and of rounding."""


def require_bounded(answer: answer_pb2.Answer, question: Question) -> None:
    """Raise ResultUnreadable where an answer holds more, or other sizes, than an answer to this question can."""
    _require(0 <= answer.answered_at_ms < END, "was made at a time that cannot be")
    _require(len(answer.obligations) <= MAXIMUM_OBLIGATIONS, f"has more than {MAXIMUM_OBLIGATIONS} obligations")
    _require_versions(answer.provenance)
    rules = (answer.protection.minimum_donors, answer.protection.rounded_to)
    _require(max(rules) <= MAXIMUM_RULE, "states release rules that cannot be")
    if answer.status == answer_pb2.ANSWER_STATUS_RELEASED:
        _require_result(answer, question)


def _require_versions(wire: answer_pb2.Provenance) -> None:
    most = max(len(wire.generations), len(wire.ontologies))
    _require(most <= MAXIMUM_VERSIONS, f"rests on more than {MAXIMUM_VERSIONS:,} datasets or ontologies")
    largest = max([wire.roster_serial, *wire.generations.values()])
    _require(largest <= MAXIMUM_WHOLE, "rests on versions that cannot be")


def _require_result(answer: answer_pb2.Answer, question: Question) -> None:
    result = answer.WhichOneof("result")
    # INVARIANT: a price is never among numbers, nor a number among prices, whatever one center signs.
    _require((result == "price") == question.price_only, "is a price where numbers were asked for, or the reverse")
    _require(len(answer.count.cells) <= MAXIMUM_CELLS, f"has more than {MAXIMUM_CELLS:,} groups")
    _require(all(abs(cell.number) <= MAXIMUM_NUMBER for cell in answer.count.cells), "has numbers of no center's size")
    _require(answer.enrolment.donors <= MAXIMUM_NUMBER, "names more donors than any center has")
    # A center is given the width, or chooses it within its bound; the noise of one must not drown the others' numbers.
    widest = 1 + (MAXIMUM_WITHIN if question.within is None else question.within)
    _require(answer.protection.noise.half_width <= widest, "has wider noise than was asked for")
    _require_description(answer.description)


def _require_description(wire: answer_pb2.Description) -> None:
    _require(len(wire.datasets) <= MAXIMUM_DATASETS, f"describes more than {MAXIMUM_DATASETS} datasets")
    fields = sum(len(dataset.fields) for dataset in wire.datasets)
    _require(fields <= MAXIMUM_FIELDS, f"describes more than {MAXIMUM_FIELDS:,} fields")
    _require(all(abs(dataset.number) <= MAXIMUM_NUMBER for dataset in wire.datasets), "has numbers of no center's size")
    _require(len(wire.terms) <= MAXIMUM_TERMS, f"names more than {MAXIMUM_TERMS:,} terms")
    _require(len(wire.ontologies) <= MAXIMUM_VERSIONS, f"names more than {MAXIMUM_VERSIONS:,} ontologies")
    _require(all(CURIE.match(term.id) for term in wire.terms), "names terms as no question can")
    names = [dataset.name for dataset in wire.datasets]
    _require(len(set(names)) == len(names), "describes a dataset twice")
    names += [field.name for dataset in wire.datasets for field in dataset.fields]
    try:
        for name in names:
            wire_filter.path(name)
    except InvalidQuery as error:
        raise ResultUnreadable("The center's answer names datasets or fields as no question can.") from error


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ResultUnreadable(f"The center's answer {what}.")
