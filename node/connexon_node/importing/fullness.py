"""What is said where disk or memory is full; what was served goes on being served."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import duckdb

from connexon.errors import Unavailable

MEMORY = (
    "The import needs more memory than it may have; nothing was loaded and the data in force goes on being served. "
    "Import again when the machine is less busy."
)
_DISK = (
    "The disk of the node's folder is full; nothing was loaded and the data in force goes on being served. "
    "Make room and import again."
)
_FULL = ("no space left", "disk quota", "file too large", "could not write")


@contextlib.contextmanager
def said() -> Iterator[None]:
    """Raise Unavailable where the disk or the memory was full."""
    full = Unavailable(_DISK, code="import.disk_full")
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise full from error
        raise
    except duckdb.OutOfMemoryException as error:
        if "failed to offload" in str(error):  # there is no room on the disk for what does not fit into memory
            raise full from error
        raise Unavailable(MEMORY, code="import.memory") from error
    except duckdb.Error as error:
        # A write that fails surfaces as an error of IO, or of the transaction that was to be written.
        if any(sign in str(error).lower() for sign in _FULL):
            raise full from error
        raise
