"""Traces that follow a question from client to hub to node. Ids, counts and durations only; never a row or a key."""

from __future__ import annotations

import importlib
import os

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagate import extract, inject

from connexon.errors import Misconfigured

TRACER = trace.get_tracer("connexon")
HEADER = "traceparent"


def traceparent() -> str:
    """The present span in W3C form, or an empty text outside any."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get(HEADER, "")


def context(header: str) -> Context:
    """The context that a W3C header names; an empty or foreign one gives a fresh context."""
    return extract({HEADER: header} if header else {})


def export_if_configured(service: str) -> None:
    """Send this process's spans where the environment says (OTEL_EXPORTER_OTLP_ENDPOINT); nowhere otherwise.

    Raises Misconfigured where the exporter is wanted and not installed.
    """
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return
    try:
        exporter = importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        batching = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"Traces are to be exported, but {error.name} is not installed: pip install opentelemetry-exporter-otlp",
            code="telemetry.no_exporter",
        ) from error
    provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": service}))
    provider.add_span_processor(batching.BatchSpanProcessor(exporter.OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
