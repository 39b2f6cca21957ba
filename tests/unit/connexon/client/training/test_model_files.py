"""Files of a saved model that somebody else wrote: refused by their sizes and shapes before they are read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from connexon.client.training import model_files
from connexon.client.training.model_proof import MAXIMUM_STATEMENT, ModelRefused
from connexon.errors import Misconfigured, Refused
from connexon.learning.plain_records import MAXIMUM_ARRAYS, arrays_from, header_of
from connexon.v1 import task_pb2

SIZE = 6 * 8 + 4


def records(*arrays: tuple[str, str, tuple[int, ...]]) -> bytes:
    """The header of a model's arrays."""
    header = task_pb2.Records()
    named = header.arrays.add(name="model")
    for name, dtype, shape in arrays:
        named.arrays.add(name=name, dtype=dtype, shape=shape)
    return header.SerializeToString()


HEADER = records(("weights", "float64", (2, 3)), ("bias", "float32", (1,)))


def entries(**changes: Any) -> dict[str, Any]:
    """The header of the file as safetensors writes it."""
    weights = {"dtype": "F64", "shape": [2, 3], "data_offsets": [0, 48]} | changes
    return {"weights": weights, "bias": {"dtype": "F32", "shape": [1], "data_offsets": [48, 52]}}


def written(path: Path, header: Any, *, size: int = SIZE, length: int | None = None) -> Path:
    """A file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(size))
    return path


def test_a_file_that_safetensors_wrote_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(
        {"weights": numpy.ones((2, 3)), "bias": numpy.ones(1, dtype=numpy.float32)}, file, metadata={"connexon": "a/1"}
    )
    model_files.require_safetensors(file, HEADER, SIZE)
    model_files.require_safetensors(written(file, entries()), HEADER, SIZE)


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        (entries(), {"length": 2**64 - 1}),
        (entries(), {"length": 2**40}),
        (entries(), {"length": 0}),
        (entries(), {"size": SIZE + 1}),
        (entries(), {"size": 0}),
        (b"[" * 100_000, {}),
        (b"\xff\xfe{}", {}),
        (b"[]", {}),
        (b"null", {}),
        ({}, {}),
        (entries() | {"more": {"dtype": "F32", "shape": [0], "data_offsets": [52, 52]}}, {}),
        (entries(dtype="F32"), {}),
        (entries(dtype=["F64"]), {}),
        (entries(shape=[3, 2]), {}),
        (entries(shape=[2**62, 3]), {}),
        (entries(shape="23"), {}),
        (entries(data_offsets=[0, 2**62]), {}),
        (entries(data_offsets=[48, 0]), {}),
        (entries(data_offsets=[0.0, 48.0]), {}),
        (entries(data_offsets=None), {}),
        ({"weights": 1, "bias": 2}, {}),
    ],
)
def test_a_file_of_another_shape_is_refused_before_it_is_read(
    tmp_path: Path, header: Any, changes: dict[str, int]
) -> None:
    file = written(tmp_path / "model.safetensors", header, **changes)
    with pytest.raises(ModelRefused) as refused:
        model_files.require_safetensors(file, HEADER, SIZE)
    assert refused.value.code == "model.bad_arrays"
    assert refused.value.public.startswith("model.safetensors ")


def test_files_longer_than_they_can_be_are_not_read_on(tmp_path: Path) -> None:
    file = tmp_path / "statement.connexon"
    with file.open("wb") as sparse:
        sparse.truncate(MAXIMUM_STATEMENT + 1)
    with pytest.raises(ModelRefused):
        model_files.statement(file)
    with pytest.raises(ModelRefused):
        model_files.trees(file, 100)
    with pytest.raises(Misconfigured):
        model_files.statement(tmp_path / "absent")


@pytest.mark.parametrize(
    "header",
    [
        records(("a", "float64", (2**63, 0))),
        records(("a", "float64", (1,) * 9)),
        records(*((f"a{number}", "float64", (0,)) for number in range(MAXIMUM_ARRAYS + 1))),
    ],
)
def test_arrays_of_shapes_that_cannot_be_held_are_refused(header: bytes) -> None:
    with pytest.raises(Refused) as refused:
        header_of(header)
    assert refused.value.code == "model.bad_arrays"
    with pytest.raises(Refused):
        arrays_from(header, b"")
