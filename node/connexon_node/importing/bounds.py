"""What a foreign file may be at most, so that a small one cannot take the machine. Beyond it the file is refused."""

from __future__ import annotations

from connexon_node.importing.errors import FileRefused

MAXIMUM_COLUMNS = 20_000
MAXIMUM_HEADER = 16 << 20
"""Letters of the line that names the columns."""
_UNSUSPICIOUS = 64 << 20
"""Bytes, or rows, that nobody needs to doubt."""
_RATIO = 200
"""Tables of repetitive text shrink to a fiftieth; archives that are made to fill a machine, to less than a 500th."""


def require_columns(count: int, file: str) -> None:
    """Raise FileRefused where there are more columns than any table has."""
    if count > MAXIMUM_COLUMNS:
        raise FileRefused(
            f"{file} has {count:,} columns, and at most {MAXIMUM_COLUMNS:,} are read. A matrix of more samples is "
            "imported in parts, or as .h5ad.",
            code="import.too_large",
        )


def require_proportion(unpacked: int, packed: int, file: str, what: str = "bytes") -> None:
    """Raise FileRefused where a small file says that it unpacks into far more than such files do."""
    if unpacked > _UNSUSPICIOUS and unpacked > _RATIO * packed:
        raise FileRefused(
            f"{file} has {packed:,} bytes and would unpack into {unpacked:,} {what} or more, which no table does. If "
            "it is right, unpack it, and import that.",
            code="import.too_large",
        )
