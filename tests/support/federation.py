"""A whole federation in memory, with real keys: root, centers, roster, researchers and signed questions.

    federation = new_federation()                        # "alliance" with lyon, kyoto and boston
    roster = federation.roster()                         # believed content; federation.signed_roster() for the wire
    ada = federation.researcher("lyon", "ada")           # key and credential, accredited by lyon
    question = ada.question(["kyoto", "lyon"], Count())  # to the centers named, over dataset cell_lines
    signed = ada.sign(question)                          # what travels; connexon.query.signed.verify_query accepts it
    answer = federation.centers["kyoto"].answer(signed)  # a SignedAnswer by kyoto

Everything is keyword-configurable where tests want it otherwise; times default to the present.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from connexon.analyses.count import Count
from connexon.analyses.spec import Analysis
from connexon.clock import DAY, HOUR, now_ms
from connexon.conditions.filters import Filter
from connexon.identity import credential, keys
from connexon.identity import roster as rosters
from connexon.identity.certificates import Authority
from connexon.identity.credential import Grant
from connexon.identity.keys import CenterId, SigningKey
from connexon.identity.roster import Member, MemberStatus, OrganisationKind, Protocol, Roster
from connexon.query import signed
from connexon.query.question import Purpose, Question
from connexon.v1 import answer_pb2, query_pb2, roster_pb2
from tests.support.receipts import with_receipt

NOISE = answer_pb2.Noise(rho=0.008, scale=7.9, half_width=15, contributions=1, charged=0.008)
"""The noise that centers of tests state of private numbers."""
HEALTH = Purpose(research=("DUO:0000037",))
"""Biomedical research: the purpose a question states where a test does not care."""


@dataclass(frozen=True)
class Center:
    """A member with both of its private keys."""

    member: Member
    accrediting: SigningKey
    answering: SigningKey

    @classmethod
    def new(
        cls,
        center: str,
        *,
        country: str = "FR",
        kind: OrganisationKind = OrganisationKind.ACADEMIC,
        status: MemberStatus = MemberStatus.ACTIVE,
    ) -> Center:
        """A center with fresh keys."""
        accrediting, answering = SigningKey.generate(), SigningKey.generate()
        member = Member(
            center=keys.center_id(center),
            legal_name=f"Stem Cell Center {center.title()}",
            country=country,
            organisation_kind=kind,
            status=status,
            accrediting_keys=(accrediting.public,),
            answering_keys=(answering.public,),
        )
        return cls(member, accrediting, answering)

    @property
    def id(self) -> CenterId:
        """The center's id."""
        return self.member.center

    def with_status(self, status: MemberStatus) -> Center:
        """The same center and keys, with another status."""
        return replace(self, member=replace(self.member, status=status))

    def answer(
        self,
        query: query_pb2.SignedQuery,
        *,
        status: answer_pb2.AnswerStatus.ValueType = answer_pb2.ANSWER_STATUS_RELEASED,
        count: int = 40,
    ) -> answer_pb2.SignedAnswer:
        """This center's signed answer to a query: one total of `count`."""
        answer = answer_pb2.Answer(
            query_id=query_pb2.Query.FromString(query.payload).query_id,
            center_id=self.id,
            query_sha256=hashlib.sha256(query.payload).digest(),
            status=status,
            answered_at_ms=now_ms(),
        )
        if status == answer_pb2.ANSWER_STATUS_RELEASED:
            asked = query_pb2.Query.FromString(query.payload).count
            answer.protection.kind, answer.protection.unit = asked.kind, asked.unit
            if asked.kind == query_pb2.NUMBER_KIND_PRIVATE:
                answer.protection.noise.CopyFrom(NOISE)
            answer.count.cells.add(number=count)
        return with_receipt(signed.sign_answer(answer, self.answering), self.answering)


@dataclass(frozen=True)
class Asker:
    """A researcher's key and credential, and what they can do with them."""

    federation: str
    key: SigningKey
    token: str

    def question(
        self,
        centers: Sequence[str],
        analysis: Analysis | None = None,
        *,
        dataset: str = "cell_lines",
        where: Filter | None = None,
        purpose: Purpose = HEALTH,
        query_id: str | None = None,
        issued_at_ms: int | None = None,
        life_ms: int = DAY,
    ) -> Question:
        """A question, valid for a day, that counts cell lines for biomedical research."""
        issued = now_ms() if issued_at_ms is None else issued_at_ms
        return Question(
            query_id=query_id or str(uuid.uuid4()),
            federation=self.federation,
            centers=tuple(sorted(keys.center_id(center) for center in centers)),
            issued_at_ms=issued,
            expires_at_ms=issued + life_ms,
            purpose=purpose,
            dataset=dataset,
            filter=where,
            analysis=Count() if analysis is None else analysis,
        )

    def sign(self, question: Question) -> query_pb2.SignedQuery:
        """The question as it travels."""
        return signed.sign_query(question, self.key, self.token)

    def ask(self, *centers: str) -> query_pb2.SignedQuery:
        """A signed count of cell lines at `centers`."""
        return self.sign(self.question(centers))

    def call(self, method: str) -> tuple[tuple[str, str], ...]:
        """gRPC metadata that proves one call of `method`."""
        return signed.prove_call(self.key, self.token, federation=self.federation, method=method)


@dataclass
class Federation:
    """Root key, hub authority and centers by id. Replace an entry of `centers` to change the next roster."""

    name: str
    root: SigningKey
    authority: Authority
    centers: dict[str, Center]
    serial: int = 1
    policy_files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def root_fingerprint(self) -> bytes:
        """What an invitation pins."""
        return keys.fingerprint(self.root.public)

    def roster(
        self,
        *,
        serial: int | None = None,
        issued_at_ms: int | None = None,
        life_ms: int = 30 * DAY,
        revoked_certificates: frozenset[str] = frozenset(),
    ) -> Roster:
        """The roster of the present centers."""
        issued = now_ms() - HOUR if issued_at_ms is None else issued_at_ms
        return Roster(
            federation=self.name,
            serial=self.serial if serial is None else serial,
            issued_at_ms=issued,
            expires_at_ms=issued + life_ms,
            hub_certificate_authority=self.authority.der,
            members=tuple(center.member for center in self.centers.values()),
            revoked_certificates=revoked_certificates,
            lowest_protocol=Protocol(1, 0),
            policy_files=dict(self.policy_files),
        )

    def signed_roster(self, roster: Roster | None = None) -> roster_pb2.SignedRoster:
        """`roster`, or the one of the present centers, signed by the root key."""
        return rosters.sign(self.roster() if roster is None else roster, self.root)

    def researcher(
        self,
        center: str = "lyon",
        subject: str = "ada",
        *,
        role: str = "researcher",
        life_ms: int = 90 * DAY,
        issued_at_ms: int | None = None,
        grants: tuple[Grant, ...] = (),
        key: SigningKey | None = None,
    ) -> Asker:
        """A researcher whom `center` has accredited."""
        key = key or SigningKey.generate()
        token = credential.issue(
            self.centers[center].accrediting,
            center=self.centers[center].id,
            federation=self.name,
            subject=subject,
            name=subject.title(),
            role=role,
            researcher_key=key.public,
            life_ms=life_ms,
            grants=grants,
            issued_at_ms=issued_at_ms,
        )
        return Asker(self.name, key, token)


def new_federation(name: str = "alliance", centers: Sequence[str] = ("lyon", "kyoto", "boston")) -> Federation:
    """A federation with fresh keys throughout; all centers are active."""
    return Federation(name, SigningKey.generate(), Authority.create(name), {name: Center.new(name) for name in centers})
