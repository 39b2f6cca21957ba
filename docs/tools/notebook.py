"""The tutorial's notebook: run it, keep what it shows, and make a page of it.

Its cells are executed in this process, as Jupyter does it: one name space, and the value of a cell's last expression is
shown. So the test of the tutorial needs no notebook server.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
from pathlib import Path
from typing import Any

TUTORIAL = Path(__file__).parents[1] / "tutorial.ipynb"
Notebook = dict[str, Any]


def load(path: Path) -> Notebook:
    """Read a notebook."""
    found: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return found


def save(notebook: Notebook, path: Path) -> None:
    """Write a notebook as Jupyter does."""
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run(notebook: Notebook) -> Notebook:
    """The same notebook with the outputs of this run. Raises what a cell raises."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            cells.append(cell)
            continue
        number += 1
        cells.append({**cell, "execution_count": number, "outputs": _outputs("".join(cell["source"]), names, number)})
    return {**notebook, "cells": cells}


def kinds(notebook: Notebook) -> list[list[str]]:
    """For each code cell the kinds of its outputs, which a new run must have again; numbers have noise."""
    return [
        [kind for output in cell["outputs"] for kind in sorted(output.get("data", {"stream": ""}))]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def to_markdown(notebook: Notebook) -> str:
    """The notebook as a page: text, code, and under each cell what it showed."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        parts += [_shown(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    html = output.get("data", {}).get("text/html")
    if html is not None:
        # Markdown reads an empty line as the end of HTML.
        lines = "\n".join(line for line in "".join(html).splitlines() if line.strip())
        return f'<div class="answer">\n{lines}\n</div>'
    text = "".join(output.get("text") or output["data"]["text/plain"])
    return f"```text\n{text.rstrip()}\n```"


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    body = ast.parse(source).body
    last = ast.Expression(body.pop().value) if body and isinstance(body[-1], ast.Expr) else None  # type: ignore[attr-defined]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"<cell {number}>", "exec"), names)  # noqa: S102  # the tree's own notebook
        value = None if last is None else eval(compile(last, f"<cell {number}>", "eval"), names)  # noqa: S307
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append(
            {"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)}
        )
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        outputs.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return outputs
