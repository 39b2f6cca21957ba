"""How long generations that are no longer in force are kept, and their removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from connexon.clock import DAY, now_ms
from connexon_node.data.generations import Generation, Generations
from connexon_node.editions import Editions
from connexon_node.settings import DataSection


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What became of the generations that were due: removed (or, in a dry run, to be), or read by a query just now."""

    removed: tuple[Generation, ...]
    in_use: tuple[Generation, ...]

    @property
    def bytes(self) -> int:
        """Of what was removed."""
        return sum(generation.bytes for generation in self.removed)


def due(
    history: Sequence[Generation], rules: DataSection, *, at_ms: int, edition: Mapping[str, int]
) -> tuple[Generation, ...]:
    """The generations that nothing keeps any more, of `history` by dataset and oldest first.

    One stays while the edition in force is made of it, it is among the newest of its dataset, or was replaced less than
    the days ago. What was marked as removed and still has files is due.
    """
    found = []
    for _, group in groupby(history, key=lambda one: one.dataset):
        generations = list(group)
        for one, successor in pairwise(generations):
            kept = one in generations[-rules.keep_generations :] or edition.get(one.dataset) == one.number
            recent = at_ms - successor.imported_at_ms < rules.keep_days * DAY
            if one.has_files if one.removed_at_ms else not (kept or recent):
                found.append(one)
    return tuple(found)


def collect(generations: Generations, editions: Editions, rules: DataSection, *, dry_run: bool) -> Collected:
    """Remove what is due and no query reads. Raises Conflict where an import is under way or an edition is opened."""
    with generations.undisturbed():
        present = editions.latest()
        edition = present.generations if present is not None else {}
        wanted = due(generations.history(), rules, at_ms=now_ms(), edition=edition)
        removed = wanted if dry_run else tuple(one for one in wanted if generations.remove(one))
    return Collected(removed=removed, in_use=tuple(one for one in wanted if one not in removed))
