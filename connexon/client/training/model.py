"""A trained model on the researcher's side: what it is, what it predicts, and as files that others can read."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connexon.client import center_answer
from connexon.client.answer import moment
from connexon.client.training import model_files, model_proof
from connexon.client.training.model_proof import ModelRefused, Proved
from connexon.client.training.requests import ModelFlag, flags_from
from connexon.client.training.run import Round, metrics_from, round_json, rounds_from
from connexon.clock import writable
from connexon.errors import Misconfigured
from connexon.identity.keys import CenterId
from connexon.learning.recipe import BoostedTrees, Recipe
from connexon.query import purpose as purposes
from connexon.query.question import Purpose
from connexon.query.recipes.file import RecipeFile
from connexon.safe_text import plain
from connexon.v1 import models_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console, ConsoleOptions, RenderResult

    from connexon.client.home import Home
    from connexon.learning.preprocessing import Preprocessing

SCHEMA = "connexon.model/1"
ARRAYS_FILE, TREES_FILE = "model.safetensors", "model.json"
STATEMENT_FILE, CARD_FILE = "statement.connexon", "card.md"


@dataclass(frozen=True)
class ModelPart:
    """One center's part, as it signed it; `donors` is None where too few to say."""

    center: CenterId
    donors: int | None
    rounds: int
    provenance: center_answer.Provenance


@dataclass(frozen=True)
class PrivacySpent:
    """What of privacy the whole training cost at each center, per donor; `rho` is what its account was charged."""

    epsilon: float
    delta: float
    rho: float
    clip: float


class Model:
    """A model and where it comes from. network.model(id) and connexon.load_model(folder) give one.

    `proved` says that all signatures were checked against the roster; only a loaded file can be without.
    """

    def __init__(self, proved: Proved, data: bytes) -> None:
        self._proved, self._data = proved, data
        self._statement = proved.statement

    @property
    def id(self) -> str:
        """Name and version, for example niche-score/3."""
        return self._statement.model_id

    @property
    def query_id(self) -> str:
        """Of the run it came of."""
        return self._statement.query_id

    @property
    def researcher(self) -> str:
        """Who asked for it."""
        return plain(self._statement.researcher_id)

    @property
    def created_at_ms(self) -> int:
        """When it was written into the registry."""
        return writable(self._statement.created_at_ms)

    @property
    def proved(self) -> bool:
        """Whether every signature was checked."""
        return self._proved.believed

    @property
    def signed(self) -> models_pb2.SignedModel:
        """The statement and all signatures, as they came."""
        return self._proved.signed

    @property
    def recipe(self) -> Recipe:
        """What it was trained on and how."""
        return self._proved.recipe

    @property
    def recipe_file(self) -> RecipeFile:
        """The recipe with its rows, centers and purpose, to train again: network.train(model.recipe_file)."""
        question = self._proved.question
        return RecipeFile(
            recipe=self.recipe,
            dataset=question.dataset,
            filter=question.filter,
            centers=question.centers,
            purpose=_purpose_text(question.purpose),
            project=question.purpose.project,
            ethics_approval=question.purpose.ethics_approval,
            commercial=question.purpose.commercial_use,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none where a number is predicted."""
        return tuple(one.name for one in self.recipe.target.classes)

    @property
    def columns(self) -> tuple[str, ...]:
        """What `predict` wants, by name."""
        return tuple(column.name for column in self.preprocessing.columns)

    @property
    def parts(self) -> tuple[ModelPart, ...]:
        """The centers whose rows are in it."""
        return tuple(
            ModelPart(
                center=CenterId(part.center_id),
                donors=part.donors if part.HasField("donors") else None,
                rounds=part.rounds,
                provenance=center_answer.provenance_from(part.provenance),
            )
            for part in sorted(self._statement.parts, key=lambda part: part.center_id)
        )

    @property
    def rounds(self) -> tuple[Round, ...]:
        """How it became."""
        return rounds_from(self._statement.rounds)

    @property
    def metrics(self) -> dict[str, float]:
        """The federation's metrics of the last evaluation."""
        return metrics_from(self._statement.metrics)

    @property
    def held_out(self) -> dict[str, dict[str, float]]:
        """Metrics at each center that never trained."""
        return {plain(center): metrics_from(one.metrics) for center, one in sorted(self._statement.held_out.items())}

    @property
    def privacy(self) -> PrivacySpent | None:
        """What of privacy was spent; None where updates were exact."""
        if not self._statement.HasField("privacy"):
            return None
        spent = self._statement.privacy
        return PrivacySpent(spent.epsilon, spent.delta, spent.rho, spent.clip)

    @property
    def software(self) -> tuple[str, ...]:
        """What made it."""
        return tuple(plain(one) for one in self._statement.software)

    @property
    def flags(self) -> tuple[ModelFlag, ...]:
        """What came to be known of it since it was made."""
        return flags_from(self.signed.flags)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How rows become inputs. Raises Misconfigured where numpy is not installed."""
        _learning()
        from connexon.learning.preprocessing import Preprocessing

        return Preprocessing.from_json(self._statement.preprocessing)

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The model's numbers by name. Raises Refused, and Misconfigured where numpy is not installed."""
        _learning()
        from connexon.learning import forest, plain_records

        if isinstance(self.recipe.model, BoostedTrees):
            inputs, depth = self.preprocessing.width, self.recipe.model.depth
            forest.require_sound(self._data, inputs=inputs, depth=depth, classifies=self.recipe.classifies)
        return plain_records.arrays_from(self._statement.records_header, self._data)

    def predict(self, data: Any) -> NDArray[Any]:
        """Predict on this machine: of each row the number, the second class's probability, or all probabilities.

        `data` is a pandas or polars frame, an Arrow table, or a mapping, with `columns` by their names; of a feature
        set's columns also by the key alone, and of one with log2 as it was measured. What is missing is None or NaN.
        Raises InvalidQuery where a column is not there or holds something else.
        """
        from connexon.client.training.prediction import encoded
        from connexon.learning import models

        inputs = encoded(self.preprocessing, self.recipe, data)
        found: NDArray[Any] = models.predict(self.recipe, self.arrays, inputs)
        return found

    def card(self) -> str:
        """What it is, for people, in Markdown."""
        from connexon.client.training.model_card import card

        return card(self)

    def save(self, folder: Path | str) -> Path:
        """Write model.safetensors, or model.json of XGBoost, with the signed statement and the card beside it.

        Raises Misconfigured where something is there already, or safetensors is not installed.
        """
        path = Path(folder).expanduser()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise Misconfigured(f"{path} is there already; name a new folder.", code="model.exists")
        path.mkdir(parents=True, exist_ok=True)
        if isinstance(self.recipe.model, BoostedTrees):
            (path / TREES_FILE).write_bytes(self._data)
        else:
            safetensors = _installed("safetensors.numpy")
            safetensors.save_file(self.arrays, path / ARRAYS_FILE, metadata={"connexon": self.id})
        (path / STATEMENT_FILE).write_bytes(self.signed.SerializeToString())
        (path / CARD_FILE).write_text(self.card(), encoding="utf-8")
        return path

    def to_json(self) -> dict[str, Any]:
        """The whole of it but its numbers, as a document of the shape connexon.model/1; see docs/json.md."""
        statement = self._statement
        return {
            "schema": SCHEMA,
            "id": self.id,
            "federation": plain(statement.federation),
            "researcher": self.researcher,
            "query_id": self.query_id,
            "query_sha256": statement.query_sha256.hex(),
            "created_at": moment(self.created_at_ms),
            "proved": self.proved,
            "target": self.recipe.target.field,
            "classes": list(self.classes),
            "columns": [
                {"name": one.name, "kind": one.kind, "categories": list(one.categories)}
                for one in self.preprocessing.columns
            ],
            "metrics": self.metrics,
            "held_out": self.held_out,
            "rounds": [round_json(one) for one in self.rounds],
            "parts": [
                {
                    "center": part.center,
                    "donors": part.donors,
                    "rounds": part.rounds,
                    "provenance": center_answer.provenance_json(part.provenance),
                }
                for part in self.parts
            ],
            "privacy": None if self.privacy is None else asdict(self.privacy),
            "flags": [
                {"code": one.code, "message": one.message, "center": one.center, "at": moment(one.at_ms)}
                for one in self.flags
            ],
            "software": list(self.software),
            "arrays_sha256": statement.arrays_sha256.hex(),
            "size": statement.arrays_size,
            "recipe": self.recipe_text(),
        }

    def recipe_text(self) -> str:
        """The recipe as YAML, to change and train again."""
        from connexon.query.recipes.text import to_text

        return to_text(self.recipe_file)

    def __repr__(self) -> str:
        return f"<Model {self.id} of {len(self._statement.parts)} centers>"

    def __str__(self) -> str:
        return self.card()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.markdown import Markdown

        yield Markdown(self.card(), hyperlinks=False)

    def _repr_markdown_(self) -> str:
        return self.card()


def load_model(folder: Path | str, *, home: Home | None = None) -> Model:
    """Read what Model.save wrote. Its numbers must be those of the statement.

    With a roster kept in `home` (the researcher's own folder by default) every signature is checked; without one, or
    with that of another federation, the model's `proved` is false. Raises ModelRefused, and Misconfigured where the
    folder holds no model.
    """
    path = Path(folder).expanduser()
    statement = model_files.statement(path / STATEMENT_FILE)
    signed = model_proof.read(statement)
    found = model_proof.opened(signed)
    data = _data(path, found)
    model_proof.require_arrays(found.statement, len(data), hashlib.sha256(data).digest())
    roster = _roster(home)
    if roster is not None and roster.federation == found.statement.federation:
        found = model_proof.verify(signed, roster)
    return Model(found, data)


def _purpose_text(purpose: Purpose) -> str:
    disease = purpose.disease if purposes.DISEASE in purpose.research else ""
    return purposes.describe(replace(purpose, disease=disease, commercial_use=False))


def _data(path: Path, found: Proved) -> bytes:
    """The values as the statement's digest is of them."""
    statement = found.statement
    if isinstance(found.recipe.model, BoostedTrees):
        return model_files.trees(path / TREES_FILE, statement.arrays_size)
    _learning()
    from connexon.learning import plain_records

    safetensors = _installed("safetensors")
    model_files.require_safetensors(path / ARRAYS_FILE, statement.records_header, statement.arrays_size)
    try:
        arrays = _installed("safetensors.numpy").load_file(path / ARRAYS_FILE)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelRefused(f"The model in {path} is not whole.", code="model.bad_arrays") from error
    return plain_records.data_of(statement.records_header, arrays)


def _roster(home: Home | None) -> Any:
    from connexon.client.home import Home

    folder = home or Home()
    login = folder.present_login()
    return None if login is None else folder.roster(login)


def _learning() -> None:
    _installed("numpy")


def _installed(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"Models need {module.partition('.')[0]}, which is not installed: install it with  "
            "pip install 'connexon[learn]'",
            code="extra.missing",
        ) from error
