"""Differential privacy: noise that hides every single donor, and budgets that say how often it may be drawn.

The promise: what left under it would be nearly as likely had any one donor not been there, whatever else is known
(Dwork and Roth, The algorithmic foundations of differential privacy, 2014, doi:10.1561/0400000042). "Nearly" is
measured as rho of zero-concentrated differential privacy (zCDP), which adds up over answers, and stated to people as
epsilon and delta. `accounting` converts between them, `noise` draws, `budgets` keeps in the database who has spent
what.

why.md, beside this file, says why it is as it is.
"""

from __future__ import annotations

from connexon_node.privacy.accounting import epsilon_of, rho_of
from connexon_node.privacy.budgets import Account, Budgets, BudgetSpent, Entry, Kind, project_of

__all__ = ["Account", "BudgetSpent", "Budgets", "Entry", "Kind", "epsilon_of", "project_of", "rho_of"]
