"""How identifiers and names look. Sources beside each; all are data, none is a registry's code."""

from __future__ import annotations

from connexon_node.data.dictionary.model import Form

PSEUDONYM = Form(
    what="a pseudonym: letters, digits and . _ : / + - inside, at most 64 characters",
    pattern=r"[A-Za-z0-9](?:[A-Za-z0-9 ._:/+-]{0,62}[A-Za-z0-9._:/+-])?",
)

_DAY, _MONTH, _YEAR = r"(0?[1-9]|[12]\d|3[01])", r"(0?[1-9]|1[0-2])", r"(19|20)\d\d"
NO_PSEUDONYM = (
    (
        "a date",
        rf"({_YEAR}[-/.]{_MONTH}[-/.]{_DAY}|{_DAY}[-/.]{_MONTH}[-/.]{_YEAR}|{_MONTH}/{_DAY}/{_YEAR})([T ].*)?",
    ),
    ("a person's name", r"(.*[^A-Za-z])?[A-Z][a-z]+[ ,/_]+[A-Z][a-z]+([^A-Za-z].*)?"),
)
"""What a pseudonym of a person must not be, though it has the form; a line's name may be any of these."""

HPSCREG_NAME = Form(
    what="an hPSCreg name such as UKKi023-A",
    pattern=r"[A-Za-z][A-Za-z0-9-]{2,19}",
    usual=r"[A-Z][A-Za-z]{1,5}[ei]\d{3}-[A-Z]{1,2}(-\d+)?",
)
"""Kurtz 2018, Stem Cell Reports 10:1-6. `usual` is inferred from published names, so it only warns."""

RRID = Form(what="a Cellosaurus accession such as CVCL_1234", pattern=r"CVCL_[A-Z0-9]{4}")

BIOSAMPLE = Form(what="a BioSamples id such as SAMEA104128095", pattern=r"SAM(E[AG]?|N|D)\d{1,15}")

COUNTRY = Form(
    what="a country of two capital letters (ISO 3166-1), such as DE; NA is Namibia",
    pattern=r"[A-Z]{2}",
    usual=r"[A-MO-Z][A-Z]|N[B-Z]",
    few=True,
)
"""NA is warned of: it mostly means that there is no value."""

SEC = Form(
    what="a Single European Code of 40 characters that ends in a real date",
    pattern=r"[A-Z]{2}[A-Z0-9]{6}[A-Z0-9]{13}[AEB][A-Z0-9]{7}[A-Z0-9]{3}\d{8}",
    ends_in_date=True,
)
"""Directive 2006/86/EC, Annex VII: donation sequence (21) and product sequence (19) with its expiry date."""

LINE = Form(what="one line of at most 200 characters", pattern=r"[^\x00-\x1f\x7f]{1,200}")

PERMISSION_VALUE = Form(
    what="a DUO modifier, with its value where it takes one, such as DUO:0000025=12",
    pattern=r"[A-Z]+:[A-Za-z0-9_]{1,40}(=[^\x00-\x1f;]{1,200})?",
)

CODE = Form(
    what="a short code: letters, digits and . _ : / + -, at most 40 characters",
    pattern=r"[A-Za-z0-9][A-Za-z0-9 ._:/+-]{0,39}",
    few=True,
)

SHA256 = Form(what="a SHA-256 in 64 hexadecimal digits", pattern=r"[0-9a-f]{64}")

STR_ALLELE = Form(what="an STR allele such as 12, 9.3, X or Y", pattern=r"\d{1,2}(\.[1-9])?|X|Y")

HLA_ALLELE = Form(
    what="an HLA allele of one to four fields such as 24:02 or 02:01:01, without the locus",
    pattern=r"\d{2,3}(:\d{2,4}){0,3}[NLSCAQ]?",
)
"""WHO nomenclature for factors of the HLA system: fields parted by colons, then an expression suffix."""

BAND = Form(what="a chromosome band such as q11.21", pattern=r"[pq](\d{1,2}(\.\d{1,3})?|ter)|cen")

_CLONE = r"\d{2,3}(~\d{2,3})?(<\dn>)?,(sl|sdl\d?|idem|[XYU?]{1,6}c?)(x\d)?(,[^\[\],/\s]+)*(\[(cp)?\d{1,3}\])?"
_MOLECULAR = r"(arr|sseq|seq|ogm|rsa|nuc ish|ish)[ (\[].{1,180}"

ISCN = Form(
    what="a karyotype in ISCN such as 46,XX or 47,XY,+12[5]/46,XY[15]",
    pattern=rf"(mos |chi )?{_CLONE}(//?{_CLONE})*(\.{_MOLECULAR})?|{_MOLECULAR}",
)
"""ISCN 2020 and 2024. A light look at the outer form: clones with their chromosomes, sex chromosomes and cells."""

BASES = Form(
    what="bases such as A or CTG, or * or a symbolic allele such as <DEL>",
    pattern=r"[ACGTN]{1,200}|\*|<[A-Z][A-Z0-9:_-]{1,39}>",
)

GENE = Form(what="a gene symbol such as BCL2L1", pattern=r"[A-Za-z][A-Za-z0-9.@_-]{0,29}")

ENSEMBL = Form(what="an Ensembl gene such as ENSG00000111640, without version", pattern=r"ENS[A-Z]{0,4}G\d{11}")

UNIPROT = Form(
    what="a UniProt accession such as P04637",
    pattern=r"([OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9]([A-Z][A-Z0-9]{2}[0-9]){1,2})(-\d{1,3})?",
)
"""https://www.uniprot.org/help/accession_numbers"""

PROBE = Form(
    what="a methylation probe such as cg00000029",
    pattern=r"cg\d{8}|ch\.\d{1,2}\.\d{1,9}[FR]|rs\d{1,12}|nv-[A-Za-z0-9_-]{1,40}",
)

_POSITION = r"[*-]?\d{1,9}([+-]\d{1,7})?"
HGVS_C = Form(
    what="a change of coding DNA in HGVS such as c.742C>T or NM_000546.6:c.215del",
    pattern=(
        r"([A-Z]{2}_\d{6,9}(\.\d{1,2})?:|ENST\d{11}(\.\d{1,2})?:)?c\."
        rf"({_POSITION}[ACGT]>[ACGT]|{_POSITION}=|"
        rf"{_POSITION}(_{_POSITION})?(del[ACGTN]*|dup[ACGTN]*|inv|delins[ACGTN]+|\[\d{{1,4}}\])|"
        rf"{_POSITION}_{_POSITION}ins[ACGTN]+)"
    ),
)

_AMINO = r"(Ala|Arg|Asn|Asp|Cys|Gln|Glu|Gly|His|Ile|Leu|Lys|Met|Phe|Pro|Ser|Thr|Trp|Tyr|Val|Sec|Pyl|Ter|\*)"
HGVS_P = Form(
    what="a change of protein in HGVS with three letters such as p.Arg248Gln or p.(Gly12Asp)",
    pattern=(
        r"([A-Z]{2}_\d{6,9}(\.\d{1,2})?:|ENSP\d{11}(\.\d{1,2})?:)?p\.\(?"
        rf"(=|\?|0|{_AMINO}\d{{1,5}}({_AMINO}|=|\?|fs(Ter|\*)?(\d{{1,5}}|\?)?|{_AMINO}fs(Ter|\*)(\d{{1,5}}|\?)|"
        rf"ext-?\d{{1,5}}|{_AMINO}ext(Ter|\*)?(\d{{1,5}}|\?))|"
        rf"{_AMINO}\d{{1,5}}(_{_AMINO}\d{{1,5}})?(del|dup|delins{_AMINO}+|ins{_AMINO}+))\)?"
    ),
)
"""The common forms of HGVS 20.05 (den Dunnen 2016, doi 10.1002/humu.22981), which is larger."""

REGISTRY = Form(
    what="a trial's registry number such as NCT01234567 or jRCT2031200001",
    pattern=r"NCT\d{8}|ChiCTR[A-Za-z0-9-]{5,15}|jRCT[a-z]?\d{9,10}|UMIN\d{9}|EUCTR\d{4}-\d{6}-\d{2}|ISRCTN\d{8}|[A-Z0-9][A-Z0-9-]{3,29}",
    few=True,
)

WORDS = Form(what="words of one line, at most 120 characters", pattern=r"[^\x00-\x1f\x7f]{1,120}", few=True)

UNIT = Form(what="a UCUM unit such as % or 10*6/mL", pattern=r"[A-Za-z0-9%*/.\[\]{}'^+_-]{1,40}", few=True)
"""The characters that UCUM allows; which units there are is not checked."""
