"""HDF5 files that hold all that they show: no links to other files, no data elsewhere, nothing larger than it is.

HDF5 lets a file name other files in four ways, which a reader follows without a word: external links, external storage
of a dataset, virtual datasets, and links of kinds that plugins bring. All of them are refused, and soft links too,
which AnnData never writes. Sizes are looked at before anything is read: an array may claim any, at no cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py

from connexon_node.importing.errors import FileRefused

MAXIMUM_OBJECTS = 100_000
MAXIMUM_ROWS = 20_000_000
"""Observations, or genes: a larger table is not read whole."""
MAXIMUM_CHUNK = 256 << 20
"""Bytes of a chunk, which is unpacked whole."""
_UNSUSPICIOUS = 64 << 20
_RATIO = 1_100
"""DEFLATE packs at most 1,032 to one; what claims more was never written."""
_FILTERS = frozenset({"1", "2", "3", "4", "5", "6", "32000", "gzip", "shuffle", "fletcher32", "szip", "lzf"})
"""Those that the library and h5py bring themselves, by number or name: others would be loaded as plugins."""


def require_self_contained(book: Any, file: str) -> None:
    """Walk through all objects. Raises FileRefused that names the one that reaches elsewhere, or claims too much."""
    for count, (name, found) in enumerate(_objects(book, file)):
        if count >= MAXIMUM_OBJECTS:
            raise FileRefused(
                f"{file} holds more than {MAXIMUM_OBJECTS:,} objects; no AnnData file does.", code="import.too_large"
            )
        if isinstance(found, h5py.Dataset):
            _require_own(name, found, file)


def require_rows(dataset: Any, file: str) -> None:
    """Raise FileRefused where a column claims more rows than are read."""
    if dataset.size is not None and dataset.size > MAXIMUM_ROWS:
        raise FileRefused(
            f"{file}: {dataset.name} claims {dataset.size:,} values, and at most {MAXIMUM_ROWS:,} are read.",
            code="import.too_large",
        )


def _objects(book: Any, file: str) -> Iterator[tuple[str, Any]]:
    seen, waiting = set[int](), [("/", book["/"])]
    while waiting:
        name, group = waiting.pop()
        for own in group:
            whole = f"{name.rstrip('/')}/{own}"
            _require_hard(group, own, whole, file)
            found = group[own]
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                continue
            seen.add(address)
            yield whole, found
            if isinstance(found, h5py.Group):
                waiting.append((whole, found))


def _require_hard(group: Any, own: str, whole: str, file: str) -> None:
    kind = group.id.links.get_info(own.encode()).type
    if kind != h5py.h5l.TYPE_HARD:
        what = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "a link to another file"}
        raise _reaching(file, whole, f"is {what.get(kind, 'a link of an unknown kind')}")


def _require_own(name: str, dataset: Any, file: str) -> None:
    plan = dataset.id.get_create_plist()
    layout = plan.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise _reaching(file, name, "is a virtual dataset, made of other ones")
    if plan.get_external_count():
        raise _reaching(file, name, "has its values in another file")
    for place in range(plan.get_nfilters()):
        number = str(plan.get_filter(place)[0])
        if number not in _FILTERS:
            raise FileRefused(
                f"{file}: {name} is packed by filter {number}, which would have to be loaded from elsewhere. Write the "
                "file again with gzip.",
                code="import.reaches_elsewhere",
            )
    claimed, kept = dataset.size or 0, dataset.id.get_storage_size()
    size = claimed * dataset.dtype.itemsize
    if layout == h5py.h5d.CHUNKED:
        chunk = dataset.dtype.itemsize
        for side in plan.get_chunk():
            chunk *= side
        if chunk > MAXIMUM_CHUNK:
            raise _too_large(file, name, chunk, "in one chunk")
    if size > _UNSUSPICIOUS and size > _RATIO * kept:
        raise _too_large(file, name, size, f"and has {kept:,}")


def _reaching(file: str, name: str, what: str) -> FileRefused:
    return FileRefused(
        f"{file}: {name} {what}. A file is imported only where it holds all that it shows; write it again as one file.",
        code="import.reaches_elsewhere",
    )


def _too_large(file: str, name: str, size: int, why: str) -> FileRefused:
    return FileRefused(f"{file}: {name} claims {size:,} bytes {why}.", code="import.too_large")
