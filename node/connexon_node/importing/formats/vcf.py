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
from connexon_node.importing.formats import batches
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
_NO_ALLELES = ("*", ".", "<NON_REF>", "<*>")
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
    assembly = _assembly(reading, reader.raw_header)
    tally, notes = _Tally(reading.mapping.vcf.keep_failed), list[tuple[str, int]]()

    def read() -> Iterator[Any]:
        yield from _records(reader, file, tally)
        if tally.read == tally.left_out > 0:
            raise _nothing_left(tally, file)
        notes.extend(tally.notes)

    table = batches.offer(reading, "records", _SCHEMA, read)
    own_filters = "##FORMAT=<ID=FT," in reader.raw_header
    return Relation(
        _NAMES,
        _taken_apart(table, samples, assembly, _annotations(reader.raw_header), own_filters=own_filters),
        line="_line",
        ready=True,
        notes=notes,
        left_out=None if reading.mapping.vcf.keep_failed or not own_filters else _FAILED_BY_ITSELF,
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
    except (OSError, ValueError) as error:
        raise FileRefused(f"{file} is no VCF or BCF file, or its header is damaged.") from error


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
    table: str, samples: dict[int, str], assembly: str, annotations: list[tuple[str, ...]], *, own_filters: bool
) -> str:
    """SQL of the rows. Each step keeps only what the next needs: copying whole records would cost most of the time."""
    each = [f"calls[{index + 1}]" for index in samples]
    ids = ", ".join(text(sample) for sample in samples.values())
    info = ", ".join(f"{_info(one[0])} AS {one[0]}" for one in annotations)
    sites = (
        f"SELECT * EXCLUDE (info, calls), [{', '.join(each)}] AS calls{', ' if info else ''}{info} "
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
    entries = "".join(f", {_entry(one)} AS {one[0]}_entry" for one in annotations)
    carried = (
        f"SELECT *, CASE WHEN NOT contains({_part('AD')}, '.') THEN CAST(string_split({_part('AD')}, ',') AS DOUBLE[]) "
        f"END AS depths, {_part('FT') if own_filters else 'NULL'} AS own_filter, "
        f"{_part('DP')} AS depth, {_part('AF')} AS share{entries} FROM ({alleles}) "
        f"WHERE list_contains(genotype, allele::VARCHAR) AND alt NOT IN ({', '.join(map(text, _NO_ALLELES))})"
    )
    told = zip(*(_annotated(one) for one in annotations), (("NULL::VARCHAR",) * 3), strict=True)
    gene, hgvs_c, hgvs_p = (f"coalesce({', '.join(column)})" for column in told)
    return (
        f"(SELECT sample_id, {text(assembly)} AS assembly, {_CHROM} AS chrom, "
        "pos, upper(ref) AS ref, upper(alt) AS alt, "
        f"{gene} AS gene, {hgvs_c} AS hgvs_c, {hgvs_p} AS hgvs_p, "
        "CASE WHEN len(genotype) = 1 THEN 'hemizygous' WHEN genotype[1] = genotype[2] AND len(genotype) = 2 "
        "THEN 'homozygous' WHEN list_contains(genotype, '.') THEN 'unknown' "
        "WHEN len(list_distinct(genotype)) = 1 THEN 'homozygous' ELSE 'heterozygous' END AS zygosity, "
        f"{_SHARE} AS vaf, depth, nullif(name, '.') AS variant_id, filter, own_filter, number AS _line "
        f"FROM ({carried}))"
    )


_CHROM = (
    "CASE WHEN chrom IN ('chrM', 'M', 'MT', 'chrMT') THEN 'MT' "
    "WHEN starts_with(lower(chrom), 'chr') THEN substr(chrom, 4) ELSE chrom END"
)


def _part(name: str) -> str:
    """SQL of one of a call's parts; nothing where the site has no such part."""
    place = f"list_position(string_split(format, ':'), {text(name)})"
    return f"nullif(nullif(split_part(call, ':', {place}::INTEGER), '.'), '')"


_SHARE = (
    "CASE WHEN list_sum(depths) > 0 THEN (round(depths[allele + 1] / list_sum(depths), 6))::VARCHAR "
    "ELSE nullif(string_split(share, ',')[allele], '.') END"
)
"""Share of reads: from the allele's depths, otherwise from the caller's own AF of the sample."""


def _info(key: str) -> str:
    return f"split_part(split_part(';' || info, ';{key}=', 2), ';', 1)"


def _entry(annotation: tuple[str, ...]) -> str:
    """SQL of the first annotation that is of the allele; mostly it is the first of all."""
    key, allele, *_columns = annotation
    # VEP writes insertions and deletions without the base before them, and nothing as '-'.
    fits = f"split_part(e, '|', {allele}) IN (alt, coalesce(nullif(substr(alt, 2), ''), '-'))"
    first = f"split_part({key}, ',', 1)"
    return (
        f"CASE WHEN {key} = '' THEN NULL WHEN split_part({first}, '|', {allele}) = alt THEN {first} "
        f"ELSE list_filter(string_split({key}, ','), e -> {fits})[1] END"
    )


def _annotated(annotation: tuple[str, ...]) -> tuple[str, str, str]:
    """SQL of gene, HGVS of coding DNA and of protein."""
    key, _allele, *columns = annotation
    parts = [f"nullif(replace(split_part({key}_entry, '|', {column}), '%3D', '='), '')" for column in columns]
    return parts[0], parts[1], parts[2]


def _annotations(header: str) -> list[tuple[str, ...]]:
    """Key, and the positions of allele, gene and HGVS in the entries of SnpEff's ANN or VEP's CSQ."""
    annotations = []
    for key, names in (
        ("ANN", ("allele", "gene_name", "hgvs.c", "hgvs.p")),
        ("CSQ", ("allele", "symbol", "hgvsc", "hgvsp")),
    ):
        found = re.search(rf"##INFO=<ID={key},[^\n]*Description=\"([^\"]*)\"", header)
        if found:
            listed = re.sub(r"^.*?(Format|annotations?)\s*:", "", found[1], flags=re.IGNORECASE)
            columns = [name.strip(" '\"").lower() for name in listed.split("|")]
            if all(name in columns for name in names):
                annotations.append((key, *(str(columns.index(name) + 1) for name in names)))
    return annotations


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
