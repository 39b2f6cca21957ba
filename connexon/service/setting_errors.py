"""What is wrong with a setting, in the words of whoever writes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from connexon.suggest import nearest

_KINDS = {
    "int": "a whole number, without quotes",
    "float": "a number, without quotes",
    "bool": "true or false, without quotes",
    "string": "text in quotes",
    "model": "a section, whose settings stand below its name in brackets",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def in_words(error: ValueError, settings: type[BaseModel]) -> str:
    """The first problem, as a sentence without its end that names the setting and what it must be."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    place = tuple(str(part) for part in problem["loc"])
    name, kind, context = ".".join(place), problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        near = nearest(place[-1], _known(settings, place[:-1]))
        return f"there is no setting {name}" + (f"; did you mean {near}?" if near else "")
    if kind == "missing":
        return f"{name} is missing"
    if kind == "value_error":
        said = str(context.get("error", problem["msg"]))
        return f"{name}: {said}" if name else said
    wanted = _wanted(kind, context, settings, place)
    given = "" if isinstance(problem["input"], dict | list) else f", not {str(problem['input'])[:60]!r}"
    return f"{name} must be {wanted}{given}" if wanted else f"{name}: {problem['msg']}"


def _wanted(kind: str, context: dict[str, Any], settings: type[BaseModel], place: tuple[str, ...]) -> str:
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{words} {context[bound]:g}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        section = _section(settings, place[:-1])
        field = section.model_fields.get(place[-1]) if section else None
        example = f"such as {field.default!r}" if field and field.default and isinstance(field.default, str) else ""
        return f"written {example}" if example else f"{field.description}" if field and field.description else ""
    return _KINDS.get(kind.partition("_")[0], "")


def _known(settings: type[BaseModel], place: tuple[str, ...]) -> list[str]:
    section = _section(settings, place)
    return list(section.model_fields) if section else []


def _section(settings: type[BaseModel], place: tuple[str, ...]) -> type[BaseModel] | None:
    for name in place:
        field = settings.model_fields.get(name)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return None
        settings = field.annotation
    return settings
