"""A model's card: what it is for, how good it is, of whose data, and what is not known, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from connexon.clock import to_text as time_text
from connexon.conditions.where_text import to_text as condition_text
from connexon.learning.recipe import KINDS
from connexon.safe_text import plain

if TYPE_CHECKING:
    from connexon.client.training.model import Model

_SPECIAL = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>|#"})
SHOWN_COLUMNS = 40


def card(model: Model) -> str:
    """The whole card."""
    return "\n".join(_lines(model)).rstrip() + "\n"


def _lines(model: Model) -> Iterator[str]:
    yield f"# {_escaped(model.id)}"
    yield ""
    yield from _flags(model)
    yield from _what(model)
    yield from _quality(model)
    yield from _centers(model)
    yield from _privacy(model)
    yield from _inputs(model)
    yield from _origin(model)
    yield "## Recipe"
    yield ""
    yield "```yaml"
    yield model.recipe_text().rstrip()
    yield "```"


def _flags(model: Model) -> Iterator[str]:
    if not model.proved:
        yield "> **Not proved.** No roster of its federation was at hand to check the signatures with."
        yield ""
    for flag in model.flags:
        where = f"{_escaped(flag.center)}, {time_text(flag.at_ms)}"
        yield f"> **{_escaped(flag.code)}** ({where}): {_escaped(flag.message)} It can be trained again."
        yield ""


def _what(model: Model) -> Iterator[str]:
    recipe, question = model.recipe, model.recipe_file
    predicts = f"Predicts `{recipe.target.field}`"
    if model.classes:
        predicts += f" as {' or '.join(_escaped(name) for name in model.classes)}"
    rows = f"`{question.dataset}`"
    if question.filter is not None:
        rows += f" where `{_code(condition_text(question.filter))}`"
    commercial = " (commercial)" if question.commercial else ""
    yield (
        f"{predicts} of {rows}. A {KINDS[type(recipe.model)].replace('_', ' ')} model, trained over "
        f"{_plural(len(model.parts), 'center')} in {_plural(len(model.rounds), 'round')} with {recipe.strategy.name}; "
        f"no row left its center. Made for the purpose {_escaped(question.purpose)}{commercial}: other uses were not "
        "judged by any donor's consent."
    )
    yield ""


def _quality(model: Model) -> Iterator[str]:
    yield "## How good it is"
    yield ""
    held = model.recipe.held_out
    kept = f"the {held:.0%} of each center's donors that were kept apart" if held else "the rows it was trained on"
    if model.metrics:
        yield f"On {kept}:"
        yield ""
        yield from _table(("metric", "value"), [(name, _number(value)) for name, value in model.metrics.items()])
    else:
        yield f"Not known: {kept} are too few donors for a center to say."
        yield ""
    if "accuracy-low" in model.metrics:
        yield "These have noise: the interval is of 95 %."
        yield ""
    last = model.rounds[-1] if model.rounds else None
    if last is not None and last.spread:
        spreads = "; ".join(f"{name} {_number(low)} to {_number(high)}" for name, (low, high) in last.spread.items())
        yield f"From the least to the greatest center in the last round: {spreads}."
        yield ""
    if "auc" in model.metrics:
        yield "The AUC compares rows of the same center only. Calibration is mean observed less mean predicted."
        yield ""
    if model.metrics and not held:
        yield "Numbers on rows that were trained on say more than new rows will bear out."
        yield ""
    if model.held_out:
        names = sorted({name for metrics in model.held_out.values() for name in metrics})
        yield "At centers that never trained:"
        yield ""
        yield from _table(
            ("center", *names),
            [
                (center, *(_number(metrics[name]) if name in metrics else "–" for name in names))
                for center, metrics in model.held_out.items()
            ],
        )


def _centers(model: Model) -> Iterator[str]:
    yield "## Whose data"
    yield ""
    rows = []
    for part in model.parts:
        data = ", ".join(f"{name} {number}" for name, number in part.provenance.generations.items())
        donors = "not said" if part.donors is None else f"{part.donors:,}"
        rows.append((part.center, donors, str(part.rounds), data, part.provenance.dictionary, part.provenance.policy))
    yield from _table(("center", "donors", "rounds", "generations", "dictionary", "policy"), rows)


def _privacy(model: Model) -> Iterator[str]:
    yield "## Privacy"
    yield ""
    spent = model.privacy
    if spent is None:
        yield "No noise was added in training: each center gave exact updates, which its steward had granted."
    else:
        yield (
            f"Differential privacy of each donor, for all that left a center: updates, metrics and the number of "
            f"donors. ρ = {spent.rho:.4f} was charged to each center's account, which is ε = {spent.epsilon:g} at δ = "
            f"{spent.delta:g}. Each donor's part in an update was clipped at {spent.clip:g}, and each center added the "
            "noise. What is said below of inputs was known beforehand and is not of the data."
        )
    yield ""


def _inputs(model: Model) -> Iterator[str]:
    columns = model.preprocessing.columns
    yield "## Inputs"
    yield ""
    rows = []
    for column in columns[:SHOWN_COLUMNS]:
        match column.kind:
            case "number" if not column.used:
                scale = "not used: no center told its scale"
            case "number":
                scale = f"mean {column.mean:.4g}, standard deviation {column.sd:.4g}"
            case "category":
                scale = f"one of {len(column.categories)}: {', '.join(map(plain, column.categories[:8]))}"
                scale += " …" if len(column.categories) > 8 else ""
            case _:
                scale = "true or false"
        rows.append((column.name, column.kind, scale))
    yield from _table(("column", "kind", "over all centers"), rows)
    if len(columns) > SHOWN_COLUMNS:
        yield f"And {len(columns) - SHOWN_COLUMNS} more. A missing number counts as the mean."
    else:
        yield "A missing number counts as the mean."
    yield ""


def _origin(model: Model) -> Iterator[str]:
    document = model.to_json()
    yield "## Where it comes from"
    yield ""
    yield from _table(
        ("", ""),
        [
            ("asked by", model.researcher),
            ("query", model.query_id),
            ("SHA-256 of the query", document["query_sha256"]),
            ("SHA-256 of the numbers", document["arrays_sha256"]),
            ("made", time_text(model.created_at_ms)),
            ("software", ", ".join(model.software)),
            ("project", model.recipe_file.project or "–"),
            ("ethics approval", model.recipe_file.ethics_approval or "–"),
            ("signatures", "hub, researcher and each center: checked" if model.proved else "not checked"),
        ],
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(_escaped(cell) for cell in row)} |"
    yield ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _escaped(text: str) -> str:
    return plain(text).translate(_SPECIAL)


def _code(text: str) -> str:
    """Within backticks nothing but a backtick is special."""
    return plain(text).replace("`", "'")
