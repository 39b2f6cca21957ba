"""What a draft changes in the federation's rules and floors, in full."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from connexon.identity.roster import Roster, RosterRefused
from connexon.identity.visible_text import escaped
from connexon.service import policy_text
from connexon.service.policy_text import Statement

FLOORS_FILE = "release.toml"
"""What every center's release keeps to at least; optional."""
_LINE_END = re.compile(r"\r\n|\r|\n")
_TAB = "    "
_MOST_LINES = 2_000


def policy_changes(last: Roster | None, draft: Roster) -> Iterator[tuple[str, list[str]]]:
    """Headings with what stands below them: floors first, then rules, then the rest of the files.

    Raises RosterRefused for a file that is no text, or of a kind that is not known here.
    """
    before = {} if last is None else last.policy_files
    changed = [path for path in sorted(before.keys() | draft.policy_files.keys()) if _differs(before, draft, path)]
    texts = {path: (_text(path, before.get(path)), _text(path, draft.policy_files.get(path))) for path in changed}
    floors = texts.pop(FLOORS_FILE, None)
    if floors is not None:
        yield f"The floors of release change ({FLOORS_FILE})", list(_floors(*floors))
    rules = {path: pair for path, pair in texts.items() if path.endswith(".cedar")}
    yield "Rules that change", [line for path, pair in rules.items() for line in _rules(path, *pair)]
    rest = {path: pair for path, pair in texts.items() if path not in rules}
    yield "Other policy files that change", [line for path, pair in rest.items() for line in _whole(path, *pair)]


def _differs(before: Mapping[str, bytes], draft: Roster, path: str) -> bool:
    return before.get(path) != draft.policy_files.get(path)


def _text(path: str, content: bytes | None) -> str:
    if path != FLOORS_FILE and not path.endswith((".cedar", ".cedarschema")):
        raise RosterRefused(
            f"The draft holds {path}, a file of a kind that cannot be shown, so it is not signed.",
            code="roster.not_shown",
        )
    try:
        return "" if content is None else content.decode()
    except UnicodeDecodeError as error:
        raise RosterRefused(f"{path} in the draft is no text, so it is not signed.", code="roster.not_shown") from error


def _floors(old: str, new: str) -> Iterator[str]:
    before, after = _settings(old), _settings(new)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            values = [escaped(values[name]) if name in values else "not set" for values in (after, before)]
            yield f"  {escaped(name)}: becomes {values[0]}, was {values[1]}"
    if before == after:
        yield from _whole(FLOORS_FILE, old, new)


def _settings(text: str) -> dict[str, str]:
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RosterRefused(f"{FLOORS_FILE} in the draft cannot be read.", code="roster.not_shown") from error
    return dict(_flat("", content))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _flat(f"{name}.{key}" if name else key, below)
    else:
        yield name, repr(value)


def _rules(path: str, old: str, new: str) -> Iterator[str]:
    before, after = list(policy_text.statements(old)), list(policy_text.statements(new))
    gone, come = _more(before, after), _more(after, before)
    for rule_id in dict.fromkeys(one.id for one in (*come, *gone)):
        added, removed = ([one for one in found if one.id == rule_id] for found in (come, gone))
        verb = "changes" if added and removed else "is added" if added else "is removed"
        yield f"  {rule_id or 'a rule without an id'} {verb}, {escaped(path)}"
        for mark, found in (("+", added), ("-", removed)):
            for one in found:
                yield from _marked(mark, _LINE_END.split(one.text))
    outside = list(_lines_that_differ(policy_text.between(old, before), policy_text.between(new, after)))
    if outside:
        yield f"  what stands between rules changes, {escaped(path)}"
        yield from outside
    if [one.text for one in before if one not in gone] != [one.text for one in after if one not in come]:
        yield f"  the order of rules changes, {escaped(path)}"
    elif not (gone or come or outside):
        yield f"  only blank lines change, {escaped(path)}"


def _more(these: list[Statement], those: list[Statement]) -> list[Statement]:
    """The rules of `these` that are not, or not as often, among `those`."""
    left = Counter(one.text for one in those)
    found = []
    for one in these:
        if left[one.text]:
            left[one.text] -= 1
        else:
            found.append(one)
    return found


def _whole(path: str, old: str, new: str) -> Iterator[str]:
    yield f"  {escaped(path)}"
    outside = list(_lines_that_differ(_LINE_END.split(old) if old else [], _LINE_END.split(new) if new else []))
    yield from outside or [f"{_TAB}only the ends of lines change"]


def _lines_that_differ(old: list[str], new: list[str]) -> Iterator[str]:
    if max(len(old), len(new)) > _MOST_LINES:
        # Comparing takes the square of the lines: a hub could keep whoever signs waiting.
        if old != new:
            yield from (*_marked("+", new), *_marked("-", old))
        return
    for tag, start, end, begins, ends in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            yield from (*_marked("+", new[begins:ends]), *_marked("-", old[start:end]))


def _marked(mark: str, lines: list[str]) -> Iterator[str]:
    return (f"{_TAB}{mark} {escaped(line.replace(chr(9), _TAB))}" for line in lines)
