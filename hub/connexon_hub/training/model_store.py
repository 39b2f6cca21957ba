"""What is written down of models: the registry and its flags. Methods as in connexon_hub.training.store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, insert, select

from connexon.errors import NotFound
from connexon.identity.keys import CenterId
from connexon.service.database import Database
from connexon.v1 import models_pb2
from connexon_hub.state.tables import MODEL_FLAGS, MODELS, RUNS
from connexon_hub.training.store import FINISHED, Ending, end_run


@dataclass(frozen=True)
class NewModel:
    """A model to be put into the registry, as the run that made it."""

    query_id: str
    researcher_id: str
    name: str
    version: int
    created_ms: int
    signed: bytes
    summary: bytes

    @property
    def model_id(self) -> str:
        """<name>/<version>."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True)
class Flag:
    """What a center said of a run's model afterwards."""

    query_id: str
    center: CenterId
    code: str
    message: str
    at_ms: int
    answer: bytes


class ModelStore:
    """Models in the hub's database. Methods with a connection and a sequence are the writer's steps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_version(self, researcher_id: str, name: str) -> int:
        """The version that the researcher's next model of this name gets."""
        with self._database.reading() as connection:
            return 1 + (
                connection.execute(
                    select(func.max(MODELS.c.version)).where(
                        MODELS.c.researcher_id == researcher_id, MODELS.c.name == name
                    )
                ).scalar()
                or 0
            )

    def models(self, researcher_id: str, limit: int) -> list[models_pb2.ModelSummary]:
        """A researcher's models with their flags, newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(MODELS.c.query_id, MODELS.c.summary)
                .where(MODELS.c.researcher_id == researcher_id)
                .order_by(MODELS.c.created_ms.desc(), MODELS.c.model_id)
                .limit(limit)
            ).all()
            found = []
            for row in rows:
                summary = models_pb2.ModelSummary.FromString(row.summary)
                summary.flags.extend(_flags(connection, row.query_id))
                found.append(summary)
            return found

    def model(self, researcher_id: str, model_id: str) -> tuple[str, models_pb2.SignedModel]:
        """A model with its flags, and the run it came of. Raises NotFound for anybody else's, as for none."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(MODELS.c.query_id, MODELS.c.signed).where(
                    MODELS.c.researcher_id == researcher_id, MODELS.c.model_id == model_id
                )
            ).one_or_none()
            if row is None:
                raise NotFound("You have no model of that name and version.", code="model.not_found")
            signed = models_pb2.SignedModel.FromString(row.signed)
            signed.flags.extend(_flags(connection, row.query_id))
            return row.query_id, signed

    def register(self, connection: Connection, models: Sequence[NewModel]) -> list[None]:
        """Put models into the registry and end their runs; one that is there already stays."""
        for model in models:
            known = connection.execute(select(MODELS.c.model_id).where(MODELS.c.query_id == model.query_id)).scalar()
            if known is None:
                connection.execute(
                    insert(MODELS),
                    {
                        "researcher_id": model.researcher_id,
                        "model_id": model.model_id,
                        "query_id": model.query_id,
                        "name": model.name,
                        "version": model.version,
                        "created_ms": model.created_ms,
                        "signed": model.signed,
                        "summary": model.summary,
                    },
                )
            end_run(
                connection,
                Ending(model.query_id, FINISHED, model.created_ms, model_id=known or model.model_id),
            )
        return [None] * len(models)

    def flag(self, connection: Connection, flags: Sequence[Flag]) -> list[bool]:
        """Keep what centers say of models afterwards; False for what is kept already or about no run."""
        outcomes = []
        for one in flags:
            place = and_(
                MODEL_FLAGS.c.query_id == one.query_id,
                MODEL_FLAGS.c.center_id == one.center,
                MODEL_FLAGS.c.code == one.code,
            )
            run = connection.execute(select(RUNS.c.query_id).where(RUNS.c.query_id == one.query_id)).scalar()
            fresh = run is not None and connection.execute(select(MODEL_FLAGS.c.code).where(place)).scalar() is None
            if fresh:
                connection.execute(
                    insert(MODEL_FLAGS),
                    {
                        "query_id": one.query_id,
                        "center_id": one.center,
                        "code": one.code,
                        "message": one.message,
                        "at_ms": one.at_ms,
                        "answer": one.answer,
                    },
                )
            outcomes.append(fresh)
        return outcomes


def _flags(connection: Connection, query_id: str) -> list[models_pb2.ModelFlag]:
    rows = connection.execute(
        select(MODEL_FLAGS).where(MODEL_FLAGS.c.query_id == query_id).order_by(MODEL_FLAGS.c.at_ms)
    )
    return [
        models_pb2.ModelFlag(code=row.code, message=row.message, center_id=row.center_id, at_ms=row.at_ms)
        for row in rows
    ]
