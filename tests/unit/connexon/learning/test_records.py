"""Flower's records on their way: the same when they arrive, and refused where they are not what they say."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from connexon.learning import records
from connexon.learning.records import RecordsRefused
from connexon.link import parcel_files
from connexon.v1 import task_pb2


def sample() -> RecordDict:
    """One of everything."""
    arrays = {
        "weights": Array(numpy.arange(6.0).reshape(2, 3)),
        "one": Array(numpy.array(3, dtype=numpy.int32)),
        "none": Array(numpy.zeros((0, 4), dtype=numpy.float32)),
        "big-endian": Array(numpy.array([1.5, 2.5], dtype=">f8").astype("f8")),
    }
    return RecordDict(
        {
            "arrays": ArrayRecord(arrays),
            "metrics": MetricRecord({"n": 3, "loss": 2.5, "each": [1.0, 2.0]}),
            "config": ConfigRecord({"on": True, "text": "x", "texts": ["a"], "data": b"\0", "empty": []}),
        }
    )


def parcel_of(content: RecordDict, path: Path) -> parcel_files.ParcelFile:
    """Records in a parcel on disk."""
    parcel_files.write(path, b"head", records.to_pieces(content))
    return parcel_files.read(path)


def test_records_come_back_as_they_went(tmp_path: Path) -> None:
    sent = sample()
    got = records.read(parcel_of(sent, tmp_path / "parcel"))
    assert got["metrics"] == sent["metrics"]
    assert got["config"] == sent["config"]
    for name, array in sent.array_records["arrays"].items():
        back = got.array_records["arrays"][name]
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.numpy().tobytes() == array.numpy().tobytes()
        # As Flower itself would send it on.
        assert Array(back.numpy()).data == array.data == back.data


def test_the_same_records_have_the_same_bytes() -> None:
    assert b"".join(records.to_pieces(sample())) == b"".join(records.to_pieces(sample()))


def test_arrays_are_read_when_they_are_used(tmp_path: Path) -> None:
    parcel = parcel_of(sample(), tmp_path / "parcel")
    array = records.read(parcel).array_records["arrays"]["weights"]
    assert not any(isinstance(value, numpy.ndarray | bytes) for value in vars(array).values())


@pytest.mark.parametrize("dtype", ["O", "U4", "complex128", "float16"])
def test_what_is_no_plain_number_does_not_travel(dtype: str) -> None:
    values = numpy.zeros(2, dtype="f8").astype(dtype) if dtype != "O" else None
    array = Array("object", (2,), "numpy.ndarray", pickle.dumps([1, 2])) if values is None else Array(values)
    with pytest.raises(RecordsRefused):
        list(records.to_pieces(RecordDict({"arrays": ArrayRecord({"x": array})})))


def header(**array: Any) -> bytes:
    """The bytes of records with one array, whose header says what is given and whose values are 16 bytes."""
    wire = task_pb2.Records()
    wire.arrays.add(name="arrays").arrays.add(**{"name": "x", "dtype": "float64", "shape": [2], **array})
    data = wire.SerializeToString()
    return len(data).to_bytes(4, "big") + data + bytes(16)


@pytest.mark.parametrize(
    "body",
    [
        header(shape=[3]),
        header(shape=[1]),
        header(shape=[2**62, 4]),
        header(dtype="object"),
        header(dtype="O"),
        header(shape=[2] * 9),
        header()[:-1],
        header() + b"!",
        b"\xff\xff\xff\xff",
        b"",
    ],
)
def test_records_that_are_not_what_they_say_are_refused(tmp_path: Path, body: bytes) -> None:
    parcel_files.write(tmp_path / "parcel", b"", [body])
    with pytest.raises(RecordsRefused):
        records.read(parcel_files.read(tmp_path / "parcel"))


@given(st.data())
def test_mutated_records_crash_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated"
    body = bytearray(b"".join(records.to_pieces(sample())))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    parcel_files.write(path, b"", [bytes(body)])
    with contextlib.suppress(RecordsRefused):
        got = records.read(parcel_files.read(path))
        for arrays in got.array_records.values():
            for array in arrays.values():
                array.numpy()


@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf])
def test_what_is_not_finite_is_found(bad: float) -> None:
    records.require_finite(sample())
    spoilt = RecordDict({"arrays": ArrayRecord({"x": Array(numpy.array([1.0, bad]))})})
    with pytest.raises(RecordsRefused, match="x holds"):
        records.require_finite(spoilt)
    with pytest.raises(RecordsRefused, match="loss is"):
        records.require_finite(RecordDict({"metrics": MetricRecord({"loss": bad})}))
