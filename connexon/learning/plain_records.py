"""A model's arrays between their bytes and NumPy, without Flower: see Records in task.proto."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon import strict
from connexon.errors import InvalidQuery, Refused
from connexon.v1 import task_pb2

DTYPES = frozenset({"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})


MAXIMUM_HEADER = 16 * 1024 * 1024
"""Bytes that say which arrays follow."""
MAXIMUM_ARRAYS = 10_000
MAXIMUM_DIMENSIONS = 8
MAXIMUM_LENGTH = 2**40
"""Of one dimension: with another of length 0 it costs no byte, and NumPy cannot hold any length."""


class ArraysRefused(Refused):
    """Bytes that are not the arrays of their header."""

    code = "model.bad_arrays"


def arrays_from(header: bytes, data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays by name; they share the memory of `data` and cannot be written to. Raises ArraysRefused."""
    arrays, at = {}, 0
    for one in header_of(header):
        dtype = _dtype(one)
        count = math.prod(one.shape)
        if at + count * dtype.itemsize > len(data):
            raise ArraysRefused("The model's numbers are cut off.")
        values = numpy.frombuffer(data, dtype=dtype, count=count, offset=at)
        arrays[one.name] = values.reshape(tuple(one.shape))
        at += count * dtype.itemsize
    if at != len(data):
        raise ArraysRefused("The model has more numbers than it says.")
    return arrays


def data_of(header: bytes, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes again, in the order of the header. Raises ArraysRefused where an array is not as it says."""
    pieces = []
    for one in header_of(header):
        array = arrays.get(one.name)
        if array is None or array.shape != tuple(one.shape) or array.dtype.name != one.dtype:
            raise ArraysRefused(f"The model's array {one.name[:40]} is not what its statement says.")
        pieces.append(numpy.ascontiguousarray(array, dtype=_dtype(one)).tobytes())
    return b"".join(pieces)


def header_of(header: bytes) -> list[task_pb2.ArrayHeader]:
    """What each array is, in the order of their bytes. Raises ArraysRefused."""
    if len(header) > MAXIMUM_HEADER:
        raise ArraysRefused("The model's arrays are more than can be read.")
    try:
        records = strict.parse(task_pb2.Records, header, what="records")
    except InvalidQuery as error:
        raise ArraysRefused("The model's arrays cannot be read.") from error
    headers = [one for named in records.arrays for one in named.arrays]
    if len(records.arrays) != 1 or len({one.name for one in headers}) != len(headers):
        raise ArraysRefused("The model does not have one set of arrays.")
    if len(headers) > MAXIMUM_ARRAYS or not all(_is_bounded(one) for one in headers):
        raise ArraysRefused("The model's arrays are more, or larger, than can be read.")
    return headers


def _is_bounded(one: task_pb2.ArrayHeader) -> bool:
    return len(one.shape) <= MAXIMUM_DIMENSIONS and all(length <= MAXIMUM_LENGTH for length in one.shape)


def _dtype(one: task_pb2.ArrayHeader) -> numpy.dtype[Any]:
    if one.dtype not in DTYPES:
        raise ArraysRefused(f"The model's array {one.name[:40]} is of a type that is not taken.")
    return numpy.dtype(one.dtype).newbyteorder("<")
