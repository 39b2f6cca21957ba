"""The work of a run's process: summaries -> one preprocessing -> Flower's strategy over the Grid -> a model."""

from __future__ import annotations

import hashlib
import logging
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.exception import InconsistentMessageReplies

from connexon import __version__
from connexon.clock import now_ms
from connexon.errors import ConnexonError
from connexon.learning import flower, metrics, models, preprocessing, records, wire_recipe
from connexon.learning.preprocessing import Preprocessing, Summary
from connexon.learning.recipe import Recipe, Stopping
from connexon.link import parcel_files
from connexon.v1 import answer_pb2, models_pb2
from connexon.zcdp import rho_of
from connexon_hub.training.grid import HubGrid, Outcome
from connexon_hub.training.reply_values import EVALUATE, SUMMARY, TRAIN
from connexon_hub.training.strategies import strategy_of
from connexon_hub.training.worker_protocol import Ended, Finished, Order, Report, RunEnded

LOG = logging.getLogger("connexon.hub")
AWAY = answer_pb2.Reason(code="run.away", message="The center was not connected when the round began.")


class StopEarly(Exception):  # not an error: the rounds that were asked for are not all needed
    """The metric has not improved for long enough."""


def work(connection: Connection[Any, Any], order: Order) -> None:
    """Work on one run until its model is made or it cannot go on; the hub hears which."""
    flower.identify()
    try:
        with flower.quiet():
            Training(connection, order).run()
    except RunEnded as ended:
        connection.send(Ended(ended.code, ended.public))
    except InconsistentMessageReplies as error:
        connection.send(Ended("run.inconsistent_replies", f"The centers' replies do not fit each other: {error}"))
    except ConnexonError as error:
        connection.send(Ended(error.code, error.public))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        LOG.info("run %s: the hub has gone", order.query_id)
    except Exception:  # the last place where the unforeseen becomes a sentence
        reference = uuid.uuid4().hex[:8]
        LOG.exception("run %s failed, reference %s", order.query_id, reference)
        message = f"The run failed at the hub; its operator finds the cause in the log under {reference}."
        connection.send(Ended("run.failed", message))


@dataclass
class Progress:
    """The rounds so far, and whether they are still worth it."""

    stopping: Stopping | None
    best: float | None = None
    since: int = 0

    def require_worth(self, told: dict[str, float]) -> None:
        """Raise StopEarly where the metric has not improved for as many rounds as the recipe is patient."""
        if self.stopping is None or self.stopping.metric not in told:
            return
        value = told[self.stopping.metric] * (-1 if self.stopping.metric == "loss" else 1)
        if self.best is None or value - self.best > self.stopping.minimum_change:
            self.best, self.since = value, 0
            return
        self.since += 1
        if self.since >= self.stopping.patience:
            raise StopEarly


@dataclass
class Training:
    """One run from beginning to end."""

    connection: Connection[Any, Any]
    order: Order
    arrays: ArrayRecord = field(default_factory=ArrayRecord)
    last: dict[str, float] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    """What every task of rounds brings."""
    silent: list[Outcome] = field(default_factory=list)
    """Centers that are in no round, since they told of no rows that could be used."""

    def __post_init__(self) -> None:
        self.recipe: Recipe = wire_recipe.from_bytes(self.order.recipe)
        self.grid = HubGrid(
            query_id=self.order.query_id,
            recipe=self.recipe,
            folder=self.order.folder,
            connection=self.connection,
            everyone=tuple(sorted({*self.order.centers, *self.order.held_out})),
            training=self.order.centers,
        )
        self.progress = Progress(self.recipe.stopping)

    def run(self) -> None:
        """Train, evaluate where nobody trained, and hand the model over."""
        # Flower's strategies draw from these two.
        random.seed(self.recipe.seed)
        numpy.random.seed(numpy.frombuffer(self.order.noise_seed, dtype=numpy.uint32))
        strategy = strategy_of(self.recipe)
        fitted = self._preprocessing()
        config = self.config = {"preprocessing": fitted.to_json()}
        try:
            strategy.start(
                self.grid,
                self._initial(fitted),
                num_rounds=self.recipe.rounds,
                timeout=self.recipe.round_seconds,
                train_config=ConfigRecord(dict(config)),
                evaluate_config=ConfigRecord(dict(config)),
                evaluate_fn=self._round_is_done,
            )
        except StopEarly:
            LOG.info("run %s stops after round %d", self.order.query_id, self.grid.round)
        held_out = self._held_out(config)
        self.connection.send(Finished(self._statement(fitted, held_out).SerializeToString()))
        self.connection.recv()

    def _preprocessing(self) -> Preprocessing:
        outcomes = self.grid.ask(SUMMARY, RecordDict({"config": ConfigRecord({"server-round": 0})}), self.order.centers)
        summaries = {one.center: Summary.from_records(one.message.content) for one in outcomes if not one.code}
        self.silent = [one for one in outcomes if one.code]
        # Centers whose dictionaries differ cannot train together: most of them decide.
        usual = Counter(one.kinds for one in summaries.values()).most_common(1)
        for one in outcomes:
            if not one.code and summaries[one.center].kinds != usual[0][0]:
                del summaries[one.center]
                reason = "The center holds a column as another kind of value than the others."
                self.silent.append(Outcome(one.center, one.message, "reply.other_kind", reason))
        reasons = "".join(f" {one.center}: {one.reason}" for one in self.silent)
        self.grid.require_enough(len(summaries), "have told of their rows", reasons)
        # Whoever did not tell cannot train either; the others count for no more rows later.
        self.grid.training = tuple(summaries)
        self.grid.examples = {center: summary.examples for center, summary in summaries.items()}
        return preprocessing.fit(self.recipe, list(summaries.values()))

    def _initial(self, fitted: Preprocessing) -> ArrayRecord:
        return ArrayRecord({name: Array(values) for name, values in models.initial_arrays(self.recipe, fitted).items()})

    def _round_is_done(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Flower calls this before the first round and after each."""
        self.arrays = arrays
        if number == 0:
            return None
        trained, evaluated = self.grid.last.pop(TRAIN, []), self.grid.last.pop(EVALUATE, [])
        if self.recipe.privacy is not None and number == self.recipe.rounds:
            evaluated = self._evaluated(arrays)
        told = {str(one.center): _metrics(one) for one in evaluated if not one.code}
        self.last = self._combined(told)
        losses = {str(one.center): _metrics(one) for one in trained if not one.code}
        # A center whose updates have noise keeps the loss of these very rows to itself, and tells 0.
        kept = self.recipe.privacy is not None
        train_loss = None if kept else metrics.combine_evaluations(losses).get("loss")
        shown = dict(self.last) if train_loss is None else {**self.last, "train-loss": train_loss}
        report = models_pb2.RoundReport(round=number, metrics=shown, ended_at_ms=now_ms())
        silent = {one.center: one for one in evaluated if one.code}
        for one in (*trained, *self.silent):
            part = report.parts.add(center_id=one.center, took_part=not one.code, metrics=told.get(one.center, {}))
            why = one if one.code else silent.get(one.center)
            if why is not None:
                part.reason.CopyFrom(answer_pb2.Reason(code=why.code, message=why.reason))
        for center in self.grid.away:
            report.parts.add(center_id=center, reason=AWAY)
        self.connection.send(Report(report.SerializeToString()))
        self.connection.recv()
        self.progress.require_worth(self.last)
        return None

    def _combined(self, told: dict[str, dict[str, float]]) -> dict[str, float]:
        if self.recipe.privacy is not None:
            return metrics.combine_noisy(self.recipe, told)
        return metrics.combine_evaluations(told)

    def _evaluated(self, arrays: ArrayRecord) -> list[Outcome]:
        """What the centers that train say of the model, with noise; asked once."""
        config = ConfigRecord({**self.config, "server-round": self.recipe.rounds})
        outcomes = self.grid.ask(EVALUATE, RecordDict({"arrays": arrays, "config": config}), self.grid.training)
        self.grid.last.pop(EVALUATE, None)
        return outcomes

    def _held_out(self, config: dict[str, str]) -> dict[str, dict[str, float]]:
        """The model's metrics at the centers that never trained, as far as they tell."""
        if not self.order.held_out:
            return {}
        content = RecordDict(
            {"arrays": self.arrays, "config": ConfigRecord({**config, "server-round": self.grid.round})}
        )
        outcomes = self.grid.ask(EVALUATE, content, self.order.held_out)
        return {one.center: self._combined({one.center: _metrics(one)}) for one in outcomes if not one.code}

    def _statement(self, fitted: Preprocessing, held_out: dict[str, dict[str, float]]) -> models_pb2.ModelStatement:
        pieces = records.to_pieces(RecordDict({"arrays": self.arrays}))
        header = bytes(next(pieces))[4:]
        digest, size = hashlib.sha256(), 0

        def counted() -> Any:
            nonlocal size
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                yield piece

        parcel_files.write_plain(self.order.arrays, counted())
        statement = models_pb2.ModelStatement(
            preprocessing=fitted.to_json(),
            records_header=header,
            arrays_sha256=digest.digest(),
            arrays_size=size,
            metrics=self.last,
            software=[f"connexon {__version__}", f"flwr {version('flwr')}"],
        )
        for center, told in held_out.items():
            statement.held_out[center].metrics.update(told)
        if (privacy := self.recipe.privacy) is not None:
            statement.privacy.epsilon, statement.privacy.delta = privacy.epsilon, privacy.delta
            statement.privacy.clip, statement.privacy.rho = privacy.clip, rho_of(privacy.epsilon, privacy.delta)
        return statement


def _metrics(outcome: Outcome) -> dict[str, float]:
    found = outcome.message.content.metric_records["metrics"]
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
