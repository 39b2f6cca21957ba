"""The researchers' side of training: how a run stands, and the models that came of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc

from connexon.errors import NotFound
from connexon.link.frames import CHUNK_SIZE, MAXIMUM_FRAME
from connexon.v1 import answer_pb2, models_pb2, models_pb2_grpc
from connexon_hub.assembly import Hub
from connexon_hub.membership import callers
from connexon_hub.membership.callers import Caller
from connexon_hub.routing.run_rows import LIVE
from connexon_hub.routing.stream_quota import taken_in_time
from connexon_hub.training.store import StoredRun

_LIST_DEFAULT, _LIST_MOST = 50, 500
_MESSAGE_ROOM = MAXIMUM_FRAME - 64 * 1024

FollowContext = grpc.aio.ServicerContext[models_pb2.FollowRunRequest, models_pb2.FollowRunResponse]
ListContext = grpc.aio.ServicerContext[models_pb2.ListModelsRequest, models_pb2.ListModelsResponse]
GetContext = grpc.aio.ServicerContext[models_pb2.GetModelRequest, models_pb2.GetModelResponse]


class ModelsService(models_pb2_grpc.ModelsServicer):
    """Serves researchers; every call proves its caller, who sees what is their own."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def FollowRun(  # type: ignore[override]  # noqa: N802  # a coroutine with its context, as grpc.aio offers
        self, request: models_pb2.FollowRunRequest, context: FollowContext
    ) -> None:
        """How a run stands, and then at every change until it has ended."""
        caller = callers.caller()
        runs, told = self._hub.runs, 0
        with self._hub.lines.hold(caller.id), runs.watching(request.query_id) as changed:
            while True:
                changed.clear()
                run = await asyncio.to_thread(runs.store.find, request.query_id)
                if run is None or run.researcher_id != caller.id:
                    raise NotFound("You have begun no run of that id.", code="run.not_found")
                reports = await asyncio.to_thread(runs.store.rounds, request.query_id, after=told)
                self._hub.under_way.require_caller(caller.credential)
                for status in self._statuses(run, reports):
                    async with taken_in_time():
                        await context.write(models_pb2.FollowRunResponse(status=status))
                told = reports[-1].round if reports else told
                if not request.wait or run.state not in LIVE:
                    return
                await changed.wait()

    async def ListModels(  # noqa: N802  # gRPC names it
        self, request: models_pb2.ListModelsRequest, context: ListContext
    ) -> models_pb2.ListModelsResponse:
        """The caller's models, newest first, as many as fit one message."""
        caller = callers.caller()
        limit = min(request.limit or _LIST_DEFAULT, _LIST_MOST)
        return listed(await asyncio.to_thread(self._hub.runs.models.models, caller.id, limit))

    async def GetModel(  # type: ignore[override]  # noqa: N802  # a coroutine with its context, as grpc.aio offers
        self, request: models_pb2.GetModelRequest, context: GetContext
    ) -> None:
        """One model in pieces: what it is, then its arrays."""
        caller = callers.caller()
        with self._hub.lines.hold(caller.id):
            await self._send(request, caller, context)

    async def _send(self, request: models_pb2.GetModelRequest, caller: Caller, context: GetContext) -> None:
        runs = self._hub.runs
        query_id, signed = await asyncio.to_thread(runs.models.model, caller.id, request.model_id)
        body = signed.SerializeToString()
        for start in range(0, len(body), CHUNK_SIZE):
            async with taken_in_time():
                await context.write(models_pb2.GetModelResponse(model=body[start : start + CHUNK_SIZE]))
        if request.arrays:
            pieces = _pieces(runs.files.model(query_id))
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                async with taken_in_time():
                    await context.write(models_pb2.GetModelResponse(data=piece))

    def _statuses(self, run: StoredRun, reports: list[models_pb2.RoundReport]) -> Iterator[models_pb2.RunStatus]:
        """One message, or several where the reports are too many for one."""
        waiting = list(reports)
        while True:
            status, room = self._status(run), _MESSAGE_ROOM
            while waiting and (size := waiting[0].ByteSize() + 16) <= room:
                room -= size
                status.reports.append(waiting.pop(0))
            yield status
            if not waiting:
                return

    def _status(self, run: StoredRun) -> models_pb2.RunStatus:
        status = models_pb2.RunStatus(
            query_id=run.query_id,
            state=run.state,
            rounds=run.rounds,
            round=self._hub.runs.round_of(run.query_id),
            model_id=run.model_id,
            started_at_ms=run.started_ms or 0,
            ended_at_ms=run.ended_ms or 0,
        )
        if run.code:
            status.reason.CopyFrom(answer_pb2.Reason(code=run.code, message=run.message))
        return status


def listed(summaries: Iterable[models_pb2.ModelSummary]) -> models_pb2.ListModelsResponse:
    """As many as fit one message, then as many of their flags; GetModel has the others.

    In this order: what centers say of one model must not keep another from the list.
    """
    response, room = models_pb2.ListModelsResponse(), _MESSAGE_ROOM
    flagged = []
    for summary in summaries:
        flags = list(summary.flags)
        del summary.flags[:]
        size = summary.ByteSize() + 16
        if size > room:
            break
        room -= size
        response.models.append(summary)
        flagged.append(flags)
    for summary, flags in zip(response.models, flagged, strict=True):
        for flag in flags:
            room -= flag.ByteSize() + 16
            if room < 0:
                return response
            summary.flags.append(flag)
    return response


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK_SIZE):
            yield piece
