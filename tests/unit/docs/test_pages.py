"""What the pages say is what the code does."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from connexon.query import purpose
from connexon_node.consent import profile
from docs.tools import commands, errors, pages
from tests.e2e.test_story import STORY
from tests.support.documents import DOCS, ROOT, Block, blocks, inline_commands
from tests.support.documents import pages as written

TYPED = {*STORY, "training.md"}
"""Pages whose blocks are typed by tests: tests/e2e/test_story.py and tests/e2e/test_training.py."""
MAKE = re.compile(r"^make (\S+)", re.MULTILINE)


def test_the_pages_made_from_the_code_are_up_to_date() -> None:
    assert pages.stale() == [], "write them again:  make docs"


def test_every_code_in_the_source_has_a_line() -> None:
    page = (DOCS / "errors.md").read_text()
    for source in errors.SOURCES:
        for file in (ROOT / source).rglob("*.py"):
            for code in re.findall(r'\bcode="([a-z_]+\.[a-z_]+)"', file.read_text()):
                assert f"| `{code}` |" in page, f"{code} in {file}"


def test_every_command_has_a_heading() -> None:
    page = (DOCS / "commands.md").read_text()
    for heading in ("connexon count", "connexon-hub roster sign", "connexon-node consent record"):
        assert f"### {heading}\n" in page


def _shell_blocks() -> list[Block]:
    return [block for page in written() for block in blocks(page) if block.language == "sh"]


def test_only_pages_that_are_typed_say_that_a_block_is_run() -> None:
    assert {block.page for block in _shell_blocks() if block.run} == TYPED


def test_the_readme_names_two_commands() -> None:
    targets = [target for block in blocks(ROOT / "README.md") for target in MAKE.findall(block.text)]
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}: " in makefile for target in targets)


def test_the_readme_is_about_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 50


@pytest.mark.parametrize("page", written(), ids=lambda page: page.name)
def test_commands_that_are_shown_and_not_typed_exist_with_their_options(page: object) -> None:
    shown = [line for block in _shell_blocks() if not block.run for line in block.text.splitlines()]
    lines = [*(line for line in shown if line.startswith("connexon")), *inline_commands(page)]  # type: ignore[arg-type]
    for line in lines:
        _require_known(line)


def _require_known(line: str) -> None:
    """That a command line names a command and options of it; values are not looked at."""
    name, *words = shlex.split(line.replace("...", "x"))
    command: click.Command = commands.programs()[name]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.commands.get(words.pop(0))
        assert inner is not None, line
        command = inner
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    # Completion is typer's own, added when a program starts.
    known |= {"--help", "--install-completion", "--show-completion"}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, line


def test_a_command_that_does_not_exist_is_found() -> None:
    for line in ("connexon cuont cell_lines", "connexon count --wihtin 8", "connexon-node consent reccord x"):
        with pytest.raises(AssertionError):
            _require_known(line)


def test_every_file_the_readme_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).is_file(), target


def _terms(page: str) -> set[str]:
    return set(re.findall(r"\b(?:DUO:\d{7}|CONNEXON:\w+)", (DOCS / page).read_text()))


def test_the_page_of_purposes_has_every_word_with_its_term() -> None:
    rows = dict(
        re.findall(r"^\| `([a-z-]+)` \|.*?\| (?:`(DUO:\d+)`|none) \|", (DOCS / "purposes.md").read_text(), re.M)
    )
    assert rows == {word: term if term.startswith("DUO") else "" for word, term in purpose.WORDS.items()}


def test_the_consent_guide_has_every_permission_and_modifier() -> None:
    assert _terms("consent.md") == {*profile.PERMISSIONS, *profile.MODIFIERS}
    examples = re.findall(r"\| `((?:DUO|CONNEXON):[^`]+)`", (DOCS / "consent.md").read_text())
    for example in (text.replace("\\", "") for text in examples):
        term = example.partition("=")[0]
        if term in profile.PERMISSIONS:
            profile.ConsentProfile.parse(example)
        else:
            profile.ConsentProfile.parse(profile.GENERAL, [example])
