"""A hub for the client's tests: real gRPC over real TLS, saying what a test tells it to say."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from connexon.analyses.spec import Unit
from connexon.analyses.wire_kinds import unit_to_wire
from connexon.client.home import Home, Login
from connexon.clock import DAY, now_ms
from connexon.conditions.wire_filter import value_to_wire
from connexon.errors import CODE_KEY, ConnexonError
from connexon.identity import credential, keys
from connexon.identity import roster as rosters
from connexon.identity.certificates import Authority, TlsKey
from connexon.identity.credential import NOTHING_REVOKED, Grant
from connexon.identity.keys import CenterId, SigningKey
from connexon.identity.roster import Member, MemberStatus, OrganisationKind, Roster, RosterPin
from connexon.query import signed
from connexon.query.signed import Asked
from connexon.v1 import (
    answer_pb2,
    membership_pb2,
    membership_pb2_grpc,
    query_pb2,
    research_pb2,
    research_pb2_grpc,
    roster_pb2,
)
from tests.support.receipts import with_receipt

FEDERATION = "alliance"
CENTERS = (CenterId("kyoto"), CenterId("lyon"), CenterId("oslo"))
Script = Callable[[Asked], Iterator[research_pb2.Update]]


class Federation:
    """Root, authority and centers with their keys: what a roster is made of."""

    def __init__(self) -> None:
        self.root = SigningKey.generate()
        self.authority = Authority.create(FEDERATION)
        self.made_ms = now_ms()
        self.keys = {center: SigningKey.generate() for center in CENTERS}

    def roster(
        self, *, serial: int = 1, members: Mapping[CenterId, SigningKey] | None = None
    ) -> roster_pb2.SignedRoster:
        now = self.made_ms
        roster = Roster(
            federation=FEDERATION,
            serial=serial,
            issued_at_ms=now,
            expires_at_ms=now + DAY,
            hub_certificate_authority=self.authority.der,
            members=tuple(
                Member(
                    center=center,
                    legal_name=f"Institute of {center.title()}",
                    country="FR",
                    organisation_kind=OrganisationKind.ACADEMIC,
                    status=MemberStatus.ACTIVE,
                    accrediting_keys=(key.public,),
                    answering_keys=(key.public,),
                )
                for center, key in (self.keys if members is None else members).items()
            ),
        )
        return rosters.sign(roster, self.root)

    def login(
        self, address: str, key: SigningKey, *, life_ms: int = DAY, grants: tuple[Grant, ...] = (), **changes: Any
    ) -> Login:
        token = credential.issue(
            self.keys[CENTERS[0]],
            center=CENTERS[0],
            federation=FEDERATION,
            subject="ada",
            name="Ada L.",
            role="researcher",
            researcher_key=key.public,
            life_ms=life_ms,
            grants=grants,
        )
        login = {
            "federation": FEDERATION,
            "hub_address": address,
            "hub_certificate_authority": self.authority.der,
            "root_fingerprint": keys.fingerprint(self.root.public),
            "credential": token,
            "roster": RosterPin.of(self.roster()),
        }
        return Login(**{**login, **changes})


def count_answer(
    asked: Asked, center: CenterId, cells: Mapping[tuple[Any, ...], int], *, withheld: bool = False, **changes: Any
) -> answer_pb2.Answer:
    """An unsigned count, as a center would make it."""
    answer = answer_pb2.Answer(
        query_id=asked.question.query_id,
        center_id=center,
        query_sha256=asked.sha256,
        status=answer_pb2.ANSWER_STATUS_RELEASED,
        provenance=answer_pb2.Provenance(generations={"cell_lines": 3}, dictionary_version="1", policy_version="ab12"),
        protection=answer_pb2.Protection(minimum_donors=5, rounded_to=1, kind=query_pb2.NUMBER_KIND_PUBLISHED),
        obligations=[answer_pb2.Obligation(term="DUO:0000019", message="Publish the results.")],
        answered_at_ms=now_ms(),
    )
    answer.count.by.extend(getattr(asked.question.analysis, "by", ()))
    for key, count in cells.items():
        answer.count.cells.add(key=[value_to_wire(value) for value in key], number=count)
    answer.count.groups_withheld = withheld
    answer.protection.unit = unit_to_wire(getattr(asked.question.analysis, "unit", Unit.DONORS))
    for name, value in changes.items():
        setattr(answer, name, value)
    return answer


def no_answer(
    asked: Asked, center: CenterId, status: str, code: str, message: str, rule: str = ""
) -> answer_pb2.Answer:
    """An unsigned answer without a result."""
    return answer_pb2.Answer(
        query_id=asked.question.query_id,
        center_id=center,
        query_sha256=asked.sha256,
        status=answer_pb2.AnswerStatus.Value(f"ANSWER_STATUS_{status}"),
        reason=answer_pb2.Reason(code=code, message=message, rule=rule),
        answered_at_ms=now_ms(),
    )


def delivered(center: str, answer: answer_pb2.SignedAnswer) -> research_pb2.Update:
    """The update that brings an answer."""
    delivery = research_pb2.Delivery(
        center_id=center, state=research_pb2.DELIVERY_STATE_ANSWERED, connected=True, answer=answer
    )
    return research_pb2.Update(news=research_pb2.News(deliveries=[delivery]))


def accepted(asked: Asked, payload: bytes, *, absent: Collection[str] = ()) -> research_pb2.Update:
    """The first update of a stream."""
    return research_pb2.Update(
        accepted=research_pb2.Accepted(
            query_id=asked.question.query_id,
            query_payload=payload,
            deliveries=[
                research_pb2.Delivery(
                    center_id=center, state=research_pb2.DELIVERY_STATE_WAITING, connected=center not in absent
                )
                for center in asked.question.centers
            ],
        )
    )


class ScriptedHub(research_pb2_grpc.ResearchServicer, membership_pb2_grpc.MembershipServicer):
    """Verifies calls and questions as a hub must, then says what `script` yields."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.signed_roster = federation.roster()
        self.script: Script = self.everyone_counts
        self.absent: set[str] = set()
        self.payload_told: bytes | None = None
        self.asked: dict[str, tuple[Asked, query_pb2.SignedQuery]] = {}
        self.asks: list[str] = []
        self.also_listed: list[research_pb2.QuerySummary] = []
        self.follows: list[str] = []
        self.cancelled: list[str] = []
        self.proofs: set[str] = set()
        self.traces: list[str] = []
        self.fail_asks: list[ConnexonError] = []
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def start(self, authority: Authority | None = None) -> None:
        authority = authority or self.federation.authority
        key = TlsKey.generate()
        certificate = authority.issue_server(key, ["localhost"], life=datetime.timedelta(hours=1))
        from connexon.identity import certificates

        chain = certificates.to_pem(certificate.public_bytes(Encoding.DER))
        self.server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        research_pb2_grpc.add_ResearchServicer_to_server(self, self.server)
        membership_pb2_grpc.add_MembershipServicer_to_server(self, self.server)
        self.serve_more()
        self.port = self.server.add_secure_port(
            f"localhost:{self.port}", grpc.ssl_server_credentials([(key.pem(), chain)])
        )
        self.server.start()

    def serve_more(self) -> None:
        """Add services to the server that is about to start."""

    def stop(self) -> None:
        self.server.stop(0).wait()

    def everyone_counts(self, asked: Asked) -> Iterator[research_pb2.Update]:
        by = getattr(asked.question.analysis, "by", ())
        for number, center in enumerate(asked.question.centers, start=1):
            yield self.answered(count_answer(asked, center, {("iPSC",) * len(by): number * 100}))

    def answered(self, answer: answer_pb2.Answer, *, by: CenterId | None = None) -> research_pb2.Update:
        center = CenterId(answer.center_id)
        key = self.federation.keys[by or center]
        return delivered(center, with_receipt(signed.sign_answer(answer, key), key, before=6))

    def GetRoster(self, request: Any, context: Any) -> membership_pb2.GetRosterResponse:  # noqa: N802 - gRPC's name
        return membership_pb2.GetRosterResponse(roster=self.signed_roster)

    def Ask(self, request: Any, context: Any) -> Iterator[research_pb2.AskResponse]:  # noqa: N802 - gRPC's name
        self._prove("Ask", context)
        if self.fail_asks:
            self._refuse(self.fail_asks.pop(0), context)
        try:
            asked = signed.verify_query(request.query, rosters.peek(self.signed_roster), NOTHING_REVOKED)
        except ConnexonError as error:
            self._refuse(error, context)
        self.asks.append(asked.question.query_id)
        self.asked[asked.question.query_id] = (asked, request.query)
        for update in self._stream(asked, request.query.payload):
            yield research_pb2.AskResponse(update=update)

    def Follow(self, request: Any, context: Any) -> Iterator[research_pb2.FollowResponse]:  # noqa: N802 - gRPC's name
        self._prove("Follow", context)
        self.follows.append(request.query_id)
        if request.query_id not in self.asked:
            self._refuse(ConnexonErrorNotFound("No such question."), context)
        asked, query = self.asked[request.query_id]
        for update in self._stream(asked, query.payload):
            yield research_pb2.FollowResponse(update=update)

    def ListQueries(self, request: Any, context: Any) -> research_pb2.ListQueriesResponse:  # noqa: N802 - gRPC's name
        self._prove("ListQueries", context)
        return research_pb2.ListQueriesResponse(
            queries=[
                research_pb2.QuerySummary(
                    query_id=query_id, query_payload=query.payload, accepted_at_ms=now_ms(), centers=3, answered=2
                )
                for query_id, (_, query) in reversed(self.asked.items())
            ]
            + self.also_listed
        )

    def Cancel(self, request: Any, context: Any) -> research_pb2.CancelResponse:  # noqa: N802 - gRPC's name
        self._prove("Cancel", context)
        self.cancelled.append(request.query_id)
        return research_pb2.CancelResponse(cancelled=1)

    def _stream(self, asked: Asked, payload: bytes) -> Iterator[research_pb2.Update]:
        yield accepted(asked, payload if self.payload_told is None else self.payload_told, absent=self.absent)
        yield from self.script(asked)

    def _prove(self, method: str, context: Any, *, service: str = "Research") -> None:
        metadata = dict(context.invocation_metadata())
        self.traces.append(str(metadata.get("traceparent", "")))
        try:
            _, proof = signed.verify_call(
                metadata[signed.CREDENTIAL_KEY],
                metadata[signed.PROOF_KEY],
                rosters.peek(self.signed_roster),
                NOTHING_REVOKED,
                method=f"/connexon.v1.{service}/{method}",
            )
        except ConnexonError as error:
            self._refuse(error, context)
        assert proof not in self.proofs, "a proof was used twice"
        self.proofs.add(proof)

    @staticmethod
    def _refuse(error: ConnexonError, context: Any) -> None:
        context.set_trailing_metadata(((CODE_KEY, error.code),))
        context.abort(error.status, error.public)


class ConnexonErrorNotFound(ConnexonError):
    code = "query.not_found"
    status = grpc.StatusCode.NOT_FOUND


def logged_in(hub: ScriptedHub, folder: Path) -> Home:
    """A researcher's folder that is ready to connect."""
    home = Home(folder)
    key, _ = home.make_key()
    home.keep_login(hub.federation.login(hub.address, key))
    return home


def keep_catalog(home: Home, datasets: Mapping[str, Iterable[str | tuple[str, dict[str, Any]]]]) -> None:
    """A catalog as an earlier command kept it: fields are texts unless something else is said of them."""
    every = {"type": "text", "title": "", "unit": "", "ontology": "", "values": [], "centers": list(CENTERS)}
    kept = {}
    for name, fields in datasets.items():
        named = [(one, {}) if isinstance(one, str) else one for one in fields]
        described = {one: {**every, **told} for one, told in named}
        kept[name] = {"title": name, "centers": list(CENTERS), "fields": described}
    home.write_json("catalog.json", {"shape": 2, "datasets": kept, "ontologies": {}})
