"""Editions: the numbered, dated states of the center's data that private numbers describe.

An edition is the generations in force when the steward opened it. Imports and withdrawals never open one, since numbers
that changed on that day would tell whom they were about. With it, its first-ask tables are measured once and paid for;
`told` says which questions they answer, at no price.

why.md, beside this file, says what the tables are of and why it is as it is.
"""

from __future__ import annotations

from connexon_node.editions.store import Edition, Editions, NoEdition, NotInEdition

__all__ = ["Edition", "Editions", "NoEdition", "NotInEdition"]
