"""The files of a saved model, judged by their sizes and shapes before anything reads them whole.

They come by mail or from a shared disk: whoever made them chose every byte. What a library would make room for is
bounded by what the statement beside them says, and the statement by its own bound.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from connexon.client.training.model_proof import MAXIMUM_STATEMENT, ModelRefused
from connexon.errors import Misconfigured
from connexon.v1 import task_pb2

_TYPES = {
    "F32": "float32",
    "F64": "float64",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
_LENGTH = 8
"""Bytes at the start of a safetensors file that say how long its header is, little-endian."""


def statement(path: Path) -> bytes:
    """The signed statement. Raises ModelRefused, and Misconfigured where there is no file."""
    try:
        return _bounded(path, MAXIMUM_STATEMENT)
    except OSError as error:
        raise Misconfigured(
            f"{path.parent} holds no model. Write one with:  connexon model export NAME/3 --out FOLDER",
            code="model.absent",
        ) from error


def trees(path: Path, size: int) -> bytes:
    """Trees of `size` bytes, as XGBoost wrote them. Raises ModelRefused."""
    try:
        return _bounded(path, size)
    except OSError as error:
        raise _not_whole(path) from error


def require_safetensors(path: Path, records_header: bytes, size: int) -> None:
    """Raise ModelRefused where a file is not, by its header, the arrays of `records_header`: `size` bytes in all."""
    from connexon.learning.plain_records import MAXIMUM_HEADER, header_of

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            there = path.stat().st_size
            if not 2 <= length <= MAXIMUM_HEADER or there != _LENGTH + length + size:
                raise ModelRefused(f"{path.name} has another size than its model.", code="model.bad_arrays")
            header = _header(path, file.read(length))
    except OSError as error:
        raise _not_whole(path) from error
    wanted = {one.name: one for one in header_of(records_header)}
    if header.keys() != wanted.keys() or not all(_is(header[name], one) for name, one in wanted.items()):
        raise ModelRefused(f"{path.name} has other arrays than its model.", code="model.bad_arrays")


def _bounded(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ModelRefused(f"{path.name} has more than {most:,} bytes, the most it can have.", code="model.bad_arrays")
    return data


def _header(path: Path, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path.name} cannot be read: its header is no JSON.", code="model.bad_arrays") from error
    if not isinstance(found, dict):
        raise ModelRefused(f"{path.name} cannot be read: its header has no arrays.", code="model.bad_arrays")
    found.pop("__metadata__", None)
    return found


def _is(found: Any, wanted: task_pb2.ArrayHeader) -> bool:
    """Whether a header's entry is this array, in as many bytes as it has."""
    if not isinstance(found, dict):
        return False
    offsets, shape, name = found.get("data_offsets"), found.get("shape"), found.get("dtype")
    if not isinstance(name, str) or _TYPES.get(name) != wanted.dtype or shape != list(wanted.shape):
        return False
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(one) is int for one in offsets):
        return False
    size = math.prod(wanted.shape) * int(name[1:]) // 8
    return bool(offsets[1] - offsets[0] == size)


def _not_whole(path: Path) -> ModelRefused:
    return ModelRefused(f"The model in {path.parent} is not whole.", code="model.bad_arrays")
