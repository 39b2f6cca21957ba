"""YAML as recipes use it: values by YAML 1.2, no tags, and every mistake shown at its line.

YAML 1.2 because under 1.1, which PyYAML reads by itself, `no` is false and `1e-5` a text: there are genes called NO
and privacy budgets of 1e-5.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from connexon.conditions.filters import Scalar
from connexon.errors import InvalidQuery, Misconfigured
from connexon.safe_text import plain
from connexon.suggest import nearest

if TYPE_CHECKING:
    import yaml

MAXIMUM_CHARACTERS = 1_000_000
_WIDTH = 70
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NOTHING = ("", "~", "null", "Null", "NULL")
_WHOLE = re.compile(r"[-+]?[0-9]{1,20}\Z")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str", "!"}


class RecipeUnreadable(InvalidQuery):
    """A recipe that cannot be read; the sentence shows the line."""

    code = "recipe.unreadable"


@dataclass
class Source:
    """A text and where it comes from; `places` are the parts read so far by their path, for later complaints."""

    name: str
    text: str
    places: dict[str, Place] = field(default_factory=dict)

    def refuse(self, problem: str, line: int, column: int, length: int) -> NoReturn:
        """Raise RecipeUnreadable with the line, counted from 0, and carets under `length` characters of it."""
        lines = self.text.splitlines()
        shown = plain(lines[line][:_WIDTH]) if line < len(lines) else ""
        carets = " " * min(column, len(shown)) + "^" * max(1, min(length, len(shown) - column))
        pointed = f"\n  {shown}\n  {carets}" if shown.strip() else ""
        raise RecipeUnreadable(f"{self.name}, line {line + 1}: {problem}{pointed}")


@dataclass(frozen=True)
class Place:
    """A part of a recipe, with its path from the top, for example model.learning_rate."""

    source: Source
    path: str
    node: yaml.Node

    def refuse(self, problem: str) -> NoReturn:
        """Raise RecipeUnreadable that points here."""
        start, end = self.node.start_mark, self.node.end_mark
        length = end.column - start.column if end.line == start.line else len(self.source.text)
        self.source.refuse(problem, start.line, start.column, length)

    def mapping(self, known: Collection[str], *, required: Iterable[str] = ()) -> dict[str, Place]:
        """Its parts by name. A name that is not known is refused with the nearest one, a missing one by name."""
        parts: dict[str, Place] = {}
        for name, key, part in self._pairs():
            if name not in known:
                meant = nearest(name, known)
                hint = f" Did you mean {meant!r}?" if meant is not None else ""
                key.refuse(f"{name!r} is not known here.{hint} Known: {', '.join(known)}.")
            self.source.places[part.path] = part
            parts[name] = part
        missing = [name for name in required if name not in parts]
        if missing:
            self.refuse(f"{missing[0]!r} is missing{f' in {self.path}' if self.path else ''}.")
        return parts

    def pairs(self) -> list[tuple[str, Place]]:
        """Its parts in order, whatever they are called."""
        return [(name, part) for name, _, part in self._pairs()]

    def items(self) -> list[Place]:
        """The parts of a list."""
        self._untagged()
        if not self._is("SequenceNode"):
            self.refuse("Here a list is expected: [a, b], or one line each with '- ' before it.")
        return [Place(self.source, f"{self.path}[{n}]", one) for n, one in enumerate(self.node.value, start=1)]

    @property
    def is_scalar(self) -> bool:
        """Whether it is a single value."""
        return self._is("ScalarNode")

    @property
    def is_mapping(self) -> bool:
        """Whether it has parts with names."""
        return self._is("MappingNode")

    def text(self) -> str:
        """A text, as it stands: NO and 007 are texts here."""
        text = self._scalar()
        if not text.strip():
            self.refuse("Here a text is expected.")
        return text

    def flag(self) -> bool:
        """True or false."""
        value = self.value()
        if not isinstance(value, bool):
            self.refuse("Here true or false is expected.")
        return value

    def number(self) -> float:
        """A number."""
        value = self.value()
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse("Here a number is expected.")
        return float(value)

    def whole(self) -> int:
        """A whole number that is not negative."""
        value = self.value()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.refuse("Here a whole number is expected.")
        return value

    def value(self) -> Scalar:
        """A value of a field: in quotes a text, else by its look a boolean, number, day or text."""
        value = self.value_or_none()
        if value is None:
            self.refuse("Here a value is expected.")
        return value

    def value_or_none(self) -> Scalar | None:
        """A value of a field, or null."""
        text = self._scalar()
        return text if getattr(self.node, "style", None) else scalar_of(text)

    def _is(self, kind: str) -> bool:
        return isinstance(self.node, getattr(yaml_module(), kind))

    def _scalar(self) -> str:
        self._untagged()
        if not self.is_scalar:
            self.refuse("Here a single value is expected, not a list or parts with names.")
        return str(self.node.value)

    def _untagged(self) -> None:
        if self.node.tag not in _PLAIN_TAGS:
            self.refuse(f"Tags such as {plain(self.node.tag)[:60]} are not used in recipes.")

    def _pairs(self) -> list[tuple[str, Place, Place]]:
        self._untagged()
        if not self.is_mapping:
            self.refuse("Here parts with names are expected, each as 'name: value'.")
        found: list[tuple[str, Place, Place]] = []
        for key_node, node in self.node.value:
            key = Place(self.source, self.path, key_node)
            name = key.text()
            if any(name == before for before, _, _ in found):
                key.refuse(f"{name!r} stands here twice.")
            found.append((name, key, Place(self.source, f"{self.path}.{name}".lstrip("."), node)))
        return found


def read(text: str, name: str) -> Place:
    """The whole of a YAML text. Raises RecipeUnreadable, and Misconfigured where PyYAML is not installed."""
    yaml = yaml_module()
    source = Source(name, text)
    if len(text) > MAXIMUM_CHARACTERS:
        raise RecipeUnreadable(f"{name} has {len(text)} characters; at most {MAXIMUM_CHARACTERS} are allowed.")
    try:
        node = yaml.compose(text, Loader=_without_anchors(yaml, source))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"This is not YAML: {error.problem or error.context}."
        if error.problem and "\\t" in error.problem:
            problem = "A tab stands here; YAML is indented with spaces."
        source.refuse(problem, mark.line if mark else 0, mark.column if mark else 0, 1)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeUnreadable(f"{name} is not YAML.") from error
    if node is None:
        raise RecipeUnreadable(f"{name} is empty. See an example with:  connexon train --example")
    return Place(source, "", node)


def _without_anchors(yaml: Any, source: Source) -> Any:
    """A loader that refuses anchors and aliases: a recipe needs none, and by them a short one can be without end."""

    class Loader(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML is loaded here only
        def compose_node(self, parent: object, index: object) -> object:
            event = self.peek_event()
            if getattr(event, "anchor", None) is not None:
                mark = event.start_mark
                source.refuse("Anchors and aliases (& and *) are not read; write it out.", mark.line, mark.column, 1)
            return super().compose_node(parent, index)

    return Loader


def scalar_of(text: str) -> Scalar | None:
    """What a value without quotes is, by YAML 1.2; None where it is empty."""
    if text in _NOTHING:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if _WHOLE.match(text):
        return int(text)
    if _NUMBER.match(text):
        return float(text)
    if _DAY.match(text):
        try:
            return datetime.date.fromisoformat(text)
        except ValueError:
            return text
    return text


def yaml_module() -> Any:
    """PyYAML. Raises Misconfigured where it is not installed."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise Misconfigured(
            "Recipes are YAML and need pyyaml: install it with  pip install 'connexon[learn]'", code="extra.missing"
        ) from error
    return yaml


def place_of(places: Mapping[str, Place], path: str) -> Place | None:
    """The part at `path`, or the smallest one around it that was read."""
    while path:
        if path in places:
            return places[path]
        path = path.rpartition(".")[0]
    return None
