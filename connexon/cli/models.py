"""Models: the list, and of one its card, recipe, files and predictions."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from connexon.cli import completing
from connexon.cli.joining import JsonOption
from connexon.console import ERR, OUT, new_app, print_json
from connexon.spreadsheet import inert

if TYPE_CHECKING:
    from connexon.client.training.model import Model
    from connexon.client.training.requests import ModelSummary

app = new_app("model", "One model: its card, its recipe, its files, and what it predicts.")
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME/VERSION",
        help="For example niche-score/3, or a folder that export wrote.",
        autocompletion=completing.models,
    ),
]


def models(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="At most this many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your models, newest first, with what came to be known of them since."""
    from connexon.client.connecting import connect

    with connect() as network:
        found = network.models(limit)
        completing.learn_models(network.home, [one.id for one in found])
    if as_json:
        print_json({"schema": "connexon.models/1", "models": [_summary_json(one) for one in found]})
        return
    for one in found:
        _print_summary(one)
    if not found:
        ERR.print("You have no model yet. Begin with:  connexon train --example > recipe.yaml", markup=False)


@app.command()
def show(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show a model's card: what it predicts, how good it is, of whose data, at what cost of privacy."""
    found = _model(model)
    if as_json:
        print_json(found.to_json())
    elif OUT.is_terminal:
        OUT.print(found)
    else:
        sys.stdout.write(found.card())


@app.command()
def recipe(model: ModelArgument) -> None:
    """Print the recipe a model was trained with, to change it and train again."""
    sys.stdout.write(_model(model).recipe_text())


@app.command()
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Write a model as files: safetensors (trees as XGBoost's JSON), the signed statement and the card."""
    found = _model(model)
    folder = found.save(out)
    names = sorted(path.name for path in folder.iterdir())
    if as_json:
        print_json({"schema": "connexon.export/1", "model": found.id, "folder": str(folder), "files": names})
        return
    OUT.print(f"{found.id} is in {folder}: {', '.join(names)}", markup=False, soft_wrap=True)


@app.command()
def predict(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="Rows as CSV or Parquet, with the columns that the card names.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write CSV to this file instead of printing it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict on this machine: nothing of the file leaves it.

    The result has the file's other columns, such as an id, and what was predicted: of classes the likeliest one and
    the probability of each.
    """
    found = _model(model)
    for flag in found.flags:
        ERR.print(f"{flag.code} ({flag.center}): {flag.message}", markup=False, soft_wrap=True, style="yellow")
    columns = _read(file)
    from connexon.client.training.prediction import ColumnMissing, RowsUnfit

    try:
        result = {**_others(found, columns), **_predicted(found, columns)}
    except ColumnMissing as error:
        raise RowsUnfit(f"{error.lacks}; see them with  connexon model show {model}") from error
    if as_json:
        rows = [dict(zip(result, row, strict=True)) for row in zip(*result.values(), strict=True)]
        print_json({"schema": "connexon.predictions/1", "model": found.id, "rows": rows})
        return
    if out is None:
        _write(sys.stdout, result)
        return
    with out.open("w", newline="", encoding="utf-8") as opened:
        _write(opened, result)
    OUT.print(f"{len(next(iter(result.values())))} rows predicted by {found.id} in {out}", markup=False, soft_wrap=True)


def _model(name: str) -> Model:
    """From the hub, or from a folder."""
    from connexon.client.training.model import STATEMENT_FILE, load_model

    if (Path(name).expanduser() / STATEMENT_FILE).exists():
        return load_model(name)
    from connexon.client.connecting import connect

    with connect() as network:
        return network.model(name)


def _read(file: Path) -> dict[str, Sequence[Any]]:
    from connexon.errors import InvalidQuery

    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(file)
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            names = list(reader.fieldnames or ())
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidQuery(f"{file} cannot be read as CSV or Parquet.", code="file.unreadable") from error
    if not names or len(set(names)) != len(names) or any(None in row or None in row.values() for row in rows):
        raise InvalidQuery(
            f"{file} is not a table: a line of names, each once, then as many values in every line.",
            code="file.unreadable",
        )
    return {name: [row[name] for row in rows] for name in names}


def _read_parquet(file: Path) -> dict[str, Sequence[Any]]:
    from connexon.errors import Misconfigured

    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise Misconfigured(
            "Parquet needs pyarrow: install it with  pip install pyarrow  or give CSV.", code="extra.missing"
        ) from error
    columns: dict[str, Sequence[Any]] = parquet.read_table(file).to_pydict()
    return columns


def _others(model: Model, columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The columns that nothing is predicted from."""
    from connexon.client.training.prediction import used_names

    used = used_names(model.preprocessing, model.recipe)
    return {name: values for name, values in columns.items() if name not in used}


def _predicted(model: Model, columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    found = model.predict(columns)
    if not model.classes:
        return {"predicted": [float(value) for value in found]}
    chances = [[1 - float(one), float(one)] if found.ndim == 1 else [float(value) for value in one] for one in found]
    likeliest = [model.classes[max(range(len(row)), key=row.__getitem__)] for row in chances]
    named = {f"probability_{name}": [row[place] for row in chances] for place, name in enumerate(model.classes)}
    return {"predicted": likeliest, **named}


def _write(file: TextIO, columns: Mapping[str, Sequence[Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(inert, columns))
    writer.writerows(map(inert, row) for row in _rows(columns))


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    yield from zip(*columns.values(), strict=True)


def _print_summary(one: ModelSummary) -> None:
    from connexon.client.training.run_display import METRICS, number_text
    from connexon.clock import to_text

    told = "  ".join(f"{name} {number_text(one.metrics[name])}" for name in METRICS if name in one.metrics)
    OUT.print(f"{one.id}  {told}", markup=False, soft_wrap=True)
    OUT.print(f"  {to_text(one.created_at_ms)} · {one.rounds} rounds · {', '.join(one.centers)}", markup=False)
    for flag in one.flags:
        OUT.print(f"  {flag.code} ({flag.center}): {flag.message}", markup=False, style="yellow")


def _summary_json(one: ModelSummary) -> dict[str, Any]:
    from connexon.client.answer import moment

    return {
        "id": one.id,
        "query_id": one.query_id,
        "created_at": moment(one.created_at_ms),
        "rounds": one.rounds,
        "centers": list(one.centers),
        "metrics": dict(one.metrics),
        "size": one.size,
        "flags": [
            {"code": flag.code, "message": flag.message, "center": flag.center, "at": moment(flag.at_ms)}
            for flag in one.flags
        ],
    }
