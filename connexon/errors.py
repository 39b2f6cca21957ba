"""Every way Connexon says no, each with a stable code and a sentence for the person who asked.

The tree, with the gRPC status each branch travels as:

    ConnexonError                 UNKNOWN
    ├── Refused                   PERMISSION_DENIED    a rule or a check forbids it
    │   ├── Unauthenticated       UNAUTHENTICATED      who asks is not proved
    │   ├── InvalidQuery          INVALID_ARGUMENT     the question itself is wrong
    │   ├── NotFound              NOT_FOUND            nothing here by that name
    │   ├── Conflict              ALREADY_EXISTS       it contradicts what is written down
    │   └── Incompatible          FAILED_PRECONDITION  versions that cannot work together
    ├── Unavailable               UNAVAILABLE          try again later
    └── Misconfigured             FAILED_PRECONDITION  this installation needs fixing

`code` and `public` may leave the machine. The cause (`raise ... from`) goes to the log only.
"""

from __future__ import annotations

import grpc


class ConnexonError(Exception):
    """Root of every error that Connexon raises on purpose."""

    code = "internal"
    status = grpc.StatusCode.UNKNOWN

    def __init__(self, public: str, *, code: str | None = None, rule: str = "") -> None:
        super().__init__(public)
        self.public = public
        self.rule = rule
        if code is not None:
            self.code = code


class Refused(ConnexonError):
    """A rule or a check forbids what was asked."""

    code = "refused"
    status = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(Refused):
    """Who asks is not proved."""

    code = "identity.unproved"
    status = grpc.StatusCode.UNAUTHENTICATED


class InvalidQuery(Refused):
    """The question itself is wrong; the sentence points at the place."""

    code = "query.invalid"
    status = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(Refused):
    """Nothing here by that name, or not for this caller: the two look alike."""

    code = "not_found"
    status = grpc.StatusCode.NOT_FOUND


class Conflict(Refused):
    """It contradicts what is already written down."""

    code = "conflict"
    status = grpc.StatusCode.ALREADY_EXISTS


class Incompatible(Refused):
    """The two sides speak versions that cannot work together."""

    code = "link.version_unsupported"
    status = grpc.StatusCode.FAILED_PRECONDITION


class Unavailable(ConnexonError):
    """It cannot be done now; the same call may succeed later."""

    code = "unavailable"
    status = grpc.StatusCode.UNAVAILABLE


class Misconfigured(ConnexonError):
    """This installation needs fixing; the sentence says what."""

    code = "misconfigured"
    status = grpc.StatusCode.FAILED_PRECONDITION


_BRANCHES: dict[grpc.StatusCode, type[ConnexonError]] = {
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidQuery,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.FAILED_PRECONDITION: Incompatible,
}
CODE_KEY = "connexon-code"
"""Trailing metadata that carries the stable code beside the gRPC status."""


def from_rpc(error: grpc.RpcError) -> ConnexonError:
    """Turn what gRPC raised into the error the other side meant."""
    call = error if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    if call is None:
        return Unavailable("The connection failed.", code="link.broken")
    code = next((str(value) for key, value in call.trailing_metadata() or () if key == CODE_KEY), None)
    if code is None and call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return _unreached(call.details() or "")
    if code is None and "Concurrent RPC limit" in (call.details() or ""):
        return Unavailable("The hub has as many calls under way as it takes; try again in a while.", code="hub.busy")
    branch = _BRANCHES.get(call.code(), ConnexonError)
    return branch(call.details() or "The other side gave no reason.", code=code)


def _unreached(details: str) -> Unavailable:
    """Why no hub answered. A certificate that does not hold is no trouble with the network, and is not called so."""
    if "certificate has expired" in details or "certificate is not yet valid" in details:
        return Unavailable(
            "The hub's certificate has expired, or is not valid yet, by this machine's clock. Look at the clock; if it "
            "is right, ask the hub's operator.",
            code="hub.certificate_expired",
        )
    if "CERTIFICATE_VERIFY_FAILED" in details or "Hostname Verification" in details:
        return Unavailable(
            "What answers at the hub's address does not hold a certificate of the pinned authority for that address. "
            "Something in between may be reading along, or the hub was set up anew; ask its operator.",
            code="hub.other_certificate",
        )
    # Nothing was shown that could be wrong: a hub that is starting, or a proxy whose other end is down.
    if "handshake" in details.lower():
        return Unavailable(
            "Something answers at the hub's address but breaks off before it proves to be the hub: the hub may be "
            "starting or crowded, or a proxy in between does not reach it.",
            code="hub.no_tls",
        )
    return Unavailable(
        "The hub cannot be reached. Check the network and that the hub is running, then try again.",
        code="hub.unreachable",
    )
