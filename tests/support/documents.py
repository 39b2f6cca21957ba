"""The README and the pages of docs/ as tests read them: their blocks of commands, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE = ("commands.md", "dictionary.md", "errors.md")
"""Pages made from the code; what they show needs no test of its own."""
_FENCE = re.compile(r"^```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A block of code. `run`: a test types it; `after` names the block that it follows in time."""

    page: str
    language: str
    run: bool
    name: str
    after: str
    text: str


def pages() -> list[Path]:
    """Every page that people write."""
    return [ROOT / "README.md", *(page for page in sorted(DOCS.glob("*.md")) if page.name not in MADE)]


def blocks(page: Path) -> Iterator[Block]:
    """The page's blocks, in order."""
    for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
        words = match["info"].split()
        options = dict(word.split("=") for word in words if "=" in word)
        yield Block(
            page.name,
            match["language"],
            "run" in words,
            options.get("name", ""),
            options.get("after", ""),
            match["text"],
        )


def inline_commands(page: Path) -> list[str]:
    """Commands of Connexon between backticks in the page's sentences and tables."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    codes = (" ".join(match[1].split()) for match in _CODE.finditer(prose))
    return [code for code in codes if re.match(r"connexon(-hub|-node)? \S", code)]


def in_time(found: list[Block]) -> list[Block]:
    """As they happen: a block with `after` comes right behind the one it names."""
    ordered: list[Block] = []

    def add(block: Block) -> None:
        ordered.append(block)
        for follower in found:
            if block.name and follower.after == block.name:
                add(follower)

    for block in found:
        if not block.after:
            add(block)
    assert len(ordered) == len(found), "a block waits for one that does not exist"
    return ordered
