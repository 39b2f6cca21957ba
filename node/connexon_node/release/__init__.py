"""Release: what of an exact result may leave. Fail closed: what is not known here does not leave.

why.md, beside this file, says what is protected, how, and where the bounds are.
"""

from __future__ import annotations

from connexon_node.release.decision import Decision, Judged
from connexon_node.release.disclosure import ReleaseControl
from connexon_node.release.measures import UnknownShape

__all__ = ["Decision", "Judged", "ReleaseControl", "UnknownShape"]
