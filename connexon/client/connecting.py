"""Where a researcher begins: connect() to the federation that one is logged in to, or log in to one."""

from __future__ import annotations

from pathlib import Path

from connexon.client.dataset import Dataset
from connexon.client.home import Home, Login, believe_first
from connexon.client.hub_calls import HubCalls
from connexon.client.network import Network
from connexon.clock import now_ms
from connexon.errors import Misconfigured
from connexon.identity import certificates, credential
from connexon.identity.credential import Researcher

__all__ = ["Dataset", "Network", "connect", "log_in"]


def connect(home: Home | Path | str | None = None) -> Network:
    """Connect to the federation that this folder is logged in to.

    Raises Misconfigured before keygen and login, Unavailable where the hub cannot be reached, calls.HubNotProved where
    somebody else answers at its address, RosterRefused and CredentialRefused where those do not hold.
    """
    folder = home if isinstance(home, Home) else Home(home)
    login, key = folder.login(), folder.key()
    kept = folder.roster(login)
    # The roster may have brought a new authority since the login was made.
    authorities = [login.hub_certificate_authority, *([kept.hub_certificate_authority] if kept else [])]
    calls = HubCalls(login, key, authorities=authorities)
    try:
        return Network(folder, calls)
    except BaseException:
        calls.close()
        raise


def log_in(login: Login, home: Home | None = None, *, replace: bool = False) -> Researcher:
    """Check a login against the hub and keep it. Nothing is kept where anything does not hold.

    Raises Misconfigured where the folder is logged in to another federation and `replace` is not given, and
    otherwise as `connect` does.
    """
    folder = home or Home()
    key = folder.key()
    present = folder.present_login()
    other = present is not None and present.root_fingerprint != login.root_fingerprint
    if present is not None and other and not replace:
        raise Misconfigured(
            f"This folder is logged in to {present.federation} with another root key. Use a folder for each federation "
            "(CONNEXON_HOME), or forget the present one with --replace.",
            code="home.other_federation",
        )
    certificates.parse(login.hub_certificate_authority)
    calls = HubCalls(login, key, authorities=[login.hub_certificate_authority])
    try:
        signed = calls.roster()
    finally:
        calls.close()
    kept = None if other else folder.roster(login)
    roster = believe_first(signed, login, present=kept, now_ms=now_ms())
    researcher = credential.verify(login.credential, roster, credential.NOTHING_REVOKED)
    if researcher.key != key.public:
        raise Misconfigured(
            "The login is for another key than the one in this folder. Send the steward the request that "
            "'connexon keygen' prints here.",
            code="home.other_key",
        )
    folder.keep_login(login)
    folder.keep_roster(signed, login)
    return researcher
