"""The centers' link: who attaches, what each frame means, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc

from connexon import __version__, strict
from connexon.clock import now_ms
from connexon.clock_check import TOLERANCE_MS
from connexon.errors import Conflict, ConnexonError, InvalidQuery, Refused, Unauthenticated, Unavailable
from connexon.identity import certificates
from connexon.identity.revocation import MOST_PER_CENTER
from connexon.identity.roster import Protocol
from connexon.link.frames import LOWEST, MAXIMUM_ANSWER, Assembler, Parcel, ParcelRefused, agree, pieces
from connexon.link.parcel_files import FileAssembler
from connexon.query import signed, wire_question
from connexon.transparency import receipt
from connexon.v1 import answer_pb2, link_pb2, link_pb2_grpc, log_pb2, revocation_pb2, roster_pb2
from connexon_hub.assembly import Hub, ignore_failure
from connexon_hub.health.log_witness import GivenUp, Growth
from connexon_hub.membership import peers
from connexon_hub.membership.peers import Peer
from connexon_hub.routing.retraction import taken_back
from connexon_hub.routing.revocations import believed, frames
from connexon_hub.routing.sessions import Introduction, Session, cannot_write, goodbye
from connexon_hub.routing.store import Kept
from connexon_hub.rpc.membership import issue_link_certificate

LOG = logging.getLogger("connexon.hub")
HELLO_SECONDS = 10.0
PROBE_SECONDS = 5.0
LAST_WORD_SECONDS = 1.0
MAXIMUM_STORING = 64
"""Answers of one center that may be on their way to disk; beyond, the hub reads no more from it."""
MAXIMUM_WORD = 64
"""Characters of each text with which a node introduces itself."""
_REPLY = link_pb2.PARCEL_KIND_REPLY
MAXIMUM_PROOF = 128
"""Hashes in a consistency proof; a log of 2^63 records needs no more."""

AttachContext = grpc.aio.ServicerContext[link_pb2.AttachRequest, link_pb2.AttachResponse]
WitnessContext = grpc.aio.ServicerContext[link_pb2.GetWitnessRequest, link_pb2.GetWitnessResponse]
AnswersContext = grpc.aio.ServicerContext[link_pb2.GetAnswersRequest, link_pb2.GetAnswersResponse]
GiveUpContext = grpc.aio.ServicerContext[link_pb2.GiveUpLogRequest, link_pb2.GiveUpLogResponse]
RenewContext = grpc.aio.ServicerContext[link_pb2.RenewRequest, link_pb2.RenewResponse]


@dataclass
class Arriving:
    """What comes from a center in pieces: answers in memory, replies to tasks on disk."""

    answers: Assembler
    replies: FileAssembler
    unwanted: set[str] = field(default_factory=set)
    """Replies that nobody waits for any more."""
    too_large: bool = False
    """Whether an answer was too large, and the operator has been told."""
    too_many: bool = False
    """Whether more was revoked than is kept of one center, and the operator has been told."""


class LinkService(link_pb2_grpc.LinkServicer):
    """Serves the link port; every peer holds a certificate of the hub's authority."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def Attach(  # type: ignore[override]  # noqa: N802  # a coroutine with its context, as grpc.aio offers
        self, request_iterator: object, context: AttachContext
    ) -> None:
        """One session: admit, introduce, then carry frames until either side ends it."""
        try:
            peer = self._admit(context)
            introduction = await self._introduction(context, peer)
            await self._refuse_twin(peer, introduction)
            # The probe took its time: the center may have been suspended meanwhile.
            self._hub.standing.require_active(peer.identity.center)
        except ConnexonError as error:
            center = _named(context)
            LOG.info("%s refused to attach: %s (%s)", center, error.public, error.code, extra={"party": center})
            await context.write(goodbye(error))
            await _taken(context)
            return
        await self._carry(Session(peer, introduction, context.write, self._hub.bodies), context)

    async def Renew(  # noqa: N802  # gRPC names it
        self, request: link_pb2.RenewRequest, context: RenewContext
    ) -> link_pb2.RenewResponse:
        """A new certificate for the very key behind the present one."""
        peer = self._peer(context)
        self._hub.standing.require_open(peer.identity.center)
        if certificates.public_bytes(certificates.request_key(request.certificate_request)) != peer.key:
            raise Unauthenticated("A certificate is renewed for the same key only.", code="certificate.other_key")
        certificate = await asyncio.to_thread(
            issue_link_certificate, self._hub, request.certificate_request, peer.identity, renews=peer.serial
        )
        center = peer.identity.center
        LOG.info("certificate of %s renewed", center, extra={"party": center})
        return link_pb2.RenewResponse(certificate=certificate)

    async def GetWitness(  # noqa: N802  # gRPC names it
        self, request: link_pb2.GetWitnessRequest, context: WitnessContext
    ) -> link_pb2.GetWitnessResponse:
        """What the hub has witnessed of the caller's own audit log."""
        peer = self._peer(context)
        self._hub.standing.require_open(peer.identity.center)
        center, below = peer.identity.center, min(request.below, 2**63 - 1)
        heads = await asyncio.to_thread(self._hub.witness.page, center, below=below)
        told = await asyncio.to_thread(self._hub.witness.told, center)
        return link_pb2.GetWitnessResponse(heads=heads, told=told)

    async def GetAnswers(  # type: ignore[override]  # noqa: N802  # a coroutine with its context, as grpc.aio offers
        self, request: link_pb2.GetAnswersRequest, context: AnswersContext
    ) -> None:
        """What the hub still has of the caller's answers, for a node that was restored from an older copy."""
        peer = self._peer(context)
        center, after = peer.identity.center, request.after_sequence
        self._hub.standing.require_open(center)
        self._hub.note("recovery.answers_fetched", center=center, detail=f"those after record {after} of its log")
        for query_id in await asyncio.to_thread(self._hub.queries.answered_by, center):
            kept = await asyncio.to_thread(self._hub.queries.answer_of, query_id, center)
            if kept is None or answer_pb2.SignedAnswer.FromString(kept[1]).receipt.sequence <= after:
                continue
            for kind, body in zip((link_pb2.PARCEL_KIND_QUERY, link_pb2.PARCEL_KIND_ANSWER), kept, strict=True):
                for piece in pieces(query_id, kind, body):
                    await context.write(link_pb2.GetAnswersResponse(chunk=piece))

    async def GiveUpLog(  # noqa: N802  # gRPC names it
        self, request: link_pb2.GiveUpLogRequest, context: GiveUpContext
    ) -> link_pb2.GiveUpLogResponse:
        """The caller's log goes on from an earlier state, by its steward's statement; the operator is told."""
        peer = self._peer(context)
        center = peer.identity.center
        self._hub.standing.require_active(center)
        keys = receipt.keys_of(self._hub.standing.roster, center)
        lost, head = (receipt.read_head(one, center=center, keys=keys) for one in (request.lost, request.head))
        if not request.kept <= min(lost.size, head.size):
            raise Refused("A log cannot keep more records than it has.", code="link.bad_frame")
        statement = GivenUp(lost, request.kept, head, request.head, now_ms())
        detail = await self._hub.writer.write(self._hub.witness.give_up, statement)
        self._hub.note("recovery.log_given_up", center=center, detail=detail)
        return link_pb2.GiveUpLogResponse()

    def _peer(self, context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
        """Who calls, by a certificate that counts now. Raises Refused."""
        peer = peers.from_context(context)
        peer.require_current(now_ms())
        self._hub.standing.require_certificate(peer.identity, peer.serial, peer.key)
        return peer

    def _admit(self, context: AttachContext) -> Peer:
        peer = self._peer(context)
        self._hub.standing.require_active(peer.identity.center)
        return peer

    async def _introduction(self, context: AttachContext, peer: Peer) -> Introduction:
        try:
            first = await asyncio.wait_for(context.read(), HELLO_SECONDS)
        except TimeoutError as error:
            raise Refused("The node did not introduce itself.", code="link.no_hello") from error
        # Not strict: a node one minor version newer may say more of itself than is known here.
        if not isinstance(first, link_pb2.AttachRequest) or first.WhichOneof("frame") != "hello":
            raise Refused("The node did not introduce itself.", code="link.no_hello")
        hello = first.hello
        said = (hello.process_id, hello.software_version, hello.dictionary_version, hello.restoring)
        readable = all(len(text) <= MAXIMUM_WORD and text.isprintable() for text in said)
        # Its serial and its words go into the database and onto the operator's terminal.
        if not hello.process_id or not readable or hello.roster_serial >= 2**63:
            raise Refused("The node's introduction cannot be read.", code="link.bad_hello")
        lowest = max(self._hub.standing.roster.lowest_protocol, LOWEST)
        try:
            theirs = Protocol(hello.protocol.major, hello.protocol.minor)
            agreed = agree(theirs, lowest=lowest)
        except ConnexonError as error:
            self._hub.note(error.code, center=peer.identity.center, detail=error.public)
            raise
        return Introduction(
            process_id=hello.process_id,
            protocol=agreed,
            software_version=hello.software_version,
            dictionary_version=hello.dictionary_version,
            roster_serial=hello.roster_serial,
            newer=theirs > agreed,
            restoring=hello.restoring,
            clock_offset_ms=now_ms() - hello.now_ms if 0 < hello.now_ms < 2**53 else None,
        )

    async def _refuse_twin(self, peer: Peer, introduction: Introduction) -> None:
        """Raise Conflict where another process of the same identity is attached and alive."""
        center = peer.identity.center
        while (present := self._hub.sessions.get(center)) is not None:
            if present.introduction.process_id == introduction.process_id or present.ending:
                return
            if await present.lives(PROBE_SECONDS):
                self._hub.note("link.identity_in_use", center=center, detail="a second process came with this identity")
                raise Conflict(f"Another node is attached as {center} already.", code="link.identity_in_use")
            if self._hub.sessions.get(center) is present:
                return

    async def _carry(self, session: Session, context: AttachContext) -> None:
        self._welcome(session, await asyncio.to_thread(self._hub.witness.told, session.center))
        self._hub.sessions.put(session)
        self._compare_clocks(session)
        self._hub.routing.attached(session)
        self._note(session)
        protocol = session.introduction.protocol
        LOG.info("%s attached, protocol %s", session.center, protocol, extra={"party": session.center})
        tasks = [
            asyncio.create_task(session.write_all()),
            asyncio.create_task(self._read_all(session, context)),
            asyncio.create_task(session.gone.wait()),
        ]
        try:
            if session.introduction.restoring:
                detail = f"answers nothing until its steward has recovered it ({session.introduction.restoring})"
                self._hub.note("recovery.restoring", center=session.center, detail=detail)
            else:
                await self._catch_up(session)
            witnessed = await asyncio.to_thread(self._hub.witness.newest, session.center)
            session.tell(link_pb2.AttachResponse(witnessed=witnessed))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if session.ending:
                # Whoever ended it, let the goodbye be said.
                await asyncio.wait({tasks[0], tasks[2]}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._forget(session)
        if session.ending and not session.gone.is_set():
            await _taken(context)

    def _compare_clocks(self, session: Session) -> None:
        offset, clock = session.introduction.clock_offset_ms, self._hub.clock
        if offset is None:
            return
        clock.compare(session.center, now_ms() - offset)
        if abs(offset) > TOLERANCE_MS:
            way = "behind" if offset > 0 else "ahead of"
            others = clock.doubt or "The other centers' clocks agree with the hub's."
            detail = f"its clock is {abs(offset) / 1000:.0f} s {way} the hub's. {others}"
            self._hub.note("clock.differs", center=session.center, detail=detail)

    async def _catch_up(self, session: Session) -> None:
        """Hand out what waits for the center, then say what was taken back: in that order nothing falls between.

        Before all that, what is revoked: no question is worked on in between.
        """
        for frame in frames(await asyncio.to_thread(self._hub.revoked.store.counting, self._hub.clock.sure_ms() or 0)):
            session.tell(frame)
        for query_id in await asyncio.to_thread(self._hub.queries.backlog, session.center, at_ms=now_ms()):
            session.deliver(query_id, again=True)
        for task_id in await self._hub.runs.backlog(session.center):
            session.deliver(task_id)
        session.caught_up()
        for query_id in await asyncio.to_thread(taken_back, self._hub.database, session.center, at_ms=now_ms()):
            session.take_back(query_id)

    def _welcome(self, session: Session, told: log_pb2.SignedTreeHead | None) -> None:
        standing = self._hub.standing
        agreed = session.introduction.protocol
        session.tell(
            link_pb2.AttachResponse(
                welcome=link_pb2.Welcome(
                    protocol=roster_pb2.ProtocolVersion(major=agreed.major, minor=agreed.minor),
                    software_version=__version__,
                    now_ms=now_ms(),
                    told=told,
                )
            )
        )
        if session.introduction.roster_serial < standing.roster.serial:
            session.tell(link_pb2.AttachResponse(roster=standing.signed_roster))
        session.beat()

    def _forget(self, session: Session) -> None:
        session.ended_ms = now_ms()
        if self._hub.sessions.remove(session):
            self._hub.clock.forget(session.center)
            self._hub.routing.detached(session)
            self._note(session)
            LOG.info("%s detached", session.center, extra={"party": session.center})

    def _note(self, session: Session) -> None:
        noted = self._hub.writer.write(self._hub.watching.note_sessions, [session.record()])
        noted.add_done_callback(ignore_failure)

    async def _read_all(self, session: Session, context: AttachContext) -> None:
        arriving = Arriving(
            Assembler(maximum_body=MAXIMUM_ANSWER), FileAssembler(self._hub.runs.files.arriving, _REPLY)
        )
        try:
            while True:
                request: object = await context.read()
                if not isinstance(request, link_pb2.AttachRequest):
                    return
                session.heard()
                try:
                    await self._take(session, arriving, request)
                except ConnexonError as error:
                    self._hub.note(error.code, center=session.center, detail=error.public)
                    session.end(error)
                    return
                await session.room()
        finally:
            arriving.replies.close()

    async def _take(self, session: Session, arriving: Arriving, request: link_pb2.AttachRequest) -> None:
        if not session.introduction.newer:
            try:
                strict.refuse_unknown(request, what="link")
            except InvalidQuery as error:
                raise Refused(error.public, code=error.code) from error
        match request.WhichOneof("frame"):
            case "chunk" if request.chunk.kind == _REPLY:
                await self._reply(session, arriving, request.chunk)
            case "chunk":
                parcel = self._whole(session, arriving, request.chunk)
                if parcel is not None:
                    await self._answer(session, parcel)
            case "stored":
                # That a task is written down is of no consequence: its reply or its deadline decides.
                if request.stored.kind == link_pb2.PARCEL_KIND_QUERY:
                    self._hub.routing.received(session, _query_id(request.stored.query_id))
            case "progress":
                self._hub.routing.progressed(session, request.progress.query_id, request.progress.stage)
            case "heartbeat":
                self._heartbeat(session, request.heartbeat)
            case "log":
                await self._witness(session, request.log)
            case "revocations":
                await self._revoke(session, arriving, request.revocations)
            case None if session.introduction.newer:
                # A frame of a newer minor version: it may be left alone.
                return
            case other:
                raise Refused(f"A frame of kind {other} does not belong here.", code="link.bad_frame")

    async def _witness(self, session: Session, log: log_pb2.LogGrowth) -> None:
        keys = receipt.keys_of(self._hub.standing.roster, session.center)
        head = receipt.read_head(log.head, center=session.center, keys=keys)
        if len(log.proof) > MAXIMUM_PROOF:
            raise Refused("The proof of the log's growth cannot be read.", code="link.bad_frame")
        growth = Growth(head, log.head, log.since, tuple(log.proof), now_ms())
        try:
            judgement = await self._hub.writer.write(self._hub.witness.take, growth)
        except Unavailable:
            # It is sent again with the next heartbeat.
            return
        if judgement.first:
            self._hub.note("audit.inconsistent", center=session.center, detail=judgement.contradiction)
        session.tell(link_pb2.AttachResponse(witnessed=judgement.newest))

    async def _revoke(self, session: Session, arriving: Arriving, said: revocation_pb2.Revocations) -> None:
        if arriving.too_many:
            return
        heard, refused = await asyncio.to_thread(believed, said, self._hub.standing.roster, of=session.center)
        if refused is not None:
            self._hub.note(refused.code, center=session.center, detail=refused.public)
        if not heard:
            return
        try:
            beyond = await asyncio.shield(self._hub.revoked.take(session, heard))
        except Unavailable:
            # The session ends, and the next begins with it.
            return
        if beyond:
            arriving.too_many = True
            detail = f"more than {MOST_PER_CENTER} times in 90 days; what is beyond is left out"
            self._hub.note("revocation.too_many", center=session.center, detail=detail)

    def _heartbeat(self, session: Session, heartbeat: link_pb2.Heartbeat) -> None:
        if heartbeat.answer:
            session.beaten(heartbeat.number)
        else:
            echo = link_pb2.Heartbeat(number=heartbeat.number, answer=True, now_ms=now_ms())
            session.tell(link_pb2.AttachResponse(heartbeat=echo))

    def _whole(self, session: Session, arriving: Arriving, chunk: link_pb2.Chunk) -> Parcel | None:
        if chunk.kind != link_pb2.PARCEL_KIND_ANSWER:
            raise ParcelRefused("A node sends answers and nothing else.")
        _query_id(chunk.query_id)
        if chunk.total_size > MAXIMUM_ANSWER:
            # Not the end of the session: the center's other answers are welcome.
            if not arriving.too_large:
                arriving.too_large = True
                detail = f"an answer of {chunk.total_size} bytes; at most {MAXIMUM_ANSWER} reach a researcher"
                self._hub.note("answer.too_large", center=session.center, detail=detail)
            return None
        return arriving.answers.add(chunk)

    async def _answer(self, session: Session, parcel: Parcel) -> None:
        body = await self._hub.bodies.get(parcel.query_id)
        if body is None:
            # Nobody asks for it any more.
            self._hub.routing.acknowledge(session, parcel.query_id)
            return
        future = self._hub.routing.answered(session, parcel, roster=self._hub.standing.roster, query=body)
        session.storing.add(future)
        future.add_done_callback(partial(self._stored, session, parcel))
        while len(session.storing) >= MAXIMUM_STORING:
            await asyncio.wait(session.storing, return_when=asyncio.FIRST_COMPLETED)

    async def _reply(self, session: Session, arriving: Arriving, chunk: link_pb2.Chunk) -> None:
        """A piece of a reply to a task. One that nobody waits for is let pass, and acknowledged so that it ends."""
        if chunk.offset == 0 and not await self._hub.runs.room(session.center, chunk):
            arriving.unwanted.add(chunk.query_id)
        if chunk.query_id in arriving.unwanted:
            if chunk.offset + len(chunk.data) >= chunk.total_size:
                arriving.unwanted.discard(chunk.query_id)
                self._hub.runs.acknowledge(session, chunk.query_id)
            return
        try:
            arrived = arriving.replies.add(chunk)
        except OSError as error:
            raise cannot_write() from error
        if arrived is not None:
            future = asyncio.ensure_future(self._hub.runs.take(session, arrived))
            session.storing.add(future)
            future.add_done_callback(session.storing.discard)
            while len(session.storing) >= MAXIMUM_STORING:
                await asyncio.wait(session.storing, return_when=asyncio.FIRST_COMPLETED)

    def _stored(self, session: Session, parcel: Parcel, future: asyncio.Future[Kept]) -> None:
        session.storing.discard(future)
        error = None if future.cancelled() else future.exception()
        if isinstance(error, signed.AnswerRefused):
            self._hub.note(error.code, center=session.center, detail=f"query {parcel.query_id}: {error.public}")


def _query_id(text: str) -> str:
    """The id of a query in a frame. Raises Refused for another text: it would go into the database and the log."""
    try:
        return wire_question.query_id(text)
    except InvalidQuery as error:
        raise Refused("A frame does not say which query it is about.", code="link.bad_frame") from error


def _named(context: AttachContext) -> str:
    """The center that a certificate names, whether it counts or not."""
    try:
        return peers.from_context(context).identity.center
    except ConnexonError:
        return "-"


async def _taken(context: AttachContext) -> None:
    """Wait a moment for the node to hang up: one that is writing when the call ends could miss the last frame."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORD_SECONDS):
            said: object = True
            while said is not grpc.aio.EOF:
                said = await context.read()
