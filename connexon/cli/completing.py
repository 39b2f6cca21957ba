"""What the shell completes, from what this folder knows; never from the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from connexon.client.home import Home

_MODELS = "models.json"


def purposes(incomplete: str) -> list[str]:
    """Purposes, as --purpose takes them."""
    from connexon.query.purpose import WORDS

    return _last_of_several(incomplete, list(WORDS))


def datasets(incomplete: str) -> list[str]:
    """Datasets that a catalog has named."""
    return _starting(incomplete, list(_known()))


def fields(context: typer.Context, incomplete: str) -> list[str]:
    """Fields of the dataset on the line, or of all."""
    known = _known()
    # An option whose value is still to come ends the parsing, and leaves what stands before it as it was typed.
    dataset = context.params.get("dataset") or next((word for word in context.args if word in known), "")
    names = known[dataset] if dataset in known else [name for one in known.values() for name in one]
    return _last_of_several(incomplete, sorted(set(names)))


def centers(incomplete: str) -> list[str]:
    """Centers of the roster kept here."""
    from connexon.client.home import Home
    from connexon.errors import ConnexonError

    home = Home()
    try:
        roster = home.roster(home.login())
    except ConnexonError:
        return []
    return _last_of_several(incomplete, [member.center for member in roster.active_members] if roster else [])


def queries(incomplete: str) -> list[str]:
    """Questions asked from this folder, newest first."""
    from connexon.client.home import Home

    return _starting(incomplete, Home().recent_query_ids())


def models(incomplete: str) -> list[str]:
    """Models that a list has named."""
    from connexon.client.home import Home

    names = Home().read_json(_MODELS).get("models", [])
    return _starting(incomplete, [str(name) for name in names] if isinstance(names, list) else [])


def learn_models(home: Home, names: list[str]) -> None:
    """Keep the names of models, to complete them."""
    if home.read_json(_MODELS).get("models") != names:
        home.write_json(_MODELS, {"models": names})


def _known() -> dict[str, list[str]]:
    from connexon.client.catalog_cache import fields_by_dataset
    from connexon.client.home import Home

    return fields_by_dataset(Home())


def _last_of_several(incomplete: str, names: list[str]) -> list[str]:
    """What may stand after the last comma, with what stands before it."""
    done, comma, last = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in _starting(last, names)]


def _starting(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
