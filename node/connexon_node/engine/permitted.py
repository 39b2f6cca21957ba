"""Which donors may be counted, as the engines ask it: one bit per donor number, 1 for permitted.

A lookup in a string of bits takes a third of the time of a join with the consent table (1,000,000 donors: 3 ms against
15 ms on two slow cores; Spark: 0.4 s against 1.5 s), and the table need not be in the database at all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import ibis
import numpy
from numpy.typing import NDArray

from connexon_node.consent.ledger import Ledger
from connexon_node.pipeline.values import Cohort, StandingCohort

IS_PERMITTED = "is_permitted"
"""The function that every engine defines for its sessions: whether a donor number is permitted in this one."""
_KEPT = 16
"""Cohorts whose bits are kept: 125 kB each for a million donors."""


@ibis.udf.scalar.builtin(name=IS_PERMITTED)  # type: ignore[untyped-decorator]  # ibis brings no types
def is_permitted(donor: int) -> bool:  # type: ignore[empty-body]  # the engine's session has it
    """The condition that a column of donor numbers is permitted."""


class PermittedDonors:
    """Consent of every donor in memory, brought up to the epoch of each cohort. Thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._epoch = -1
        self._profile_of: NDArray[numpy.int32] = numpy.zeros(1, dtype=numpy.int32)
        self._kept: OrderedDict[tuple[frozenset[int], int], bytes] = OrderedDict()

    def bits(self, cohort: Cohort | StandingCohort, last_donor: int) -> bytes:
        """One bit per donor from 0 (always 0) to at least `last_donor`, most significant first, in whole bytes.

        INVARIANT: never older than the cohort's epoch. It may be newer: the recorder then refuses the answer.
        """
        with self._lock:
            if self._epoch < cohort.epoch:
                self._refresh()
            key = (cohort.profiles, last_donor)
            bits = self._kept.get(key)
            if bits is None:
                bits = self._kept[key] = self._pack(cohort.profiles, last_donor)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return bits

    def _refresh(self) -> None:
        changed = self._ledger.changes(self._epoch) if self._epoch >= 0 else self._ledger.snapshot()
        if changed.donors.size:
            size = max(self._profile_of.size, int(changed.donors.max()) + 1)
            profile_of = numpy.zeros(size, dtype=numpy.int32)
            profile_of[: self._profile_of.size] = self._profile_of
            profile_of[changed.donors] = changed.profiles
            self._profile_of = profile_of
        self._epoch = changed.epoch
        self._kept.clear()

    def _pack(self, profiles: frozenset[int], last_donor: int) -> bytes:
        permitted = numpy.zeros(int(self._profile_of.max()) + 1, dtype=bool)
        # Profile 0 is no consent in force: never permitted, whatever a cohort says. Profiles that no donor has in
        # force lie beyond the array and select nobody.
        permitted[[number for number in profiles if 0 < number < permitted.size]] = True
        by_donor = numpy.zeros(max(self._profile_of.size, last_donor + 1), dtype=bool)
        by_donor[: self._profile_of.size] = permitted[self._profile_of]
        return numpy.packbits(by_donor).tobytes()
