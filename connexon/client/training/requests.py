"""Training over the network: a recipe is asked as a question, its run followed, its model fetched and verified."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connexon.analyses.train import Train
from connexon.client.answer import Answer
from connexon.client.following import PATIENCE_SECONDS
from connexon.client.hub_calls import CALL_SECONDS, HubCalls
from connexon.client.terms import Terms
from connexon.client.training import model_proof
from connexon.client.training.model_proof import MAXIMUM_STATEMENT, ModelRefused, Proved
from connexon.client.training.run import Run, RunState, metrics_from
from connexon.clock import writable
from connexon.errors import InvalidQuery, NotFound, Unavailable
from connexon.query.recipes import file as recipe_file
from connexon.query.recipes.file import RecipeFile
from connexon.safe_text import plain
from connexon.v1 import models_pb2

if TYPE_CHECKING:
    from connexon.client.network import Network
    from connexon.client.training.model import Model

RunProgress = Callable[[Run], None]
AnyRecipe = RecipeFile | Mapping[str, Any] | Path | str
"""A recipe, or the mapping or file that holds one."""
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between two looks at a run that still gathers centers; then the last."""
_REFRESH_SECONDS = 2.0
_MODEL_ID = re.compile(r"[a-z0-9-]{1,64}/[1-9][0-9]{0,8}\Z")


@dataclass(frozen=True)
class ModelFlag:
    """What came to be known of a model after it was made."""

    code: str
    message: str
    center: str
    at_ms: int


@dataclass(frozen=True)
class ModelSummary:
    """One of the researcher's models as the hub lists it; not yet verified."""

    id: str
    query_id: str
    created_at_ms: int
    rounds: int
    centers: tuple[str, ...]
    metrics: Mapping[str, float]
    size: int
    flags: tuple[ModelFlag, ...]


def train(network: Network, calls: HubCalls, recipe: AnyRecipe, terms: Terms, on_progress: RunProgress | None) -> Run:
    """Ask for a run and follow it for as long as `terms` say. Raises Refused or Unavailable."""
    file = file_of(recipe)
    terms = _completed(terms, file)
    run: Run | None = None

    def before(answer: Answer) -> None:
        nonlocal run
        run = run_of(network, calls, answer)
        if on_progress is not None:
            on_progress(run)

    # The question is handed over without waiting: what becomes of it is told by the run.
    asking = replace(terms, wait=0, on_progress=before)
    answer = network.ask(file.dataset, file.filter, Train(file.recipe), asking)
    if run is None or run.enrolment is not answer:
        run = run_of(network, calls, answer)
    follow(network, calls, run, terms.wait, on_progress)
    return run


def price(network: Network, recipe: AnyRecipe, terms: Terms) -> Answer:
    """What a run would cost at each center, in place of the run. Raises Refused or Unavailable."""
    file = file_of(recipe)
    return network.ask(file.dataset, file.filter, Train(file.recipe), _completed(terms, file))


def file_of(recipe: AnyRecipe) -> RecipeFile:
    """The recipe, read where it is a file or mapping. Raises RecipeUnreadable."""
    match recipe:
        case RecipeFile():
            return recipe
        case Mapping():
            return recipe_file.of_mapping(recipe)
        case _:
            return recipe_file.load(Path(recipe))


def _completed(terms: Terms, file: RecipeFile) -> Terms:
    """What the terms leave open, as the recipe says it."""
    return replace(
        terms,
        purpose=terms.purpose if terms.purpose is not None else file.purpose or None,
        project=terms.project if terms.project is not None else file.project or None,
        ethics_approval=terms.ethics_approval or file.ethics_approval,
        commercial=terms.commercial or file.commercial,
        centers=terms.centers if terms.centers is not None else file.centers or None,
    )


def run_of(network: Network, calls: HubCalls, answer: Answer) -> Run:
    """The run behind a question. Raises InvalidQuery where the question asks for none."""
    if not isinstance(answer.question.analysis, Train):
        raise InvalidQuery(
            f"This question asks for no training. Its answer:  connexon result {answer.query_id}", code="run.not_a_run"
        )

    def made(model_id: str) -> Model:
        found = model(network, calls, model_id)
        if found.query_id != answer.query_id:
            raise ModelRefused("The hub shows the model of another run as this one's.", code="model.swapped")
        return found

    return Run(
        answer,
        follow=lambda run, seconds: follow(network, calls, run, seconds, None),
        cancel=lambda: calls.cancel(answer.query_id),
        model=made,
    )


def follow(
    network: Network, calls: HubCalls, run: Run, wait: float | None, on_progress: RunProgress | None = None
) -> None:
    """Take in what becomes of a run until it has ended or for `wait` seconds; 0 looks once.

    Broken connections are taken up again; Unavailable is raised where the hub has said nothing at all in time.
    """
    begun, heard, refreshed = time.monotonic(), False, 0.0
    pauses = iter(_PAUSES)

    def left() -> float | None:
        return None if wait is None else max(0.0, begun + wait - time.monotonic())

    def take(status: models_pb2.RunStatus) -> None:
        nonlocal heard, refreshed
        before = run.state
        run.take(status)
        patience = 0.0 if run.state is RunState.GATHERING else _REFRESH_SECONDS
        overdue = not run.enrolment.settled and time.monotonic() - refreshed > patience
        if run.state is not before or overdue:
            network.refresh(run.enrolment)
            refreshed = time.monotonic()
        heard = True
        if on_progress is not None:
            on_progress(run)

    while not run.over:
        try:
            staying = run.state is RunState.RUNNING and heard and wait != 0
            seconds = left() if staying else CALL_SECONDS
            with calls.follow_run(run.id, wait=staying, seconds=seconds) as statuses:
                for status in statuses:
                    take(status)
        except Unavailable:
            if not heard and time.monotonic() - begun > max(wait or 0.0, PATIENCE_SECONDS):
                raise
        if run.over or (heard and left() == 0):
            return
        pause = next(pauses, _PAUSES[-1])
        time.sleep(pause if wait is None else min(pause, max(left() or 0.0, 0.02)))


def models(calls: HubCalls, limit: int) -> list[ModelSummary]:
    """This researcher's models, newest first."""
    return [
        ModelSummary(
            id=plain(one.model_id),
            query_id=plain(one.query_id),
            created_at_ms=writable(one.created_at_ms),
            rounds=one.rounds,
            centers=tuple(plain(center) for center in one.centers),
            metrics=metrics_from(one.metrics),
            size=one.size,
            flags=flags_from(one.flags),
        )
        for one in calls.list_models(limit)
    ]


def flags_from(wire: Any) -> tuple[ModelFlag, ...]:
    """Flags from their wire form."""
    return tuple(
        ModelFlag(plain(one.code), plain(one.message), plain(one.center_id), writable(one.at_ms)) for one in wire
    )


def model(network: Network, calls: HubCalls, model_id: str) -> Model:
    """A model, nothing of which is believed before it is proved. Raises ModelRefused, NotFound, Unavailable."""
    from connexon.client.training.model import Model

    if not _MODEL_ID.match(model_id):
        raise NotFound(
            f"{model_id[:80]!r} is not the name of a model, such as niche-score/3. Yours:  connexon models",
            code="model.not_found",
        )
    with calls.model(model_id, arrays=True) as pieces:
        proved, data = _received(pieces, lambda signed: _proved(network, model_id, signed))
    return Model(proved, data)


def _proved(network: Network, model_id: str, signed: models_pb2.SignedModel) -> Proved:
    proved = model_proof.verify(signed, network.roster)
    if proved.statement.model_id != model_id:
        raise ModelRefused("The hub sent another model than the one that was asked for.", code="model.swapped")
    asked = network.home.asked(proved.statement.query_id)
    if asked is not None and asked != signed.query.payload:
        raise ModelRefused(
            "The hub shows another question behind this model than the one that was asked here.",
            code="model.other_query",
        )
    return proved


def _received(
    pieces: Iterator[models_pb2.GetModelResponse], prove: Callable[[models_pb2.SignedModel], Proved]
) -> tuple[Proved, bytes]:
    """The statement, proved before a byte of the arrays is kept, and the arrays, held against it."""
    statement, arrays, proved = bytearray(), bytearray(), None
    for piece in pieces:
        if piece.WhichOneof("part") == "model":
            if proved is not None or len(statement) + len(piece.model) > MAXIMUM_STATEMENT:
                raise ModelRefused("The model did not come as a model comes.", code="model.unreadable")
            statement += piece.model
            continue
        proved = proved or prove(model_proof.read(bytes(statement)))
        if len(arrays) + len(piece.data) > proved.statement.arrays_size:
            break
        arrays += piece.data
    proved = proved or prove(model_proof.read(bytes(statement)))
    data = bytes(arrays)
    model_proof.require_arrays(proved.statement, len(data), hashlib.sha256(data).digest())
    return proved, data
