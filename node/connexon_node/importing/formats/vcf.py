"""VCF and BCF: htslib reads and checks the records (cyvcf2), the scratch database takes them apart.

Each sample that carries an allele gives one row per allele; sites with several alleles are split. Records without
genotypes are left out, and calls that failed a filter, unless the mapping keeps these.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cyvcf2
import pyarrow
import pyarrow.compute

from connexon_node.importing.bounds import require_proportion
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats import batches, vcf_annotations, vcf_shares
from connexon_node.importing.formats.vcf_annotations import Annotation
from connexon_node.importing.formats.vcf_shares import part
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sql import text

ASSEMBLIES = {
    "GRCh37": r"grch37(\.p\d+)?|hg19|b37|hs37d5|human_g1k_v37|ncbi37|build37",
    "GRCh38": r"grch38(\.p\d+)?|hg38|b38|grch38_no_alt.*|hs38(dh|d1)?|ncbi38|build38",
    "T2T-CHM13": r"(t2t-?)?chm13(v\d(\.\d)?)?|hs1|t2t-chm13.*",
}
"""Names under which an assembly is found in headers."""
_CHROMOSOME_1 = {249_250_621: "GRCh37", 248_956_422: "GRCh38", 248_387_328: "T2T-CHM13"}
"""Length of chromosome 1, which tells assemblies apart (Genome Reference Consortium; Nurk 2022)."""
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block at the end of a whole BGZF file (SAM specification, 4.1.2)."""
_NAMES = (
    *("sample_id", "assembly", "chrom", "pos", "ref", "alt", "gene", "hgvs_c", "hgvs_p", "zygosity", "vaf", "depth"),
    *("variant_id", "filter"),
)
_FIELDS = {"chrom": 0, "pos": 1, "name": 2, "ref": 3, "alts": 4, "filter": 6, "info": 7, "format": 8, "calls": 9}
"""The fields of a record (VCF 4.2, 1.4) that rows are made of; the calls of all samples are one."""
_SCHEMA = pyarrow.schema([*((name, pyarrow.string()) for name in _FIELDS), ("number", pyarrow.int64())])
_PASSED = pyarrow.array(["PASS", "."])
"""What FILTER says of calls that did not fail; a dot where no filter was applied (VCF 4.2, 1.4.1)."""
_FAILED_BY_ITSELF = (
    "own_filter IS NOT NULL AND own_filter <> 'PASS'",
    "alleles of failed calls were left out: the filter of their own sample (FT) is neither PASS nor a dot",
)
_BREAKEND = ("contains(alt, '[') OR contains(alt, ']')", "alleles were left out: they are breakends (BND)")
_TOO_LONG = (
    "greatest(strlen(ref), CASE WHEN starts_with(alt, '<') THEN 0 ELSE strlen(alt) END) > 200",
    "alleles were left out: they are longer than 200 bases",
)
_COUNTED = (
    (
        "starts_with(alt, '<')",
        "structural variants were loaded with their kind and start; their ends and lengths were left out",
    ),
    ("said_c IS NOT NULL AND hgvs_c IS NULL", vcf_annotations.NO_CODING),
    ("said_p IS NOT NULL AND hgvs_p IS NULL", vcf_annotations.NO_PROTEIN),
    ("vaf IS NULL AND NOT starts_with(alt, '<')", vcf_shares.UNTOLD),
    ("unmarked", vcf_annotations.UNMARKED),
)
_NO_ALLELES = ("*", ".", "<NON_REF>", "<*>")
_LEAST_TABS = 9
"""Between the fields of a record that has a call."""
_BATCH = 32 << 20
"""Letters of one batch: records of thousands of samples are so long that fewer than batches.ROWS fill the memory."""


@dataclass
class _Tally:
    """The records of a file: all of them, those whose calls failed, and those left out for each of two reasons."""

    keeps_failed: bool
    read: int = 0
    failed: int = 0
    silent: int = 0

    @property
    def left_out(self) -> int:
        return self.silent + (0 if self.keeps_failed else self.failed)

    @property
    def notes(self) -> list[tuple[str, int]]:
        became = "loaded like those that passed, as the mapping says" if self.keeps_failed else "left out"
        notes = [
            (f"records of failed calls were {became}: their FILTER is neither PASS nor a dot", self.failed),
            ("records were left out, since they hold no genotypes (GT)", self.silent),
        ]
        return [note for note in notes if note[1]]


def relation(reading: Reading) -> Relation:
    """The variants of the mapped samples.

    Raises FileRefused where the assembly is another, the file cut off, or no record has a genotype that counts.
    """
    file, path = reading.source.name, reading.source.path
    _require_whole(path, file)
    reader = _opened(path, file)
    samples = _samples(reading, reader)
    header, keeps = str(reader.raw_header), reading.mapping.vcf.keep_failed
    assembly = _assembly(reading, header)
    tally, notes = _Tally(keeps), list[tuple[str, int]]()

    def read() -> Iterator[Any]:
        yield from _records(reader, file, tally)
        if tally.read == tally.left_out > 0:
            raise _nothing_left(tally, file)
        notes.extend(tally.notes)

    table = batches.offer(reading, "records", _SCHEMA, read)
    own_filters = "##FORMAT=<ID=FT," in header
    return Relation(
        _NAMES,
        _taken_apart(table, samples, assembly, header, vcf_annotations.found(header), own_filters=own_filters),
        line="_line",
        ready=True,
        notes=notes,
        left_out=(_BREAKEND, _TOO_LONG, *(() if keeps or not own_filters else (_FAILED_BY_ITSELF,))),
        counted=_COUNTED,
        apart="extent",
        records=lambda: tally.read,
    )


def _nothing_left(tally: _Tally, file: str) -> FileRefused:
    failed = f"{tally.failed:,} are of failed calls (FILTER is neither PASS nor a dot), "
    keep = ", or keep failed calls: write keep_failed = true under [vcf] in a mapping file"
    return FileRefused(
        f"None of the {tally.read:,} records of {file} can be loaded: {'' if tally.keeps_failed else failed}"
        f"{tally.silent:,} hold no genotypes (GT). Export it again, with the genotypes of calls that passed"
        f"{'' if tally.keeps_failed else keep}.",
        code="import.no_genotypes",
    )


def _opened(path: Path, file: str) -> Any:
    try:
        return cyvcf2.VCF(str(path))
    except Exception as error:  # cyvcf2 raises no other for a header that htslib does not read
        raise FileRefused(
            f"{file} is no VCF or BCF file whose header can be read{_in_header(path)}.", code="import.unreadable"
        ) from error


def _in_header(path: Path) -> str:
    """What is wrong with a header, where its text tells."""
    with path.open("rb") as opened:
        packed = opened.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as opened:
            lines = opened.read(1 << 20).decode("utf-8", "replace").splitlines()
    except (EOFError, OSError, zlib.error):
        return ""
    names = next((line for line in lines if line.startswith("#CHROM")), None)
    if names is None:
        return ": it has no line #CHROM that names the columns"
    if "\t" not in names:
        return ": its line #CHROM is parted by spaces, where tabs must be"
    samples = names.split("\t")[9:]
    twice = next((one for one in samples if samples.count(one) > 1), None)
    return f": it has the sample {twice!r} twice" if twice else ": see its lines that begin with ##"


def _records(reader: Any, file: str, tally: _Tally) -> Iterator[Any]:
    """Records that count as text lines: htslib's own, so that BCF and VCF, old and new, look the same."""
    number, held, letters = 0, [], 0
    while True:
        try:
            record = next(reader)
        except StopIteration:
            break
        except Exception as error:  # cyvcf2 raises no other for what htslib refuses
            raise FileRefused(f"{file} cannot be read after record {number}: {error}") from error
        held.append(str(record))
        number += 1
        if held[-1].count("\t") < _LEAST_TABS:
            raise FileRefused(
                f"{file}: record {number} has no call for its samples: its line is empty or cut short.",
                code="import.unreadable",
            )
        letters += len(held[-1])
        if len(held) == batches.ROWS or letters >= _BATCH:
            yield _batch(held, number, tally)
            held, letters = [], 0
    if held:
        yield _batch(held, number, tally)


def _batch(held: list[str], number: int, tally: _Tally) -> Any:
    numbers = pyarrow.array(range(number - len(held) + 1, number + 1), pyarrow.int64())
    fields = pyarrow.compute.split_pattern(pyarrow.array(held, pyarrow.string()), "\t", max_splits=9)
    columns = {name: pyarrow.compute.list_element(fields, place) for name, place in _FIELDS.items()}
    passed = pyarrow.compute.is_in(columns["filter"], _PASSED)
    genotyped = pyarrow.compute.starts_with(columns["format"], "GT")
    whole = pyarrow.compute.and_(passed, genotyped)
    wanted = genotyped if tally.keeps_failed else whole
    tally.read += len(held)
    if tally.keeps_failed:
        tally.failed += genotyped.true_count - whole.true_count
        tally.silent += len(held) - genotyped.true_count
    else:
        tally.failed += len(held) - passed.true_count
        tally.silent += passed.true_count - whole.true_count
    batch = pyarrow.record_batch([*columns.values(), numbers], schema=_SCHEMA)
    return batch if wanted.true_count == len(held) else batch.filter(wanted)


def _taken_apart(
    table: str, samples: dict[int, str], assembly: str, header: str, annotations: list[Annotation], *, own_filters: bool
) -> str:
    """SQL of the rows. Each step keeps only what the next needs: copying whole records would cost most of the time."""
    each = [f"calls[{index + 1}]" for index in samples]
    ids = ", ".join(text(sample) for sample in samples.values())
    info = "".join(f", {_info(one.key)} AS {one.key}" for one in annotations)
    extent = f"CASE WHEN contains(alts, '<') THEN {_info('END')} || ',' || {_info('SVLEN')} END AS extent"
    sites = (
        f"SELECT * EXCLUDE (info, calls), [{', '.join(each)}] AS calls, {extent}{info} "
        f"FROM (SELECT * REPLACE (string_split(rtrim(calls, chr(10)), chr(9)) AS calls) FROM {table})"
    )
    called = f"SELECT * EXCLUDE (calls), unnest(calls) AS call, unnest([{ids}]) AS sample_id FROM ({sites})"
    # The genotype stands first (VCF 4.2, 1.6.2). A sample without any allele but the reference needs no more work.
    typed = (
        "SELECT *, string_split(replace(split_part(call, ':', 1), '|', '/'), '/') AS genotype "
        f"FROM ({called}) WHERE split_part(call, ':', 1) NOT IN ('0/0', '0|0', './.', '.|.', '0', '.')"
    )
    alleles = (
        "SELECT *, unnest(string_split(alts, ',')) AS alt, generate_subscripts(string_split(alts, ','), 1) AS allele "
        f"FROM ({typed})"
    )
    entries = "".join(f", {vcf_annotations.entry(one)} AS {one.key}_entry" for one in annotations)
    carried = (
        f"SELECT *, {part('FT') if own_filters else 'NULL'} AS own_filter, {part('DP')} AS depth{entries} "
        f"FROM ({alleles}) "
        f"WHERE list_contains(genotype, allele::VARCHAR) AND alt NOT IN ({', '.join(map(text, _NO_ALLELES))})"
    )
    told = zip(*(vcf_annotations.told(one) for one in annotations), (("NULL::VARCHAR",) * 3), strict=True)
    gene, said_c, said_p = (f"coalesce({', '.join(column)})" for column in told)
    unmarked = " OR ".join(f"contains({one.key}, ',')" for one in annotations if one.key == "CSQ" and not one.marks)
    rows = (
        f"SELECT sample_id, {text(assembly)} AS assembly, {_CHROM} AS chrom, "
        "pos, upper(ref) AS ref, upper(alt) AS alt, "
        f"{gene} AS gene, {said_c} AS said_c, {said_p} AS said_p, "
        "CASE WHEN len(genotype) = 1 THEN 'hemizygous' WHEN genotype[1] = genotype[2] AND len(genotype) = 2 "
        "THEN 'homozygous' WHEN list_contains(genotype, '.') THEN 'unknown' "
        "WHEN len(list_distinct(genotype)) = 1 THEN 'homozygous' ELSE 'heterozygous' END AS zygosity, "
        f"{vcf_shares.share(header)} AS vaf, depth, nullif(name, '.') AS variant_id, filter, own_filter, extent, "
        f"{unmarked or 'false'} AS unmarked, number AS _line FROM ({carried})"
    )
    return (
        f"(SELECT *, {vcf_annotations.coding('said_c')} AS hgvs_c, {vcf_annotations.protein('said_p')} AS hgvs_p "
        f"FROM ({rows}))"
    )


_CHROM = (
    "CASE WHEN chrom IN ('chrM', 'M', 'MT', 'chrMT') THEN 'MT' "
    "WHEN starts_with(lower(chrom), 'chr') THEN substr(chrom, 4) ELSE chrom END"
)


def _info(key: str) -> str:
    return f"split_part(split_part(';' || info, ';{key}=', 2), ';', 1)"


def _samples(reading: Reading, reader: Any) -> dict[int, str]:
    """Position of each wanted sample column, and the sample at the center."""
    file, there, named = reading.source.name, list(reader.samples), reading.mapping.vcf.samples
    if not there:
        raise FileRefused(
            f"{file} holds sites without samples, so nobody's consent can be asked.", code="import.samples"
        )
    lacking = [name for name in named if name not in there]
    if lacking:
        raise FileRefused(f"{file} has no sample {lacking[0]!r}; it has {', '.join(there[:8])}.", code="import.samples")
    return {index: named.get(name, name) for index, name in enumerate(there) if not named or name in named}


def _assembly(reading: Reading, header: str) -> str:
    """The assembly, which header and declaration must agree on."""
    file, declared = reading.source.name, reading.mapping.vcf.assembly
    if declared and named(declared) is None:
        raise FileRefused(
            f"There is no assembly {declared!r}; known are {', '.join(ASSEMBLIES)}.", code="import.assembly"
        )
    wanted, found = named(declared), header_assemblies(header)
    if len(found) > 1:
        raise FileRefused(f"{file} names several assemblies: {', '.join(sorted(found))}.", code="import.assembly")
    said = next(iter(found), None)
    if wanted and said and wanted != said:
        raise FileRefused(
            f"{file} is of assembly {said}, not of {wanted} as was declared; nothing was imported.",
            code="import.assembly",
        )
    if not (wanted or said):
        raise FileRefused(
            f"{file} does not tell its assembly; declare it with --assembly {' or '.join(ASSEMBLIES)}.",
            code="import.assembly",
        )
    return str(wanted or said)


def header_assemblies(header: str) -> set[str]:
    """Every assembly that a header tells of: by ##reference, ##assembly, its contigs, and their lengths."""
    told = re.findall(r"^##(?:reference|assembly)=(.*)$", header, flags=re.MULTILINE)
    told += re.findall(r"^##contig=<[^\n]*assembly=\"?([^,>\"]+)", header, flags=re.MULTILINE)
    found = {assembly for written in told if (assembly := named(written)) is not None}
    for contig in re.findall(r"^##contig=<ID=(?:chr)?1,([^\n]*)>", header, flags=re.MULTILINE):
        length = re.search(r"length=(\d+)", contig)
        if length and int(length[1]) in _CHROMOSOME_1:
            found.add(_CHROMOSOME_1[int(length[1])])
    return found


def named(written: str) -> str | None:
    """The assembly that a name, or the path of a reference, tells of."""
    words = re.split(r"[/\\:]", written.strip().lower())
    stem = re.sub(r"(\.(fa|fasta|fna|gz|2bit|bgz))+$", "", words[-1])
    whole = next((one for one, pattern in ASSEMBLIES.items() if re.fullmatch(pattern, stem)), None)
    return whole or next(
        (one for one, pattern in ASSEMBLIES.items() if re.search(rf"(?<![a-z0-9])({pattern})(?![a-z0-9])", stem)), None
    )


def _require_whole(path: Path, file: str) -> None:
    """Raise FileRefused if the file is truncated."""
    with path.open("rb") as opened:
        head = opened.read(18)
        opened.seek(0, 2)
        size = opened.tell()
        opened.seek(max(0, size - len(_BGZF_END)))
        tail = opened.read()
    if head[:2] != b"\x1f\x8b":
        whole = not head.startswith(b"##fileformat=VCF") or tail.endswith(b"\n")
    elif head[3:4] == b"\x04" and head[12:14] == b"BC":
        whole = tail == _BGZF_END
    else:
        whole = _whole_gzip(path, size, file)
    if not whole:
        raise FileRefused(f"{file} is cut off: its end is not that of a whole file.")


def _whole_gzip(path: Path, size: int, file: str) -> bool:
    unpacked = 0
    try:
        with gzip.open(path, "rb") as opened:
            while piece := opened.read(1 << 22):
                unpacked += len(piece)
                require_proportion(unpacked, size, file)
    except (EOFError, OSError, zlib.error):
        return False
    return True


def sample_names(path: Path, file: str) -> Sequence[str]:
    """The sample columns of a file. Raises FileRefused."""
    return list(_opened(path, file).samples)


def header(path: Path, file: str) -> str:
    """The header of a file. Raises FileRefused."""
    return str(_opened(path, file).raw_header)
