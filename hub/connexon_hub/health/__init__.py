"""How the federation is doing: link events for the operator, and the witness of the centers' audit logs."""
