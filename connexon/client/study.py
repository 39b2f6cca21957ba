"""What is asked for one reason: datasets and the catalog, on terms that are said once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from connexon.analyses.describe import Describe
from connexon.client.dataset import Dataset

if TYPE_CHECKING:
    from connexon.client.answer import Answer
    from connexon.client.network import Network
    from connexon.client.terms import Terms


@dataclass(frozen=True, repr=False)
class Study:
    """Why, of whom and how patiently is asked; get it from network.study(). Nothing is asked before a count."""

    network: Network
    terms: Terms

    def dataset(self, name: str) -> Dataset:
        """A dataset to ask about, for example cell_lines."""
        return Dataset(self, name)

    def catalog(self, dataset: str = "") -> Answer:
        """What the centers offer: datasets, or the fields of one, and how many donors the purpose reaches.

        Without a purpose, also among the researcher's defaults, it is the general one.
        """
        terms = self.terms
        if terms.purpose is None and not self.network.home.defaults().purpose:
            terms = replace(terms, purpose="general")
        return self.network.ask(dataset, None, Describe(), replace(terms, expires_in="1h"))

    def __repr__(self) -> str:
        terms = self.terms
        said = [str(terms.purpose or "purpose by default")]
        said += [f"project {terms.project}"] if terms.project else []
        said += [f"of {', '.join(terms.centers)}"] if terms.centers and not isinstance(terms.centers, str) else []
        return f"<Study {' · '.join(said)}>"
