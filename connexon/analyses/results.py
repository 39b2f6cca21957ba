"""What one center's result may hold at most, whatever the analysis."""

from __future__ import annotations

from connexon.errors import Refused

MAXIMUM_NUMBER = 10**12
"""No center has more donors or records, nor wider noise."""
MAXIMUM_CELLS = 20_000
"""Groups of one answer."""


class ResultUnreadable(Refused):
    """A center signed what does not fit the question, or what no center's answer can hold."""

    code = "answer.bad_result"
