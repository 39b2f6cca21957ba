"""The steward's room: questions that only a person can decide wait here, and what was decided is remembered.

A question that the rules refer is answered "awaiting steward" and kept in the same transaction. The steward approves
or refuses it from the command line, in another process; the serving node looks for decisions every second and answers
the very question. Whatever was approved, consent is judged anew: an approval settles the reasons the steward saw, never
a denial.
"""

from connexon_node.approvals.steward import Desk
from connexon_node.approvals.store import ApprovalStore

__all__ = ["ApprovalStore", "Desk"]
