"""Hypothesis strategies that spoil bytes in the ways parsers fear."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

Mutation = Callable[[bytes], bytes]
UNKNOWN_FIELD = b"\x98\x06\x01"
HUGE = [b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x80" * 12, b"\x7f", b"\x00"]
"""Lengths and numbers that nothing has."""


def nested(number: int, depth: int) -> bytes:
    """Protobuf's field `number`, holding itself `depth` times."""
    data = b""
    for _ in range(depth):
        size, head = len(data), bytearray()
        while size >= 0x80:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        data = bytes([number << 3 | 2, *head, size]) + data
    return data


@st.composite
def _mutation(draw: st.DrawFn) -> Mutation:
    place, other = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "repeat", "huge", "unknown", "nest", "zero"]))
    noise = draw(st.binary(min_size=1, max_size=12))
    bit, field, depth = draw(st.integers(0, 7)), draw(st.integers(1, 15)), draw(st.sampled_from([3, 40, 90, 400]))
    huge = draw(st.sampled_from(HUGE))

    def mutate(data: bytes) -> bytes:
        start = int(place * len(data))
        end = start + int(other * 16)
        match kind:
            case "flip":
                return data[:start] + bytes(byte ^ 1 << bit for byte in data[start : start + 1]) + data[start + 1 :]
            case "cut":
                return data[:start]
            case "insert":
                return data[:start] + noise + data[start:]
            case "remove":
                return data[:start] + data[end:]
            case "repeat":
                return data[:end] + data[start:end] * 3 + data[end:]
            case "huge":
                return data[:start] + huge + data[start + 1 :]
            case "unknown":
                return data[:start] + UNKNOWN_FIELD + data[start:]
            case "nest":
                return data + nested(field, depth)
            case _:
                return data[:start] + bytes(end - start) + data[end:]

    return mutate


@st.composite
def spoiled(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with one to four mutations, or, one time in ten, bytes without any sense."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = whole
    for mutate in draw(st.lists(_mutation(), min_size=1, max_size=4)):
        data = mutate(data)
    return data
