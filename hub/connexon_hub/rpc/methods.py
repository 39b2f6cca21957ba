"""Who may call which method, and the size and time of a complete call. A method without a rule does not exist here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from connexon.link.frames import MAXIMUM_QUERY

KIB = 1024


class Caller(Enum):
    """What a caller has to prove before a byte of the message is read."""

    ANYBODY = "anybody"
    RESEARCHER = "researcher"
    """A credential and a proof for this very call, in the metadata."""
    CENTER = "center"
    """A certificate of the hub's authority; the link port takes no connection without one."""


@dataclass(frozen=True)
class Rule:
    """Bounds of one method. `message_bytes` 0: the request has no fields and is not read."""

    caller: Caller
    message_bytes: int
    message_seconds: float = 20.0
    """Until the request has arrived whole."""
    call_seconds: float | None = None
    """Until the call is answered; None for a stream, which its own service bounds."""


_STRANGER, _UNARY = 5.0, 60.0
_RESEARCH, _MODELS = "/connexon.v1.Research/", "/connexon.v1.Models/"
RULES: dict[str, Rule] = {
    "/connexon.v1.Membership/Join": Rule(Caller.ANYBODY, 32 * KIB, _STRANGER, _UNARY),
    "/connexon.v1.Membership/GetRoster": Rule(Caller.ANYBODY, 0, call_seconds=20.0),
    "/connexon.v1.Membership/RenewExpired": Rule(Caller.ANYBODY, 32 * KIB, _STRANGER, _UNARY),
    "/grpc.health.v1.Health/Check": Rule(Caller.ANYBODY, 4 * KIB, _STRANGER, _STRANGER),
    "/grpc.health.v1.Health/List": Rule(Caller.ANYBODY, 0, call_seconds=_STRANGER),
    "/grpc.health.v1.Health/Watch": Rule(Caller.ANYBODY, 4 * KIB, _STRANGER, _STRANGER),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(Caller.RESEARCHER, 16 * KIB, 20.0, 60.0),
    _RESEARCH + "Ask": Rule(Caller.RESEARCHER, MAXIMUM_QUERY),
    _RESEARCH + "Follow": Rule(Caller.RESEARCHER, 4 * KIB),
    _RESEARCH + "ListQueries": Rule(Caller.RESEARCHER, 4 * KIB, call_seconds=_UNARY),
    _RESEARCH + "Cancel": Rule(Caller.RESEARCHER, 4 * KIB, call_seconds=_UNARY),
    _MODELS + "FollowRun": Rule(Caller.RESEARCHER, 4 * KIB),
    _MODELS + "ListModels": Rule(Caller.RESEARCHER, 4 * KIB, call_seconds=_UNARY),
    _MODELS + "GetModel": Rule(Caller.RESEARCHER, 4 * KIB),
    "/connexon.v1.Link/Attach": Rule(Caller.CENTER, 0),
    "/connexon.v1.Link/Renew": Rule(Caller.CENTER, 32 * KIB, call_seconds=_UNARY),
    "/connexon.v1.Link/GetWitness": Rule(Caller.CENTER, 4 * KIB, call_seconds=_UNARY),
    "/connexon.v1.Link/GetAnswers": Rule(Caller.CENTER, 4 * KIB, call_seconds=3600.0),
    "/connexon.v1.Link/GiveUpLog": Rule(Caller.CENTER, 4 * KIB, call_seconds=_UNARY),
}
