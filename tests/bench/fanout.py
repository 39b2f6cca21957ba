"""One question to 50, 200 and 1,000 simulated centers, one of them dead and one slow, and the hub's memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import psutil

import connexon
from connexon.client.home import Home, Login
from connexon.clock import DAY
from connexon.identity import certificates, credential, invitation, keys
from connexon.identity.certificates import TlsKey
from connexon.identity.keys import CenterId, SigningKey
from connexon.identity.roster import OrganisationKind, RosterPin
from connexon.service.database import Database
from connexon.v1 import membership_pb2, membership_pb2_grpc
from connexon_hub.folder import HubFolder
from connexon_hub.membership.invitations import invite
from connexon_hub.membership.members import MemberStore
from connexon_hub.membership.roster import RosterStore
from connexon_hub.settings import load
from deploy.local.federation import LocalFederation
from tests.bench.figures import Report
from tests.bench.simulated import SLOW_SECONDS

SIZES = (50, 200, 1_000)


def measure(report: Report, *, quick: bool) -> None:
    """Time until every center but the dead and the slow one has answered, as the researcher sees it, verified."""
    for size in SIZES[:1] if quick else SIZES:
        with tempfile.TemporaryDirectory() as name, LocalFederation(Path(name)) as federation:
            federation.make_hub()
            home = _members(federation, size)
            log = (Path(name) / "simulated.log").open("w")
            simulated = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.simulated", str(federation.folder / "simulated")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            try:
                assert simulated.stdout is not None
                assert simulated.stdout.readline().strip() == "attached", (Path(name) / "simulated.log").read_text()
                _ask(report, federation, home, size, runs=5 if quick else 15)
            finally:
                simulated.terminate()
                simulated.wait()
        seconds = _plain(size, rounds=5 if quick else 15)
        report.add(f"fan-out, {size} plain gRPC streams", seconds, note="nothing signed, checked or stored")


def _plain(streams: int, *, rounds: int) -> list[float]:
    """What as many streams take without a network on them, see plain_streams."""
    command = [sys.executable, "-m", "tests.bench.plain_streams", str(streams), str(rounds + 2)]
    seconds: list[float] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout
    )
    return seconds[2:]


def _ask(report: Report, federation: LocalFederation, home: Home, size: int, *, runs: int) -> None:
    hub = psutil.Process(federation.hub.pid)
    seconds: list[float] = []
    with connexon.connect(home.folder) as network:
        for number in range(runs + 2):
            reached: list[float] = []
            begun = time.perf_counter()

            def progress(answer: connexon.Answer, begun: float = begun, reached: list[float] = reached) -> None:
                if not reached and len(answer.released) >= size - 2:
                    reached.append(time.perf_counter() - begun)

            answer = (
                network.study(purpose="health", wait=SLOW_SECONDS + 1.5, on_progress=progress)
                .dataset("cell_lines")
                .count(by="disease_term")
            )
            assert len(answer.released) == size - 1, "all but the dead one"
            if number >= 2:
                seconds += reached
            network.cancel(answer.query_id)
    budget = "p50 400 ms" if size == 1_000 else ""
    report.add(f"fan-out, {size} centers, one dead, one slow", seconds, budget=budget, note="all but those two")
    memory = hub.memory_info().rss // 2**20
    report.facts[f"fan-out, hub's memory with {size} centers"] = f"{memory} MB (budget 300 MB)"


def _members(federation: LocalFederation, size: int) -> Home:
    """Let `size` centers join, sign the roster, and make a researcher of the first one."""
    folder, target = HubFolder.find(federation.hub_folder), federation.folder / "simulated"
    settings = load(folder)
    database = Database(settings.state_url)
    members = MemberStore(database)
    rosters = RosterStore(database, members, root_fingerprint=settings.root_fingerprint)
    believed = RosterPin.of(rosters.in_force()[1])
    entries, accrediting = [], SigningKey.generate()
    for number in range(size):
        name = f"center-{number:04d}"
        code, _ = invite(
            folder,
            settings,
            members,
            roster=believed,
            center=CenterId(name),
            legal_name=f"Simulated center {number}",
            country="DE",
            kind=OrganisationKind.ACADEMIC,
            valid_days=1,
            replace_keys=False,
        )
        _join(code, target / name, accrediting if number == 0 else SigningKey.generate())
        entries.append({"name": name, "kind": {1: "dead", 2: "slow"}.get(number, "quick")})
    federation.sign_roster()
    plan = {"link_address": federation.link_address, "roster_serial": 2, "centers": entries}
    (target / "centers.json").write_text(json.dumps(plan))
    return _researcher(federation, invitation.from_code(code), accrediting, target)


def _join(code: str, folder: Path, accrediting: SigningKey) -> None:
    asked = invitation.from_code(code)
    link, answering = TlsKey.generate(), SigningKey.generate()
    authority = certificates.to_pem(asked.hub_certificate_authority)
    with grpc.secure_channel(asked.hub_address, grpc.ssl_channel_credentials(authority)) as channel:
        joined = membership_pb2_grpc.MembershipStub(channel).Join(
            membership_pb2.JoinRequest(
                token=asked.token,
                certificate_request=link.request(),
                accrediting_key=accrediting.public,
                answering_key=answering.public,
            )
        )
    folder.mkdir(parents=True)
    (folder.parent / "authority.pem").write_bytes(authority)
    (folder / "link.key").write_bytes(link.pem())
    (folder / "link.crt").write_bytes(certificates.to_pem(joined.certificate))
    answering.save(folder / "answering.key")


def _researcher(
    federation: LocalFederation, asked: membership_pb2.Invitation, accrediting: SigningKey, target: Path
) -> Home:
    home = Home(target / "researcher")
    key, _ = home.make_key()
    token = credential.issue(
        accrediting,
        center=keys.center_id("center-0000"),
        federation=federation.name,
        subject="ada",
        name="Ada",
        role="researcher",
        researcher_key=key.public,
        life_ms=DAY,
    )
    login = Login(
        federation=federation.name,
        hub_address=asked.hub_address,
        hub_certificate_authority=asked.hub_certificate_authority,
        root_fingerprint=asked.root_fingerprint,
        credential=token,
        roster=RosterPin(asked.roster_serial, asked.roster_sha256),
    )
    home.keep_login(login)
    return home
