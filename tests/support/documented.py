"""The examples of docs/json.md, to hold real output against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[2] / "docs" / "json.md"


def documented(name: str) -> Any:
    """The example that the page gives for a shape."""
    section = _PAGE.read_text(encoding="utf-8").split(f"## {name}\n", 1)[1]
    return json.loads(section.split("```json\n", 1)[1].split("```", 1)[0])


def assert_same_shape(real: Any, example: Any, path: str = "$") -> None:
    """Every field of one is in the other, with the same kind of value; null on either side goes with anything."""
    if real is None or example is None:
        return
    assert type(real) is type(example), path
    if isinstance(example, dict):
        assert set(real) == set(example), path
        for name in example:
            assert_same_shape(real[name], example[name], f"{path}.{name}")
    elif isinstance(example, list) and example:
        for number, one in enumerate(real):
            assert_same_shape(one, example[0], f"{path}[{number}]")
