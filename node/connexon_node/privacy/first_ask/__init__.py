"""First-ask tables: the tables that a center measures once per edition and then answers from at no price.

Values in, values out: no database, wire or engine. The way of a table:

- `Frame`: one row per donor, coded into known domains;
- `plan`: a sigma for each table, from domain sizes alone;
- `measure`: one discrete Gaussian draw of each table;
- `reconstruct`: least squares, so unbiased and consistent, with exact variances;
- `decide` and `answer`: a count question, by its words alone;
- `for_display`: a non-negative copy, for pictures only.

INVARIANT: only `count` and `measure` see exact numbers of donors, and only what `measure` returns may be kept.

why.md, beside this file, has the formulas and their sources.
"""

from __future__ import annotations

from connexon_node.privacy.first_ask.answering import Answerable, AnswerCell, Group, answer, decide
from connexon_node.privacy.first_ask.dimensions import Cell, Dimension, Origin, Special
from connexon_node.privacy.first_ask.display import for_display
from connexon_node.privacy.first_ask.frame import Frame, Table
from connexon_node.privacy.first_ask.measure import count, measure
from connexon_node.privacy.first_ask.plan import Plan, plan
from connexon_node.privacy.first_ask.reconstruct import Estimate, Estimates, Precision, half_width, reconstruct

__all__ = [
    "AnswerCell",
    "Answerable",
    "Cell",
    "Dimension",
    "Estimate",
    "Estimates",
    "Frame",
    "Group",
    "Origin",
    "Plan",
    "Precision",
    "Special",
    "Table",
    "answer",
    "count",
    "decide",
    "for_display",
    "half_width",
    "measure",
    "plan",
    "reconstruct",
]
