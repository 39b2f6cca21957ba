"""The page of error codes: each `code` in the source with the sentences that come with it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("connexon", "hub/connexon_hub", "node/connexon_node")
CODE = re.compile(r"[a-z<][a-z_<>]*(\.[a-z<][a-z_<>]*)*")
HEAD = """\
# Error codes

Made from the code by `make docs`. Every refusal and every failure has a code, which is stable, and a sentence, which
may change with the next version. `--json` prints both. In Python they are `code` and `public` of an error, and `code`
and `message` of a center in an answer. `<...>` stands for a name or a number.

Rules have names of their own, such as `consent.genetic_only`: see `connexon-node policy show`.
"""


@dataclass(frozen=True, order=True)
class Found:
    """A place in the source that gives a code, with its sentence or, for a class, what the class is about."""

    code: str
    sentence: str
    of_class: bool


def page() -> str:
    """The page's Markdown."""
    by_code: dict[str, set[Found]] = defaultdict(set)
    for one in found():
        by_code[one.code].add(one)
    parts = [HEAD]
    chapter = ""
    for code in sorted(by_code, key=lambda code: (_chapter(code), code)):
        if _chapter(code) != chapter:
            chapter = _chapter(code)
            parts.append(f"\n## {chapter}\n\n| code | sentence |\n|---|---|")
        said = [one for one in sorted(by_code[code]) if not one.of_class] or sorted(by_code[code])
        sentences = " <br> ".join(_cell(one.sentence) for one in said if one.sentence)
        parts.append(f"| `{code}` | {sentences or 'The sentence says what happened.'} |")
    return "\n".join(parts) + "\n"


def _chapter(code: str) -> str:
    return code.partition(".")[0] if "." in code else "Without a dot: the kinds of errors"


def found() -> Iterator[Found]:
    """Every code in the source of the three packages."""
    for source in SOURCES:
        for file in sorted((ROOT / source).rglob("*.py")):
            if "v1" not in file.parts:
                yield from _Module(ast.parse(file.read_text(encoding="utf-8"))).found()


class _Module:
    """One source file. `_positions` says for its functions and classes which argument is the code."""

    def __init__(self, tree: ast.Module) -> None:
        self._nodes = list(ast.walk(tree))
        self._positions: dict[str, int] = {}
        for node in self._nodes:
            names = _parameters(node)
            if "code" in names and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._positions[node.name] = names.index("code")

    def found(self) -> Iterator[Found]:
        """Its codes."""
        for node in self._nodes:
            if isinstance(node, ast.ClassDef):
                yield from self._of_class(node)
            elif isinstance(node, ast.Call):
                yield from self._of_call(node)

    @staticmethod
    def _of_class(node: ast.ClassDef) -> Iterator[Found]:
        for statement in node.body:
            if isinstance(statement, ast.Assign) and [ast.unparse(one) for one in statement.targets] == ["code"]:
                sentence = (ast.get_docstring(node) or "").partition("\n")[0]
                yield from _codes(statement.value, sentence, of_class=True)

    def _of_call(self, node: ast.Call) -> Iterator[Found]:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        position = self._positions.get(name)
        value = next((one.value for one in node.keywords if one.arg == "code"), None)
        if value is None and position is not None and position < len(node.args):
            value = node.args[position]
        if value is not None:
            texts = [_text(one) for one in [*node.args, *(keyword.value for keyword in node.keywords)] if one != value]
            yield from _codes(value, next((text for text in texts if " " in text), ""), of_class=False)


def _parameters(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [one.arg for one in node.args.args if one.arg not in ("self", "cls")]
    if isinstance(node, ast.ClassDef):
        return [ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)]
    return []


def _codes(value: ast.expr, sentence: str, *, of_class: bool) -> Iterator[Found]:
    if isinstance(value, ast.IfExp):
        yield from _codes(value.body, sentence, of_class=of_class)
        yield from _codes(value.orelse, sentence, of_class=of_class)
        return
    code = _text(value)
    if CODE.fullmatch(code) and not code.startswith("<") and ("." in code or of_class):
        yield Found(code, sentence, of_class)


def _text(node: ast.expr) -> str:
    """A text in the source; what it fills in is shown by its last name: <center>."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(one) for one in node.values)
    if isinstance(node, ast.FormattedValue):
        names = re.findall(r"[a-z_]+", ast.unparse(node.value).lower())
        known = [name.strip("_") for name in names if name not in ("value", "public", "str", "plain", "len", "join")]
        return f"<{(known or ['...'])[-1]}>"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return _text(node.body)
    return ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
