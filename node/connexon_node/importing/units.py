"""Units as centers write them, brought to the UCUM unit of the dictionary. Factors are data, from the SI and UCUM."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conversion:
    """`value * factor + offset` is the value in the other unit."""

    factor: float
    offset: float = 0.0


# Of each kind: UCUM code -> factor and offset to the kind's first unit.
_KINDS: tuple[dict[str, tuple[float, float]], ...] = (
    {"Cel": (1, 0), "K": (1, -273.15), "[degF]": (5 / 9, -160 / 9)},
    {
        **{"s": (1, 0), "min": (60, 0), "h": (3600, 0), "d": (86_400, 0), "wk": (604_800, 0)},
        **{
            "mo": (2_629_800, 0),
            "a": (31_557_600, 0),
        },  # UCUM's year is of 365.25 days, and its month a twelfth of that
    },
    {"m": (1, 0), "cm": (1e-2, 0), "mm": (1e-3, 0), "um": (1e-6, 0), "nm": (1e-9, 0)},
    {"L": (1, 0), "dL": (1e-1, 0), "mL": (1e-3, 0), "uL": (1e-6, 0), "nL": (1e-9, 0)},
    {"g": (1, 0), "kg": (1e3, 0), "mg": (1e-3, 0), "ug": (1e-6, 0), "ng": (1e-9, 0), "pg": (1e-12, 0)},
    {"g/L": (1, 0), "mg/mL": (1, 0), "g/dL": (10, 0), "mg/L": (1e-3, 0), "ug/mL": (1e-3, 0), "ng/mL": (1e-6, 0)},
    {"mol/L": (1, 0), "mmol/L": (1e-3, 0), "umol/L": (1e-6, 0), "nmol/L": (1e-9, 0)},
    {"%": (1, 0), "1": (100, 0)},
    {"10*6": (1, 0), "10*3": (1e-3, 0), "{cells}": (1e-6, 0), "10*5": (1e-1, 0), "10*9": (1e3, 0)},
    {"10*6/mL": (1, 0), "10*3/mL": (1e-3, 0), "{cells}/mL": (1e-6, 0), "10*6/L": (1e-3, 0), "10*3/uL": (1, 0)},
    {"[EU]/mL": (1, 0), "[EU]/L": (1e-3, 0), "[IU]/mL": (1, 0)},
)

_SPELLINGS = {
    **dict.fromkeys(("c", "°c", "degc", "celsius", "cel"), "Cel"),
    **dict.fromkeys(("f", "°f", "degf", "fahrenheit", "[degf]"), "[degF]"),
    **dict.fromkeys(("k", "kelvin"), "K"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "stunden"), "h"),
    **dict.fromkeys(("d", "day", "days", "tage", "jours"), "d"),
    **dict.fromkeys(("wk", "wks", "week", "weeks", "wochen", "semaines"), "wk"),
    **dict.fromkeys(("mo", "month", "months", "monate", "mois"), "mo"),
    **dict.fromkeys(("a", "y", "yr", "yrs", "year", "years", "jahre", "ans"), "a"),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns"), "um"),
    **dict.fromkeys(("ul", "µl", "μl"), "uL"),
    **dict.fromkeys(("ug", "µg", "μg", "mcg"), "ug"),
    **dict.fromkeys(("ug/ml", "µg/ml", "μg/ml"), "ug/mL"),
    **dict.fromkeys(("%", "percent", "pct", "prozent"), "%"),
    **dict.fromkeys(("1", "fraction", "ratio"), "1"),
    **dict.fromkeys(("10*6", "10^6", "1e6", "million", "millions", "mio", "x10^6", "x10e6", "e6"), "10*6"),
    **dict.fromkeys(("10*3", "10^3", "1e3", "thousand", "x10^3"), "10*3"),
    **dict.fromkeys(("cells", "cell", "{cells}", "zellen", "cellules"), "{cells}"),
    **dict.fromkeys(("10*6/ml", "10^6/ml", "1e6/ml", "million/ml", "mio/ml", "x10^6/ml"), "10*6/mL"),
    **dict.fromkeys(("cells/ml", "cell/ml", "{cells}/ml"), "{cells}/mL"),
    **dict.fromkeys(("eu/ml", "[eu]/ml"), "[EU]/mL"),
}
_CODES = {code.lower(): code for kind in _KINDS for code in kind}


def ucum(written: str) -> str | None:
    """The UCUM code for a unit as people write it; None where it is not known."""
    plain = written.strip().lower().replace(" ", "")
    return _SPELLINGS.get(plain) or _CODES.get(plain)


def conversion(written: str, wanted: str) -> Conversion | None:
    """How to get from a written unit to a UCUM unit; None where that is unknown or makes no sense."""
    code = ucum(written)
    if written == wanted or code == wanted:
        return Conversion(1.0)
    for kind in _KINDS:
        if code in kind and wanted in kind:
            factor, offset = kind[code]
            to_factor, to_offset = kind[wanted]
            return Conversion(factor / to_factor, (offset - to_offset) / to_factor)
    return None
