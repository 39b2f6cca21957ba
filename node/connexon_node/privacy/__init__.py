"""Differential privacy: noise that hides every single donor, and the account that says how much may be told.

The promise: what left under it would be nearly as likely had any one donor not been there, whatever else is known
(Dwork and Roth, The algorithmic foundations of differential privacy, 2014, doi:10.1561/0400000042). "Nearly" is
measured as rho of zero-concentrated differential privacy (zCDP), which adds up over answers, and stated to people as
the best guess of a secret that it allows. `connexon.zcdp` converts, `accuracy` says how wide noise may be, `noise`
draws, `draws` keeps what was drawn, `account` what it has cost, `training` says what a model costs.

why.md, beside this file, says why it is as it is.
"""

from __future__ import annotations

from connexon.zcdp import epsilon_of, rho_of
from connexon_node.privacy.account import Account, BudgetSpent, Charge, Share

__all__ = ["Account", "BudgetSpent", "Charge", "Share", "epsilon_of", "rho_of"]
