"""The file to import: what it is, that it is readable text where it should be, and that it stays the same."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

import numpy

from connexon_node.importing import headers
from connexon_node.importing.bounds import require_proportion
from connexon_node.importing.errors import FileRefused

_CHUNK = 4 << 20
_GZIP = b"\x1f\x8b"
_MAGIC = {b"PK\x03\x04": "an Excel workbook or another zip archive", b"PAR1": "Parquet"}
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class FileFormat(Enum):
    """What can be imported; `value` is what --format takes."""

    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    JSON_LINES = "jsonl"
    EXCEL = "xlsx"
    VCF = "vcf"
    H5AD = "h5ad"
    PHENOPACKETS = "phenopackets"
    SDTM = "sdtm"
    MATRIX = "matrix"

    @property
    def is_text(self) -> bool:
        """Whether the file consists of lines that this package reads itself."""
        return self in (FileFormat.CSV, FileFormat.TSV, FileFormat.JSON_LINES, FileFormat.SDTM, FileFormat.MATRIX)

    @property
    def is_delimited(self) -> bool:
        """Whether each line is a record of columns, under a header."""
        return self.is_text and self is not FileFormat.JSON_LINES


_TEXTS = frozenset(kind for kind in FileFormat if kind.is_text or kind is FileFormat.PHENOPACKETS)
FORMATS = ", ".join(kind.value for kind in FileFormat)
_EXTENSIONS = {
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.TSV,
    ".tab": FileFormat.TSV,
    ".parquet": FileFormat.PARQUET,
    ".jsonl": FileFormat.JSON_LINES,
    ".ndjson": FileFormat.JSON_LINES,
    ".xlsx": FileFormat.EXCEL,
    ".xlsm": FileFormat.EXCEL,
    ".vcf": FileFormat.VCF,
    ".bcf": FileFormat.VCF,
    ".h5ad": FileFormat.H5AD,
    ".json": FileFormat.PHENOPACKETS,
}


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to read: where it lies, and its name as people know it."""

    path: Path
    name: str


@dataclass(frozen=True)
class Source:
    """A file that was looked through once. `lines` counts line ends, and a last line without one; 0 where not text.

    `encoding` is the one named for it; empty for UTF-8. `name` is what people call it: `path` may be another.
    """

    path: Path
    name: str
    file_format: FileFormat
    sha256: str
    lines: int
    mixed_line_ends: bool
    ends_whole: bool
    stamp: tuple[int, int, int]
    compressed: bool = False
    encoding: str = ""

    def require_unchanged(self) -> None:
        """Raise FileRefused where the file is no longer the one that was looked through."""
        if stamp_of(self.path) != self.stamp:
            raise FileRefused(
                f"{self.name} changed while it was read; nothing was imported. Import it again when it is complete.",
                code="import.changed",
            )


def format_of(path: Path, named: FileFormat | None) -> FileFormat:
    """The format by name or by extension. Raises FileRefused."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in (".gz", ".bgz") else "".join(suffixes[-1:])
    found = named or _EXTENSIONS.get(suffix)
    if found is None:
        raise FileRefused(
            f"{path.name}: the extension does not tell the format; add --format with one of {FORMATS}.",
            code="import.unknown_format",
        )
    return found


def inspect(path: Path, file_format: FileFormat, encoding: str = "", *, name: str = "") -> Source:
    """Read the file through once: digest, encoding, line ends. Raises FileRefused."""
    name = name or path.name
    try:
        stamp = stamp_of(path)
        with path.open("rb") as file:
            head = file.read(4)
            if stamp[0] == 0:
                raise FileRefused(f"{name} is empty.", code="import.empty")
            compressed = head.startswith(_GZIP) and file_format in _TEXTS
            _refuse_other_kinds(name, file_format, head, encoding)
            file.seek(0)
            look = _TextLook(name, encoding) if file_format.is_text else None
            digest = _digest(file, None if compressed else look)
        if compressed and look is not None:
            _look_inside(path, look, name)
        if look is not None:
            look.finish()
    except OSError as error:
        raise FileRefused(f"{name} cannot be read: {error.strerror or error}.") from error
    return Source(
        path=path,
        name=name,
        file_format=file_format,
        sha256=digest,
        lines=look.lines if look else 0,
        mixed_line_ends=look.mixed if look else False,
        ends_whole=look.ends_whole if look else True,
        stamp=stamp,
        compressed=compressed,
        encoding=encoding if file_format in _TEXTS else "",
    )


def header_of(path: Path, file_format: FileFormat, name: str, before: int = 0) -> tuple[list[str], str]:
    """The column names of a delimited file in plain text, and the character that separates them; see headers.read."""
    return headers.read(path, name, tabs=file_format is FileFormat.TSV, before=before)


def begun(plain: Path, source: Source, header_row: int, scratch: Path) -> tuple[Path, int]:
    """A plain text from its header on, and how many lines stood before that."""
    before = headers.lines_before(plain, header_row) if source.file_format.is_delimited else 0
    if not before:
        return plain, 0
    return headers.without_first(plain, before, scratch / f"begun-{source.sha256[:16]}.txt"), before


def plain_text(source: Source, scratch: Path) -> Path:
    """The file itself, or a copy in UTF-8, not compressed, whose lines all end in the same way."""
    if not (source.mixed_line_ends or source.compressed or source.encoding):
        return source.path
    copy = scratch / f"plain-{source.sha256[:16]}.txt"
    decoder, begun = _decoder(source.encoding), False
    with source.path.open("rb") as raw, copy.open("wb") as write:
        read = gzip.GzipFile(fileobj=raw) if source.compressed else raw
        held = b""
        while chunk := read.read(_CHUNK):
            if source.encoding:
                chunk = _as_utf8(decoder, chunk, source.name, source.encoding)
                chunk, begun = chunk if begun else chunk.removeprefix(codecs.BOM_UTF8), True
            chunk = held + chunk
            held = b"\r" if chunk.endswith(b"\r") else b""
            write.write(_one_line_end(chunk[:-1] if held else chunk))
        write.write(_one_line_end(held))
    return copy


def start_lines(path: Path, delimiter: str) -> list[int]:
    """The line at which each record of a CSV file begins, blank lines left out; for files where they differ."""
    lines, begins = [], 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        for record in reader:
            if record:
                lines.append(begins)
            begins = reader.line_num + 1
    return lines


def _digest(file: BinaryIO, look: _TextLook | None) -> str:
    digest = hashlib.sha256()
    # The digest takes as long as the look, and both let go of Python's lock.
    with ThreadPoolExecutor(1) as beside:
        while chunk := file.read(_CHUNK):
            digested = beside.submit(digest.update, chunk)
            if look is not None:
                look.feed(chunk)
            digested.result()
    return digest.hexdigest()


def _look_inside(path: Path, look: _TextLook, name: str) -> None:
    packed, unpacked = path.stat().st_size, 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                unpacked += len(chunk)
                require_proportion(unpacked, packed, name)
                look.feed(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileRefused(f"{name} is cut off or damaged: its gzip archive does not end whole.") from error


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        return codecs.getincrementaldecoder(encoding or "utf-8")()
    except LookupError as error:
        raise FileRefused(f"There is no encoding {encoding!r}; name one such as latin-1 or cp1252.") from error


def _as_utf8(decoder: codecs.IncrementalDecoder, chunk: bytes, name: str, encoding: str) -> bytes:
    try:
        return decoder.decode(chunk).encode()
    except UnicodeError as error:
        told = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise FileRefused(
            f"{name} is not {encoding} text: {told}. Save it as UTF-8, or name the encoding that it has, for example "
            "--encoding cp1252 or utf-16-le.",
            code="import.encoding",
        ) from error


class _TextLook:
    """Sees that text is UTF-8, or of the encoding that was named, and how its lines end, chunk by chunk."""

    def __init__(self, name: str, encoding: str) -> None:
        self._name = name
        self._decoder = _decoder(encoding)
        self._encoding = encoding
        self._crlf = self._lf = self._cr = 0
        self._last = b""

    def feed(self, chunk: bytes) -> None:
        if self._encoding:
            chunk = _as_utf8(self._decoder, chunk, self._name, self._encoding)
        elif not chunk.isascii() or self._decoder.getstate()[0]:
            # ASCII is UTF-8, unless it comes in the middle of a character.
            self._require_utf8(chunk)
        if b"\0" in chunk:
            raise FileRefused(
                f"{self._name} is not {self._encoding or 'UTF-8'} text: it holds NUL bytes (UTF-16?). Save it as UTF-8 "
                "or name its encoding, for example --encoding utf-16, or utf-16-le without a byte order mark.",
                code="import.encoding",
            )
        if not chunk:
            return
        split = self._last == b"\r" and chunk.startswith(b"\n")
        returns = _count(chunk, b"\r")
        crlf = chunk.count(b"\r\n") if returns else 0
        self._crlf += crlf + split
        self._lf += _count(chunk, b"\n") - crlf - split
        self._cr += returns - crlf - split
        self._last = chunk[-1:]

    def finish(self) -> None:
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise FileRefused(f"{self._name} ends in the middle of a character: it is cut off.") from error

    @property
    def lines(self) -> int:
        return self._crlf + self._lf + self._cr + (not self.ends_whole)

    @property
    def mixed(self) -> bool:
        return sum(1 for count in (self._crlf, self._lf, self._cr) if count) > 1 or self._cr > 0

    @property
    def ends_whole(self) -> bool:
        return self._last in (b"\n", b"\r")

    def _require_utf8(self, chunk: bytes) -> None:
        try:
            self._decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise self._not_utf8(error) from error

    def _not_utf8(self, error: UnicodeDecodeError) -> FileRefused:
        read = bytes(error.object)
        line = self._crlf + self._lf + self._cr + read.count(b"\n", 0, error.start) + 1
        utf16 = b"\0" in read
        return FileRefused(
            f"{self._name} is not UTF-8 text (line {line}): it looks like "
            f"{'UTF-16' if utf16 else 'Latin-1 or Windows-1252'}. Save it as UTF-8, or name its encoding, for example "
            f"--encoding {'utf-16, or utf-16-le without a byte order mark' if utf16 else 'latin-1'}.",
            code="import.encoding",
        )


def _count(chunk: bytes, letter: bytes) -> int:
    # Several times as quick as bytes.count for letters as frequent as line ends.
    return int(numpy.count_nonzero(numpy.frombuffer(chunk, numpy.uint8) == ord(letter)))


def _refuse_other_kinds(name: str, file_format: FileFormat, head: bytes, encoding: str) -> None:
    looks = next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None)
    if file_format in _TEXTS and looks is not None and not head.startswith(_GZIP):
        raise FileRefused(
            f"{name} looks like {looks}, not {file_format.value}; save it as UTF-8 text, or name the --format.",
            code="import.encoding",
        )
    if file_format in _TEXTS and not encoding and head.startswith(_UTF16_MARKS):
        raise FileRefused(f"{name} is UTF-16 text; save it as UTF-8, or add --encoding utf-16.", code="import.encoding")
    if file_format is FileFormat.PARQUET and head and not head.startswith(b"PAR1"):
        raise FileRefused(f"{name} is not a Parquet file, or is damaged.")
    if file_format is FileFormat.EXCEL and not head.startswith(b"PK"):
        raise FileRefused(f"{name} is not an .xlsx workbook; save it as one.")
    if file_format is FileFormat.H5AD and not head.startswith(b"\x89HDF"):
        raise FileRefused(f"{name} is not an AnnData file (HDF5), or is damaged.")


def _one_line_end(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Size, time of change and inode of a file; the same for as long as it is not written to."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
