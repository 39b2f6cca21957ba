"""The policies in force: the federation's baseline from the roster, narrowed by the center's own files."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cedarpy
import yaml

from connexon.errors import Misconfigured
from connexon.identity import keys as identity_keys
from connexon.service.policy_files import files_below
from connexon_node.policy.rules import Rule, read_rules, refuse_clashes
from connexon_node.policy.ruleset import RuleSet

SCHEMA = "schema.cedarschema"
FLOORS_FILE = "release.toml"
"""The federation's floors for what may leave: policy carries the file, connexon_node.release.floors reads it."""
SWITCHES_FILE = "switches.yaml"
SWITCHES = {
    "non-commercial-excludes-companies": (
        "Read non-commercial use (DUO:0000046) as excluding companies, also where they do research."
    ),
}
"""What a center may switch on, and what that means. Each can only narrow."""
_KINDS = ("access/", "consent/")
_MAXIMUM_SIZE = 1024 * 1024
_BOOLEAN = "tag:yaml.org,2002:bool"


class PolicyStore:
    """Holds one RuleSet at a time and replaces it whole or not at all. Thread-safe."""

    def __init__(self, own_folder: Path) -> None:
        """`own_folder` holds the center's own Cedar files and switches; it may be missing."""
        self._own_folder = own_folder
        self._baseline: dict[str, bytes] | None = None
        self._rules: RuleSet | None = None
        self._stamps: dict[str, tuple[int, int]] = {}
        self._unreadable = ""
        self._lock = threading.Lock()

    @property
    def rules(self) -> RuleSet:
        """The rules in force. Raises Misconfigured while there are none: without rules nothing is answered."""
        if self._rules is None:
            raise Misconfigured("No policies are loaded, so nothing can be permitted.", code="policy.not_loaded")
        return self._rules

    @property
    def version(self) -> str:
        """Short digest of every file in force; what an answer names."""
        return self.rules.version

    def load(self, baseline: Mapping[str, bytes]) -> None:
        """Put a baseline and the own files in force. Raises Misconfigured naming the place; then nothing changes."""
        with self._lock:
            stamps = _stamps(self._own_folder)
            rules = compile_rules(baseline, read_folder(self._own_folder))
            self._baseline, self._rules, self._stamps = dict(baseline), rules, stamps

    def refresh(self) -> bool:
        """Take in changed own files; True where they changed. Raises as load does, and keeps what was in force."""
        with self._lock:
            try:
                stamps = _stamps(self._own_folder)
                changed = self._baseline is not None and stamps != self._stamps
                own = read_folder(self._own_folder) if changed else {}
            except Misconfigured as error:
                # Tried again at every query, since a file does not change by becoming readable; reported once.
                known, self._unreadable = self._unreadable, error.public
                if known == error.public:
                    return False
                raise
            self._unreadable = ""
            if self._baseline is None or not changed:
                return False
            # Remembered even when the files are wrong: the same fault is reported once and not at every query.
            self._stamps = stamps
            self._rules = compile_rules(self._baseline, own)
            return True


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every policy file below a folder, by its path with forward slashes; no cases. Raises Misconfigured."""
    try:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in _policy_files(folder)}
    except OSError as error:
        raise _unreadable(error) from error


def compile_rules(baseline: Mapping[str, bytes], own: Mapping[str, bytes]) -> RuleSet:
    """Read, validate and join baseline and own files, in whatever order. Raises Misconfigured naming file and line."""
    schema = _schema(baseline)
    rules: list[Rule] = []
    for path, content in sorted(baseline.items()):
        if path.startswith("cases/") or path in (SCHEMA, FLOORS_FILE):
            continue
        if not (path.endswith(".cedar") and path.startswith(_KINDS)):
            raise Misconfigured(f"{path} has no place among the federation's policies.", code="policy.unknown_file")
        rules += read_rules(path, _text(path, content), schema, own=False)
    for path, content in sorted(own.items()):
        if path.endswith(".cedar"):
            rules += read_rules(path, _text(path, content), schema, own=True)
    refuse_clashes(rules)
    for kind in _KINDS:
        if not any(rule.file.startswith(kind) for rule in rules if not rule.own):
            raise Misconfigured(f"The federation's policies hold no rule in {kind}.", code="policy.incomplete")
    return RuleSet(
        rules,
        schema,
        version=_digest(baseline, own),
        switches=_switches(own.get(SWITCHES_FILE, b"")),
    )


def read_switches(folder: Path) -> frozenset[str]:
    """The switches that are on in a center's own folder. Raises Misconfigured."""
    try:
        return _switches((folder / SWITCHES_FILE).read_bytes())
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise _unreadable(error) from error


def write_switches(folder: Path, on: frozenset[str]) -> None:
    """Turn exactly these switches on."""
    lines = [f"{name}: {'true' if name in on else 'false'}\n" for name in SWITCHES]
    identity_keys.replace_file(folder / SWITCHES_FILE, "".join(lines).encode(), private=True)


def _schema(baseline: Mapping[str, bytes]) -> cedarpy.Schema:
    if SCHEMA not in baseline:
        raise Misconfigured(f"The federation's policies hold no {SCHEMA}.", code="policy.incomplete")
    try:
        return cedarpy.Schema.from_str(_text(SCHEMA, baseline[SCHEMA]))
    except ValueError as error:
        raise Misconfigured(f"{SCHEMA}: {error}.", code="policy.schema") from error


def _switches(content: bytes) -> frozenset[str]:
    read = read_yaml(SWITCHES_FILE, content)
    if read is None:
        return frozenset()
    if not isinstance(read, dict) or not all(isinstance(value, bool) for value in read.values()):
        raise Misconfigured(f"{SWITCHES_FILE}: write each switch as  name: true", code="policy.switches")
    for name in read:
        if name not in SWITCHES:
            raise Misconfigured(
                f"{SWITCHES_FILE}: there is no switch {name!r}; there are {', '.join(SWITCHES)}.",
                code="policy.switches",
            )
    return frozenset(name for name, on in read.items() if on)


class _PlainLoader(yaml.SafeLoader):
    """YAML in which on, yes and NO (Norway) are the words they are, and a key is said once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As YAML says, but a key that is said twice is an error."""
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is said twice", key.start_mark)
        return super().construct_mapping(node, deep=deep)


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(_BOOLEAN, re.compile(r"(?:true|false)\Z"), list("tf"))


def read_yaml(name: str, content: bytes) -> Any:
    """Parse YAML without letting it make anything but plain values. Raises Misconfigured with the line."""
    try:
        return yaml.load(_text(name, content), Loader=_PlainLoader)  # noqa: S506 - a safe loader, made stricter
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        said = getattr(error, "problem", None) or "this is not YAML"
        raise Misconfigured(f"{name}{where}: {said}.", code="policy.yaml") from error


def _text(path: str, content: bytes) -> str:
    if len(content) > _MAXIMUM_SIZE:
        raise Misconfigured(f"{path} is larger than a policy can be.", code="policy.unreadable")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path} is not UTF-8 text.", code="policy.unreadable") from error


def _policy_files(folder: Path) -> list[Path]:
    names = (SCHEMA, SWITCHES_FILE, FLOORS_FILE)
    return sorted(path for path in files_below(folder) if path.suffix == ".cedar" or path.name in names)


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    try:
        stats = {str(path): path.stat() for path in _policy_files(folder)}
    except OSError as error:
        raise _unreadable(error) from error
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def _unreadable(error: OSError) -> Misconfigured:
    return Misconfigured(
        f"{error.filename or 'A policy file'} cannot be read ({error.strerror or error}), so what it forbids is not "
        "known: let the user that runs the node read it, or take it out of the folder of policies.",
        code="policy.unreadable",
    )


def _digest(baseline: Mapping[str, bytes], own: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for origin, files in ((b"baseline", baseline), (b"own", own)):
        for path, content in sorted(files.items()):
            if not path.startswith("cases/"):
                for part in (origin, path.encode(), content):
                    digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
