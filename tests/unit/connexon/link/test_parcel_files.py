"""Parcels on disk: whole or not there, put together from pieces, and refused where pieces do not fit."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.link import parcel_files
from connexon.link.frames import CHUNK_SIZE, ParcelRefused
from connexon.link.parcel_files import FileAssembler, TaskId
from connexon.v1 import link_pb2

RUN = "123e4567-e89b-12d3-a456-426614174000"
TASK = TaskId(RUN, 7)
KIND = link_pb2.PARCEL_KIND_TASK


@pytest.fixture
def parcel(tmp_path: Path) -> Path:
    path = tmp_path / "parcel"
    parcel_files.write(path, b"head", [b"x" * CHUNK_SIZE, b"tail"])
    return path


def test_a_parcel_is_read_as_it_was_written(parcel: Path) -> None:
    found = parcel_files.read(parcel)
    assert (found.head, found.records_size) == (b"head", CHUNK_SIZE + 4)
    assert b"".join(found.records()) == b"x" * CHUNK_SIZE + b"tail"
    assert found.records_sha256() == hashlib.sha256(b"x" * CHUNK_SIZE + b"tail").digest()
    assert found.sha256() == hashlib.sha256(parcel.read_bytes()).digest()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> object:
        yield b"half"
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        parcel_files.write(tmp_path / "parcel", b"head", broken())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_pieces_come_together_again(parcel: Path, tmp_path: Path) -> None:
    assembler = FileAssembler(tmp_path, KIND)
    *first, last = parcel_files.pieces(str(TASK), KIND, parcel)
    assert all(assembler.add(piece) is None for piece in first)
    arrived = assembler.add(last)
    assert arrived is not None
    assert arrived.id == TASK
    arrived.keep(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == parcel.read_bytes()


def test_a_parcel_begun_again_starts_from_nothing(parcel: Path, tmp_path: Path) -> None:
    assembler = FileAssembler(tmp_path, KIND)
    pieces = list(parcel_files.pieces(str(TASK), KIND, parcel))
    assembler.add(pieces[0])
    arrived = [assembler.add(piece) for piece in pieces][-1]
    assert arrived is not None
    assert arrived.path.read_bytes() == parcel.read_bytes()


def test_what_is_not_whole_goes_when_the_line_is_cut(parcel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arriving"
    folder.mkdir()
    assembler = FileAssembler(folder, KIND)
    assembler.add(next(parcel_files.pieces(str(TASK), KIND, parcel)))
    assembler.close()
    assert list(folder.iterdir()) == []


def chunk(**changed: object) -> link_pb2.Chunk:
    """The first piece of a parcel of 10 bytes."""
    fields: dict[str, object] = {"query_id": str(TASK), "kind": KIND, "total_size": 10, "offset": 0, "data": b"12345"}
    return link_pb2.Chunk(**{**fields, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"query_id": RUN},
        {"query_id": f"../{RUN}.1"},
        {"query_id": f"{RUN}.-1"},
        {"kind": link_pb2.PARCEL_KIND_ANSWER},
        {"offset": 5},
        {"data": b""},
        {"data": b"12345678901"},
        {"total_size": 2**40},
    ],
)
def test_a_piece_that_does_not_fit_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(ParcelRefused):
        FileAssembler(tmp_path, KIND, maximum=2**30).add(chunk(**changed))


def test_too_many_parcels_at_once_are_refused(tmp_path: Path) -> None:
    assembler = FileAssembler(tmp_path, KIND)
    with pytest.raises(ParcelRefused, match="Too many"):
        for number in range(100):
            assembler.add(chunk(query_id=f"{RUN}.{number}"))
    assembler.close()


@given(st.binary(max_size=60))
def test_random_bytes_are_no_parcel_or_one_that_fits(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(data)
    with contextlib.suppress(ParcelRefused):
        found = parcel_files.read(path)
        assert 4 + len(found.head) + found.records_size == len(data)
