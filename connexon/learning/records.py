"""Flower's records as bytes and back: see Records in task.proto. Arrays stay on disk until they are used.

Only numbers pass: what comes from elsewhere is never unpickled, and every array says its size beforehand.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from connexon import strict
from connexon.errors import InvalidQuery, Refused
from connexon.link.parcel_files import ParcelFile
from connexon.v1 import task_pb2

DTYPES = frozenset({"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})
MAXIMUM_HEADER = 16 * 1024 * 1024
MAXIMUM_ARRAYS = 10_000
MAXIMUM_DIMENSIONS = 8
_LENGTH = struct.Struct(">I")


class RecordsRefused(Refused):
    """Records that do not hold."""

    code = "records.refused"


class FileArray(Array):
    """An array whose values lie in a file; `numpy()` reads them, and nothing is held before or after."""

    def __init__(self, path: Path, at: int, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape, self.stype = dtype, shape, "numpy.ndarray"
        self._path, self._at = path, at

    @property
    def data(self) -> bytes:  # type: ignore[override]  # Flower's is a field; this one is read when asked for
        """As Flower serialises it."""
        return Array(self.numpy()).data

    def numpy(self) -> NDArray[Any]:
        """The values, read from the file."""
        count = math.prod(self.shape)
        values = numpy.fromfile(self._path, dtype=_little(self.dtype), count=count, offset=self._at)
        return values.reshape(self.shape)


@dataclass(frozen=True)
class ArraySpec:
    """What an array must be like."""

    dtype: str
    shape: tuple[int, ...]


def to_pieces(records: RecordDict) -> Iterator[bytes | memoryview]:
    """The bytes of records, array by array. Raises RecordsRefused on what has no bytes here."""
    header = task_pb2.Records()
    arrays: list[Array] = []
    for name, record in records.items():
        match record:
            case ArrayRecord():
                named = header.arrays.add(name=name)
                for key, array in record.items():
                    if array.dtype not in DTYPES:
                        _refuse(f"array {key} is of type {array.dtype}")
                    named.arrays.add(name=key, dtype=array.dtype, shape=array.shape)
                    arrays.append(array)
            case MetricRecord():
                metrics = header.metrics.add(name=name)
                for key, value in record.items():
                    _put(metrics.metrics.add(name=key), value)
            case ConfigRecord():
                config = header.configs.add(name=name)
                for key, setting in record.items():
                    _put(config.settings.add(name=key), setting)
    data = header.SerializeToString(deterministic=True)
    yield _LENGTH.pack(len(data)) + data
    for array in arrays:
        values = numpy.ascontiguousarray(array.numpy(), dtype=_little(array.dtype))
        yield values.reshape(-1).view(numpy.uint8).data


def read(parcel: ParcelFile) -> RecordDict:
    """The records of a parcel; arrays are read when they are used. Raises RecordsRefused."""
    with parcel.path.open("rb") as file:
        file.seek(parcel.records_at)
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else MAXIMUM_HEADER + 1
        if length > min(MAXIMUM_HEADER, parcel.records_size):
            _refuse("they do not begin with their header")
        header = header_from(file.read(length))
    return from_header(header, parcel.path, parcel.records_at + _LENGTH.size + length, parcel.size)


def leave_on_disk(content: RecordDict, parcel: ParcelFile) -> None:
    """Put arrays that lie in a parcel's file in the place of the same arrays in memory, in the records given."""
    for name, arrays in read(parcel).array_records.items():
        for key, array in arrays.items():
            content.array_records[name][key] = array


def header_from(data: bytes) -> task_pb2.Records:
    """A header from its bytes. Raises RecordsRefused."""
    try:
        return strict.parse(task_pb2.Records, data, what="records")
    except InvalidQuery as error:
        raise RecordsRefused(error.public) from error


def from_header(header: task_pb2.Records, path: Path, at: int, end: int) -> RecordDict:
    """Records whose arrays lie in a file from `at` to `end`, without gaps. Raises RecordsRefused."""
    records = RecordDict()
    names = [one.name for group in (header.arrays, header.metrics, header.configs) for one in group]
    if len(set(names)) != len(names) or sum(len(one.arrays) for one in header.arrays) > MAXIMUM_ARRAYS:
        _refuse("a name comes twice, or there are too many arrays")
    for named in header.arrays:
        arrays = ArrayRecord()
        for one in named.arrays:
            shape = tuple(one.shape)
            if one.dtype not in DTYPES or len(shape) > MAXIMUM_DIMENSIONS or one.name in arrays:
                _refuse(f"array {one.name[:40]} is of a type or shape that is not taken")
            size = math.prod(shape) * numpy.dtype(one.dtype).itemsize
            if at + size > end:
                _refuse("an array is cut off")
            arrays[one.name] = FileArray(path, at, one.dtype, shape)
            at += size
        records[named.name] = arrays
    if at != end:
        _refuse("there is more than they say")
    for metrics in header.metrics:
        records[metrics.name] = MetricRecord({one.name: _number(one) for one in metrics.metrics})
    for config in header.configs:
        records[config.name] = ConfigRecord({one.name: _setting(one) for one in config.settings})
    return records


def specs(arrays: ArrayRecord) -> dict[str, ArraySpec]:
    """What each array is like."""
    return {name: ArraySpec(array.dtype, tuple(array.shape)) for name, array in arrays.items()}


def require_finite(records: RecordDict) -> None:
    """Raise RecordsRefused where a number, in an array or a metric, is not finite."""
    for arrays in records.array_records.values():
        for name, array in arrays.items():
            if array.dtype.startswith("float") and not bool(numpy.isfinite(array.numpy()).all()):
                _refuse(f"array {name[:40]} holds a number that is not finite")
    for metrics in records.metric_records.values():
        for name, value in metrics.items():
            if not all(math.isfinite(number) for number in (value if isinstance(value, list) else [value])):
                _refuse(f"{name[:40]} is not finite")


def _put(wire: Any, value: object) -> None:
    """Set the one of a Metric or Setting that fits a value of Flower's."""
    match value:
        case bool():
            wire.boolean = value
        case int():
            wire.integer = value
        case float():
            wire.number = value
        case str():
            wire.text = value
        case bytes():
            wire.data = value
        case list() if all(isinstance(one, int) and not isinstance(one, bool) for one in value):
            wire.integers.values.extend(value)
            wire.integers.SetInParent()
        case list() if all(isinstance(one, float) for one in value):
            wire.numbers.values.extend(value)
        case list() if all(isinstance(one, str) for one in value):
            wire.texts.values.extend(value)
        case _:
            _refuse(f"{wire.name[:40]} holds something that cannot be sent")


def _number(wire: task_pb2.Metric) -> int | float | list[int] | list[float]:
    match wire.WhichOneof("value"):
        case "integer":
            return wire.integer
        case "number":
            return wire.number
        case "integers":
            return list(wire.integers.values)
        case "numbers":
            return list(wire.numbers.values)
        case _:
            return _refuse(f"{wire.name[:40]} has no value")


def _setting(wire: task_pb2.Setting) -> Any:
    match wire.WhichOneof("value"):
        case "integers" | "numbers" | "texts" as kind:
            return list(getattr(wire, kind).values)
        case None:
            return _refuse(f"{wire.name[:40]} has no value")
        case kind:
            return getattr(wire, kind)


def _little(dtype: str) -> numpy.dtype[Any]:
    return numpy.dtype(dtype).newbyteorder("<")


def _refuse(what: str) -> NoReturn:
    raise RecordsRefused(f"The records cannot be read: {what}.")
