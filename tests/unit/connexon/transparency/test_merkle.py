"""Merkle trees: the vectors of Certificate Transparency, and the laws of proofs against the RFC's own recursion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.transparency import merkle
from connexon.transparency.merkle import Complete, Frontier

# The leaves and roots by which Certificate Transparency's implementations are tested.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, as it stands there."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    cut = 1
    while cut * 2 < len(leaves):
        cut *= 2
    return hashlib.sha256(b"\1" + mth(leaves[:cut]) + mth(leaves[cut:])).digest()


class Tree:
    """A tree with all of its complete parts, as a node stores them."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self.parts: dict[Complete, bytes] = {}
        self.roots = [merkle.EMPTY]
        frontier = Frontier()
        for end, leaf in enumerate(leaves, 1):
            self.parts |= {(level, end): part for level, part in enumerate(frontier.add(merkle.leaf_hash(leaf)))}
            self.roots.append(frontier.root())

    def path(self, index: int, size: int) -> list[bytes]:
        return merkle.proof(merkle.inclusion_ranges(index, size), self.parts.__getitem__)

    def consistency(self, earlier: int, size: int) -> list[bytes]:
        return merkle.proof(merkle.consistency_ranges(earlier, size), self.parts.__getitem__)


TREE = Tree([b"leaf %d" % number for number in range(300)])


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert Tree(LEAVES[:size]).roots[-1].hex() == ROOTS[size - 1]


def test_paths_are_those_of_certificate_transparency() -> None:
    tree = Tree(LEAVES)
    assert [step.hex() for step in tree.path(5, 8)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [step.hex() for step in tree.consistency(6, 8)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_roots_of_every_size_are_those_of_the_recursion() -> None:
    assert all(mth(TREE.leaves[:size]) == TREE.roots[size] for size in range(301))


def test_the_path_of_the_last_leaf_is_the_frontier_before_it() -> None:
    frontier = Frontier()
    for index, leaf in enumerate(TREE.leaves):
        assert frontier.peaks[::-1] == TREE.path(index, index + 1)
        frontier.add(merkle.leaf_hash(leaf))


def test_a_frontier_survives_being_written_down_and_refuses_another_size() -> None:
    frontier = Frontier()
    for leaf in TREE.leaves[:205]:
        frontier.add(merkle.leaf_hash(leaf))
    again = Frontier.from_bytes(205, frontier.to_bytes())
    assert again.root() == TREE.roots[205]
    with pytest.raises(ValueError, match="not the frontier"):
        Frontier.from_bytes(207, frontier.to_bytes())
    with pytest.raises(ValueError, match="not the frontier"):
        Frontier.from_bytes(205, frontier.to_bytes()[:-1])


sizes = st.integers(1, 300)


@given(size=sizes, data=st.data())
def test_every_leaf_is_proved_to_be_where_it_is_and_nowhere_else(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaf, path, root = merkle.leaf_hash(TREE.leaves[index]), TREE.path(index, size), TREE.roots[size]
    assert merkle.included(leaf, index, size, path, root)
    other = data.draw(st.integers(-1, 301).filter(lambda number: number != index))
    assert not merkle.included(leaf, other, size, path, root)
    assert not merkle.included(merkle.leaf_hash(b"another"), index, size, path, root)
    assert not merkle.included(leaf, index, size, path, TREE.roots[size - 1])
    assert not merkle.included(leaf, index, size, [*path, root], root)
    if path:
        assert not merkle.included(leaf, index, size, _changed(path, data), root)
        assert not merkle.included(leaf, index, size, path[:-1], root)


@settings(max_examples=200)
@given(size=sizes, data=st.data())
def test_every_tree_is_proved_to_continue_its_beginnings_and_no_other(size: int, data: st.DataObject) -> None:
    earlier = data.draw(st.integers(1, size))
    path, before, after = TREE.consistency(earlier, size), TREE.roots[earlier], TREE.roots[size]
    assert merkle.consistent(earlier, before, size, after, path)
    other = hashlib.sha256(b"another").digest()
    assert not merkle.consistent(earlier, other, size, after, path)
    assert not merkle.consistent(earlier, before, size, other, path)
    assert not merkle.consistent(earlier, before, size, after, [*path, other])
    assert not merkle.consistent(earlier, TREE.roots[earlier - 1], size, after, path)
    if path:
        assert not merkle.consistent(earlier, before, size, after, _changed(path, data))
        assert not merkle.consistent(earlier, before, size, after, path[:-1])


def test_every_tree_continues_the_empty_one() -> None:
    assert merkle.consistent(0, merkle.EMPTY, 7, TREE.roots[7], [])
    assert merkle.consistent(0, merkle.EMPTY, 0, merkle.EMPTY, [])
    assert not merkle.consistent(0, TREE.roots[1], 7, TREE.roots[7], [])
    assert not merkle.consistent(8, TREE.roots[8], 7, TREE.roots[7], [])


def test_what_a_tree_cannot_have_is_not_proved() -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_ranges(7, 7)
    with pytest.raises(ValueError, match="does not continue"):
        merkle.consistency_ranges(8, 7)


def _changed(path: list[bytes], data: st.DataObject) -> list[bytes]:
    place, bit = data.draw(st.integers(0, len(path) - 1)), data.draw(st.integers(0, 255))
    number = int.from_bytes(path[place]) ^ (1 << bit)
    return [*path[:place], number.to_bytes(32), *path[place + 1 :]]
