"""Several datasets as one import: all of them are switched to in one moment, or none is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from connexon_node.data.generations import Contents, Draft, Generation, Generations, Prepared


class Several(Generations):
    """Generations as they would be after an import of several datasets, until that is committed. See `several`."""

    def __init__(self, base: Generations) -> None:
        super().__init__(base.database, base.folder)
        self._base = base
        self._prepared: dict[str, Prepared] = {}
        self._retired: set[str] = set()

    def all_current(self) -> Mapping[str, Generation]:
        """What is in force, with what was prepared in its place."""
        found = {name: one for name, one in super().all_current().items() if name not in self._retired}
        return found | {name: one.generation for name, one in self._prepared.items()}

    @contextmanager
    def drafting(self, dataset: str) -> Iterator[Draft]:
        """As Generations.drafting; the lock is held by `several`, and what is prepared stays until that ends."""
        draft = self._new_draft(dataset)
        try:
            yield draft
        finally:
            shutil.rmtree(draft.scratch, ignore_errors=True)
            if dataset not in self._prepared:
                shutil.rmtree(draft.folder, ignore_errors=True)

    def publish(self, draft: Draft, contents: Contents, *, retire: tuple[str, ...] = ()) -> Generation:
        """Prepare a draft, to be switched to by `commit`."""
        self._prepared[draft.dataset] = prepared = self._prepare(draft, contents)
        self._retired = (self._retired | set(retire)) - {draft.dataset}
        return prepared.generation

    def commit(self) -> tuple[Generation, ...]:
        """Switch to all that was prepared."""
        retire = tuple(sorted(self._retired - self._prepared.keys()))
        made = self._base.switch(tuple(self._prepared.values()), retire=retire)
        self._prepared = {}
        return made

    def discard(self) -> None:
        """Remove what was prepared and not committed."""
        for one in self._prepared.values():
            shutil.rmtree(one.generation.path, ignore_errors=True)


@contextmanager
def several(base: Generations) -> Iterator[Several]:
    """No other import begins while this lasts; what is not committed is gone after it. Raises Conflict."""
    with base.undisturbed():
        made = Several(base)
        try:
            yield made
        finally:
            made.discard()
