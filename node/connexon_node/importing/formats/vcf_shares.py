"""The share of reads that carry an allele, as the header of the file says that callers tell it.

AD with a number for each allele, the reference first (Number=R), over the depth (DP): that is the same whether sites
of several alleles are split or not. Else the caller's own share (AF, VAF, FA, FREQ), or reads of the alternative (AO).
"""

from __future__ import annotations

import re

UNTOLD = "alleles have no vaf: the file does not tell the share of reads in a way that is known"
_SPLIT = re.compile(r"##bcftools_normCommand=[^\n]*\s-m|##INFO=<ID=OLD_MULTIALLELIC|##INFO=<ID=OLD_CLUMPED", re.I)


def part(name: str) -> str:
    """SQL of one of a call's parts; nothing where the site has no such part."""
    place = f"list_position(string_split(format, ':'), '{name}')"
    return f"nullif(nullif(split_part(call, ':', {place}::INTEGER), '.'), '')"


def share(header: str) -> str:
    """SQL of the share of reads of a call's allele, as text; nothing where the file does not tell."""
    declared = dict(re.findall(r"^##FORMAT=<ID=(\w+),[^\n]*?Number=([^,>]+)", header, flags=re.MULTILINE))
    split = _SPLIT.search(header) is not None
    ways = []
    if declared.get("AD", ".") in ("R", "."):
        ways.append(_of_all("AD", "allele + 1", "len(alleles) = len(string_split(alts, ',')) + 1", split=split))
    ways += [_own(name) for name in ("AF", "VAF", "FA", "VF") if name in declared or not declared]
    if "FREQ" in declared:
        percent = f"try_cast(rtrim({part('FREQ')}, '%') AS DOUBLE)"
        ways.append(f"CASE WHEN NOT contains(alts, ',') THEN (round({percent} / 100, 6))::VARCHAR END")
    if declared.get("AD") == "1" and "RD" in declared:
        reads, others = f"try_cast({part('AD')} AS DOUBLE)", f"try_cast({part('RD')} AS DOUBLE)"
        whole = f"NOT contains(alts, ',') AND {reads} + {others} > 0"
        ways.append(f"CASE WHEN {whole} THEN (round({reads} / ({reads} + {others}), 6))::VARCHAR END")
    if "AO" in declared and "RO" in declared:
        ways.append(_of_all("AO", "allele", "len(alleles) = len(string_split(alts, ','))", split=split, others="RO"))
    return f"coalesce({', '.join(ways)}, NULL)" if ways else "NULL::VARCHAR"


def _own(name: str) -> str:
    """The caller's own share: a number for each allele but the reference."""
    own = f"try_cast(nullif(string_split({part(name)}, ',')[allele], '.') AS DOUBLE)"
    fits = f"len(string_split({part(name)}, ',')) = len(string_split(alts, ','))"
    return f"CASE WHEN {fits} THEN ({own})::VARCHAR END"


def _of_all(name: str, place: str, fits: str, *, split: bool, others: str = "") -> str:
    """Reads of the allele over all: DP where it holds them all; else their sum, unless a split has torn them apart."""
    reads = f"list_transform(string_split({part(name)}, ','), lambda one: try_cast(one AS DOUBLE))"
    depth = f"try_cast({part('DP')} AS DOUBLE)"
    beside = f" + coalesce(try_cast({part(others)} AS DOUBLE), 0)" if others else ""
    total = f"(list_sum(alleles){beside})"
    # A split leaves each allele the reads of the reference and its own: their sum is not all reads.
    summed = "NULL" if split else f"nullif({total}, 0)"
    of = f"CASE WHEN {depth} >= {total} AND {depth} > 0 THEN {depth} ELSE {summed} END"
    share = f"(round(alleles[{place}] / ({of}), 6))::VARCHAR"
    told = f"CASE WHEN {fits} AND list_count(alleles) = len(alleles) THEN {share} END"
    return f"CASE WHEN {part(name)} IS NOT NULL THEN list_transform([{reads}], lambda alleles: {told})[1] END"
