"""Merkle trees as RFC 6962 hashes them: roots, and proofs that a leaf is in a tree or that one tree continues another.

A tree over n leaves is cut at the largest power of two below n. Its complete parts never change again: a node stores
them, and every root and every proof is made from a few of them. Hashes are SHA-256, 32 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

SIZE = 32
EMPTY = hashlib.sha256().digest()
"""The root of the tree without leaves."""
Range = tuple[int, int]
"""Leaves from the first number up to, and without, the second; both count from 0."""
Complete = tuple[int, int]
"""A complete part: its level (it has 2^level leaves) and how many leaves there are up to its end."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf: the prefix keeps it apart from that of an inner node."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """All that a growing tree needs to remember: the roots of its complete parts, largest first, at most 64."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """Raises ValueError where a tree of `size` leaves does not have as many complete parts."""
        self.size = size
        self.peaks = list(peaks)
        if len(self.peaks) != size.bit_count() or any(len(peak) != SIZE for peak in self.peaks):
            raise ValueError(f"not the frontier of a tree of {size} leaves")

    @classmethod
    def from_bytes(cls, size: int, packed: bytes) -> Frontier:
        """The inverse of to_bytes; raises ValueError."""
        return cls(size, (packed[start : start + SIZE] for start in range(0, len(packed), SIZE)))

    def to_bytes(self) -> bytes:
        """The peaks, one after the other."""
        return b"".join(self.peaks)

    def add(self, leaf: bytes) -> list[bytes]:
        """Take the hash of the next leaf; returns the roots of the complete parts that end with it, smallest first.

        The leaf itself is the first. With n leaves afterwards there are as many more as n has trailing zero bits.
        """
        completed = [leaf]
        while self.size >> (len(completed) - 1) & 1:
            completed.append(node_hash(self.peaks.pop(), completed[-1]))
        self.peaks.append(completed[-1])
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The root of the whole tree."""
        return folded(self.peaks)


def folded(peaks: Sequence[bytes]) -> bytes:
    """The root over complete parts, which are given from left to right."""
    if not peaks:
        return EMPTY
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def complete_parts(of: Range) -> list[Complete]:
    """The complete parts that a subtree's root is folded from, left to right."""
    begin, end = of
    parts = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        begin += 1 << level
        parts.append((level, begin))
    return parts


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose roots are the audit path of a leaf (RFC 6962, 2.1.1), from the leaf up."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} among {size}")
    ranges, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + _cut(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]


def consistency_ranges(earlier: int, size: int) -> list[Range]:
    """The subtrees whose roots prove that a tree continues one of `earlier` leaves (RFC 6962, 2.1.2)."""
    if not 0 <= earlier <= size:
        raise ValueError(f"a tree of {size} leaves does not continue one of {earlier}")
    if earlier in (0, size):
        return []
    ranges, begin, end = [], 0, size
    while earlier != end:
        middle = begin + _cut(end - begin)
        if earlier <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    if begin:
        ranges.append((begin, end))
    return ranges[::-1]


def proof(ranges: Sequence[Range], read: Callable[[Complete], bytes]) -> list[bytes]:
    """The roots of these subtrees; `read` gives that of a complete part."""
    return [folded([read(part) for part in complete_parts(one)]) for one in ranges]


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves the leaf of that hash to be number `index`, from 0, of the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(step, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def consistent(earlier: int, earlier_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the tree of `size` leaves continues that of `earlier` (RFC 9162, 2.1.4.2)."""
    if not 0 <= earlier <= size:
        return False
    if earlier == 0:
        return earlier_root == EMPTY and not path and (size > 0 or root == EMPTY)
    if earlier == size:
        return earlier_root == root and not path
    steps = list(path) if earlier & (earlier - 1) else [earlier_root, *path]
    if not steps:
        return False
    place, last = earlier - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, step)
        place, last = place >> 1, last >> 1
    return last == 0 and before == earlier_root and after == root


def _cut(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
