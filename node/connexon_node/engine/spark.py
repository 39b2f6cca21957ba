"""The engine on Spark, for a center that outgrew one machine: the same expressions over the same Parquet.

The node is the application's driver; master and workers must see the node's data folder under the same path. What the
center's spark-defaults.conf says, such as authentication between the processes, holds as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any as Schema
from typing import Any as SparkSession

import ibis
import numpy
import pyarrow
from ibis.backends.sql.datatypes import PySparkType
from ibis.config import Config

from connexon.errors import Misconfigured, Unavailable
from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import Dictionary
from connexon_node.data.generations import Generations
from connexon_node.editions import Editions
from connexon_node.engine.lists import SparkCompiler
from connexon_node.engine.permitted import IS_PERMITTED
from connexon_node.engine.session import OutOfMemory
from connexon_node.engine.sql import SqlEngine
from connexon_node.ontology import Ontologies
from connexon_node.pipeline.values import Work
from connexon_node.settings import EngineSection

LOG = logging.getLogger(__name__)
_MEMORY_SIGNS = ("OutOfMemory", "UNABLE_TO_ACQUIRE_MEMORY", "maxResultSize", "Cannot broadcast", "executor lost")


class _IbisOptions(Config):  # type: ignore[misc]  # ibis brings no types
    """What ibis's compiler asks; its backend, which would set it, needs pandas."""

    treat_nan_as_null: bool = False


class SparkEngine(SqlEngine):
    """Implements pipeline.Engine. Thread-safe; one per process. Connects with the first question."""

    def __init__(
        self,
        generations: Generations,
        ledger: Ledger,
        ontologies: Ontologies,
        dictionary: Dictionary,
        limits: EngineSection,
        editions: Editions,
    ) -> None:
        """Raises Misconfigured where pyspark or Java is missing."""
        require_installed()
        ibis.options.pyspark = _IbisOptions()
        super().__init__(generations, ledger, ontologies, dictionary, limits, editions, SparkCompiler())
        self._lock = threading.Lock()
        self._spark: SparkSession | None = None
        self._offers: dict[str, tuple[Schema, tuple[Path, ...]]] = {}
        self._free: list[_Session] = []

    def close(self) -> None:
        """Leave the master. No query may run any more."""
        with self._lock:
            if self._spark is not None:
                self._spark.stop()
            self._spark = None
            self._free.clear()

    @contextlib.contextmanager
    def session(self, work: Work) -> Iterator[_Session]:
        """A session of its own, whose jobs are one group that is cancelled with the work."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        group = f"query-{uuid.uuid4()}"
        try:
            spark = self._connected()
            context = spark.sparkContext

            def cancel() -> None:
                context.cancelJobGroup(group)

            with self._watch.stopping(cancel, work, self._limits.seconds) as why:
                try:
                    # Of this thread only; the description is what Spark's own pages would show.
                    context.setJobGroup(group, "question", interruptOnCancel=True)
                    with self._taken(spark) as session:
                        yield session
                except (Py4JError, PySparkException):
                    why()
                    raise
                finally:
                    context.setLocalProperty("spark.jobGroup.id", None)
        except (Py4JError, PySparkException) as error:
            if any(sign in str(error) for sign in _MEMORY_SIGNS):
                raise OutOfMemory from error
            LOG.error("Spark could not run a query: %s", type(error).__name__)
            raise Unavailable(
                "The center could not read its data, so there is no answer; try again later.", code="engine.failed"
            ) from error

    @contextlib.contextmanager
    def _taken(self, spark: SparkSession) -> Iterator[_Session]:
        """A session that no other query uses; it keeps its views for the next one, and permits nobody."""
        with self._lock:
            session = self._free.pop() if self._free else None
        if session is None or session.application != spark.sparkContext.applicationId:
            session = _Session(spark.newSession(), spark.sparkContext.applicationId, self._offers)
        yield session
        # Only after a query that went well.
        session.forbid()
        with self._lock:
            self._free.append(session)

    def _connected(self) -> SparkSession:
        with self._lock:
            # A master that was away for long ends the application: begin another.
            if self._spark is not None and _is_over(self._spark):
                self._spark = None
                self._free.clear()
            if self._spark is None:
                self._spark = _open(self._limits)
            return self._spark


@dataclass
class _Session:
    """A Spark session as one query uses it: its views, its variable and its function are its own."""

    spark: SparkSession
    application: str
    known: dict[str, tuple[Schema, tuple[Path, ...]]]
    made: set[str] = field(default_factory=set)
    bits: bytes = b""

    def offers(self, name: str) -> bool:
        return name in self.known

    def offer(self, name: str, schema: Schema, files: Sequence[Path]) -> None:
        self.known[name] = (schema, tuple(files))

    def permit(self, bits: bytes) -> None:
        if bits != self.bits:
            # Spark has no bit string: 64-bit words, in which the first donor is the highest bit as in the string.
            padded = bits + b"\0" * (-len(bits) % 8)
            words = pyarrow.array(numpy.frombuffer(padded, dtype=">i8").astype(numpy.int64))
            given = pyarrow.table({"words": pyarrow.array([words], pyarrow.list_(pyarrow.int64()))})
            self.bits = b""
            self.spark.createDataFrame(given).createOrReplaceTempView("given")
            self.spark.sql("DECLARE OR REPLACE VARIABLE permitted ARRAY<BIGINT>")
            self.spark.sql("SET VAR permitted = (SELECT words FROM given)")
            self.bits = bits
        self.spark.sql(
            f"CREATE OR REPLACE TEMPORARY FUNCTION {IS_PERMITTED}(donor INT) RETURNS BOOLEAN "
            "RETURN getbit(session.permitted[donor div 64], 63 - donor % 64) = 1"
        )

    def forbid(self) -> None:
        """Without the function nothing that asks for it runs, until the next query permits its own donors."""
        self.spark.sql(f"DROP TEMPORARY FUNCTION IF EXISTS {IS_PERMITTED}")

    def fetch(self, sql: str) -> pyarrow.Table:
        for name, (schema, files) in list(self.known.items()):
            if name not in self.made and f"`{name}`" in sql:
                # With the schema given, a column that was not written is missing in every row.
                columns = ", ".join(f"`{column}` {PySparkType.to_string(kind)}" for column, kind in schema.items())
                self.spark.read.schema(columns).parquet(*map(str, files)).createOrReplaceTempView(name)
                self.made.add(name)
        return self.spark.sql(sql).toArrow()


def _is_over(spark: SparkSession) -> bool:
    """Whether the application was ended, by the master or from this process."""
    java_context = spark.sparkContext._jsc
    return java_context is None or bool(java_context.sc().isStopped())


def require_installed() -> None:
    """Raise Misconfigured where pyspark or Java is lacking."""
    if importlib.util.find_spec("pyspark") is None:
        raise Misconfigured(
            "The settings say that questions run on Spark, but pyspark is not installed: "
            "pip install 'connexon[spark]', or set engine.kind to duckdb.",
            code="engine.not_installed",
        )
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise Misconfigured(
            "The settings say that questions run on Spark, which needs Java 17: install it or set JAVA_HOME.",
            code="engine.not_installed",
        )


def _open(limits: EngineSection) -> SparkSession:
    """Join the master as one application, with the limits that Spark itself keeps."""
    import pyspark.sql

    # pyspark's own logger would write the text of a failed query.
    logging.getLogger("SQLQueryContextLogger").disabled = True
    builder = pyspark.sql.SparkSession.builder.master(limits.spark_master).appName("connexon-node")
    megabytes = limits.memory.removesuffix("B").lower()
    for name, value in {
        "spark.cores.max": str(limits.threads),
        "spark.executor.memory": megabytes,
        "spark.driver.memory": megabytes,
        "spark.driver.maxResultSize": megabytes,
        "spark.scheduler.mode": "FAIR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        # INVARIANT: texts in a question are texts. Otherwise ${...} in one would be replaced by a setting.
        "spark.sql.variable.substitute": "false",
        "spark.sql.shuffle.partitions": str(2 * limits.threads),
        # What Spark must put on disk in between is about persons.
        "spark.io.encryption.enabled": "true",
        # Spark's own pages and its history would show the questions.
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.eventLog.enabled": "false",
    }.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark
