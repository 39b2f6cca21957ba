"""Rules about the source itself: who may make what, what may be caught, and what is never written down."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon.identity import credential
from connexon.query import signed
from connexon_node.pipeline import values

ROOT = Path(__file__).resolve().parents[2]
CODE = ("connexon", "hub", "node", "deploy", "proto")
SEALED = {
    "Permit": ("node/connexon_node/policy",),
    "Cohort": ("node/connexon_node/consent",),
    "StandingCohort": ("node/connexon_node/consent",),
    "Computed": ("node/connexon_node/engine",),
    "Released": ("node/connexon_node/release",),
    "Asked": ("connexon/query/signed",),
    "Ordered": ("node/connexon_node/training/task_verification",),
    "Worked": ("node/connexon_node/training/task_pipeline",),
}
"""Type to the rooms that make it, as connexon_node.pipeline.values promises."""
HEARS_OF_NO_REVOCATION = {
    "connexon/client/connecting.py": "the researcher's own side: the hub tells them",
    "connexon/client/network.py": "as client's",
    "connexon/client/training/model_proof.py": "whether a question of the past was a researcher's when it was asked",
    "node/connexon_node/cli/release.py": "as model_proof's: what would leave of a question that was asked",
    "node/connexon_node/cli/requests.py": "as model_proof's: what the rules say to a question that was asked",
    "node/connexon_node/policy_review/replaying.py": "as model_proof's: what other rules would have said",
    "node/connexon_node/recovery/bringing_back.py": "as model_proof's: whose share a question was charged to",
}
"""File to the reason why it proves researchers without asking what is revoked; none of these lets anybody in."""
CATCHES_EVERYTHING = {
    ("hub/connexon_hub/housekeeping.py", "_over_and_over"): "a chore that fails once is tried again, beside the others",
    ("hub/connexon_hub/rpc/guard.py", "serve"): "the hub's edge: the caller gets a reference, the log the cause",
    (
        "hub/connexon_hub/state/writer.py",
        "_commit",
    ): "one bad item of a batch goes back to its owner, the others are written",
    (
        "hub/connexon_hub/training/worker_training.py",
        "work",
    ): "a run's process tells the hub that it failed, whatever it was",
    ("hub/connexon_hub/training/runs.py", "_step"): "one run's fault is that run's end and not the hub's",
    (
        "node/connexon_node/pipeline/question_pipeline.py",
        "prove",
    ): "as _once: what cannot be proved is answered, whatever stood in the way",
    (
        "node/connexon_node/pipeline/question_pipeline.py",
        "_once",
    ): "the node's edge: the unforeseen becomes an answer that says failed",
    ("connexon/findings.py", "_finding"): "a check that itself breaks is a finding and hides no other",
    (
        "node/connexon_node/importing/formats/vcf.py",
        "_opened",
    ): "the reader raises no other for such a header",
    ("node/connexon_node/importing/formats/vcf.py", "_records"): "the reader raises no other for a damaged record",
    ("node/connexon_node/importing/reader/jobs.py", "work"): "whatever a library does with a file is a sentence",
    (
        "node/connexon_node/training/worker_process.py",
        "_done",
    ): "whatever a model or library does becomes a failed task",
    (
        "node/connexon_node/training/task_pipeline.py",
        "_once",
    ): "as answering's: the unforeseen becomes a reply that says failed",
    (
        "node/connexon_node/delivery/job_queue.py",
        "_run",
    ): "a worker goes on; what it worked on stays written down and is tried again",
}
"""File and function to the reason why it may catch whatever comes."""


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "connexon/v1" not in path.as_posix():
                yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(), str(path))


SOURCES = dict(_sources())


def _last_name(node: ast.expr | None) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _makers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every sealed type that is constructed, renamed or changed in `tree`, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last_name(node.func) in SEALED:
            yield _last_name(node.func), node.lineno
        elif isinstance(node, ast.alias) and node.name in SEALED and node.asname not in (None, node.name):
            yield node.name, node.lineno
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _last_name(node.value) in SEALED:
            yield _last_name(node.value), node.lineno


def _catchers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every place in `tree` that catches whatever comes: the function's name and the line."""
    for function in ast.walk(tree):
        if isinstance(function, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            name = getattr(function, "name", "")
            for node in _within(function):
                if (isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _raises_again(node)) or (
                    isinstance(node, ast.Call)
                    and _last_name(node.func) == "suppress"
                    and any(_is_broad(argument) for argument in node.args)
                ):
                    yield name, node.lineno


def _within(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _within(child)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether it only tidies up on the way: its one way out is to raise what came."""
    last = handler.body[-1]
    exits = [node for node in ast.walk(handler) if isinstance(node, ast.Return | ast.Break | ast.Continue)]
    return isinstance(last, ast.Raise) and last.exc is None and not exits


def _is_broad(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(_is_broad(part) for part in kind.elts)
    return kind is None or _last_name(kind) in ("Exception", "BaseException")


class TestSeals:
    def test_the_promise_is_written_where_the_pipeline_is(self) -> None:
        promise = values.__doc__ or ""
        for name, rooms in SEALED.items():
            assert name in promise
            assert any(room.rpartition("/")[2] in promise for room in rooms)

    @pytest.mark.parametrize("name", SEALED)
    def test_a_step_of_the_pipeline_is_made_in_its_room_and_nowhere_else(self, name: str) -> None:
        rooms = SEALED[name]
        made = [(path, line) for path, tree in SOURCES.items() for kind, line in _makers(tree) if kind == name]
        assert made, f"nobody makes a {name}"
        strangers = [place for place in made if not any(_is_in(place[0], room) for room in rooms)]
        assert strangers == []

    def test_nobody_lets_a_researcher_in_without_asking_what_is_revoked(self) -> None:
        deaf = {
            path
            for path, tree in SOURCES.items()
            for node in ast.walk(tree)
            if _last_name(node if isinstance(node, ast.expr) else None) == "NOTHING_REVOKED"
        }
        assert deaf - {"connexon/identity/credential.py"} == set(HEARS_OF_NO_REVOCATION)

    def test_whoever_proves_a_researcher_must_say_what_is_revoked(self) -> None:
        for prove in (credential.verify, signed.verify_query, signed.verify_call):
            asked = inspect.signature(prove).parameters["revocations"]
            assert asked.default is inspect.Parameter.empty, prove

    @pytest.mark.parametrize(
        "trick",
        [
            "Permit(asked, 'x', '')",
            "pipeline.Permit(asked, 'x', '')",
            "from connexon_node.pipeline.values import Permit as Anything",
            "make = Permit",
            "make: type = pipeline.Permit",
        ],
    )
    def test_the_check_sees_through_simple_tricks(self, trick: str) -> None:
        assert [name for name, _ in _makers(ast.parse(trick))] == ["Permit"]

    def test_reading_a_type_is_not_making_it(self) -> None:
        harmless = (
            "from connexon_node.pipeline.values import Permit\ndef f(permit: Permit) -> list[Permit]: return [permit]"
        )
        assert list(_makers(ast.parse(harmless))) == []


def _is_in(path: str, room: str) -> bool:
    return path == f"{room}.py" or path.startswith(f"{room}/")


class TestCatching:
    def test_nothing_catches_whatever_comes_without_a_written_reason(self) -> None:
        found = {(path, function): line for path, tree in SOURCES.items() for function, line in _catchers(tree)}
        strangers = {place: line for place, line in found.items() if place not in CATCHES_EVERYTHING}
        assert strangers == {}

    def test_the_list_of_exceptions_holds_nothing_that_is_gone(self) -> None:
        found = {(path, function) for path, tree in SOURCES.items() for function, _ in _catchers(tree)}
        assert set(CATCHES_EVERYTHING) - found == set()
        assert all(len(reason) > 20 for reason in CATCHES_EVERYTHING.values())

    @pytest.mark.parametrize(
        "text",
        [
            "try: pass\nexcept Exception: pass",
            "try: pass\nexcept: pass",
            "try: pass\nexcept BaseException as error: raise ValueError from error",
            "try: pass\nexcept BaseException:\n  if x: raise",
            "def f():\n  try: pass\n  except BaseException:\n    if x: return\n    raise",
            "try: pass\nexcept (ValueError, builtins.Exception): pass",
            "def f():\n  with contextlib.suppress(Exception): pass",
            "async def f():\n  try: pass\n  except* Exception: pass",
        ],
    )
    def test_the_check_sees_every_form(self, text: str) -> None:
        assert len(list(_catchers(ast.parse(text)))) == 1

    def test_tidying_up_on_the_way_is_not_catching(self) -> None:
        assert list(_catchers(ast.parse("try: pass\nexcept BaseException:\n  close()\n  raise"))) == []


def _join(*parts: str) -> str:
    return "".join(parts)


# Written in pieces, so that this file does not hold what it looks for.
NEVER = [
    _join("/wor", "k/"),
    _join("/roo", "t/"),
    _join("py", "pi.org"),
    _join("python", "hosted.org"),
    _join("npm", "js.org"),
    _join("npm", "js.com"),
    _join("crates", ".io"),
    _join("ana", "conda.org"),
    _join("ruby", "gems.org"),
    _join("proxy.go", "lang.org"),
    _join("maven", ".org"),
    _join("--index", "-url"),
    _join("anth", "ropic"),
    _join("chat", "gpt"),
    _join("language", " model"),
]
PLACES = (*CODE, "policies", "tests", ".ci", "docs")
GENERATED = {"__pycache__", "node_modules"}
TEXTS = {
    ".py",
    ".pyi",
    ".proto",
    ".md",
    ".toml",
    ".txt",
    ".cedar",
    ".cedarschema",
    ".yaml",
    ".yml",
    ".json",
    ".lark",
    ".cfg",
}


def _texts() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and (path.suffix in TEXTS or path.name == "Makefile"))
    for place in PLACES:
        for path in (ROOT / place).rglob("*"):
            if (
                path.is_file()
                and not GENERATED & set(path.parts)
                and (path.suffix in TEXTS or path.parent.name == ".ci")
            ):
                yield path


def test_nothing_is_written_about_the_machine_it_was_made_on_or_where_packages_come_from() -> None:
    pattern = re.compile("|".join(map(re.escape, NEVER)), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in _texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert found == []


def test_only_tests_refer_to_data_beside_the_project() -> None:
    beside = _join("../sha", "red")
    found = [
        str(path) for path in _texts() if "tests" not in path.relative_to(ROOT).parts and beside in path.read_text()
    ]
    assert found == []
