"""Proof that a center recorded what it answered: Merkle trees, receipts, and proof files that anybody can verify."""
