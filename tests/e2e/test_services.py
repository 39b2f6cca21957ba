"""Hub and node as services of systemd: shut in as their units say, and telling it how they are."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.federation import LocalFederation
from deploy.local.processes import Service, until

UNITS = sorted((Path(__file__).parents[2] / "deploy/systemd").glob("*.service"))
MOST_EXPOSED = 2.0
SHUT_IN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for option, value in ((65, 1), (38, 1)):  # PR_SET_MDWE, MemoryDenyWriteExecute of systemd; PR_SET_NO_NEW_PRIVS
    if libc.prctl(option, value, 0, 0, 0):
        sys.exit(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_exposes_little(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Unknown" not in told.stderr
    found = re.search(r"exposure level for \S+: ([\d.]+)", told.stdout)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED


def test_both_units_are_there_and_start_what_there_is() -> None:
    assert [unit.stem for unit in UNITS] == ["connexon-hub", "connexon-node"]
    for unit in UNITS:
        text = unit.read_text()
        assert f"ExecStart=/opt/connexon/bin/{unit.stem} serve --dir /var/lib/{unit.stem}\n" in text
        assert "Type=notify\n" in text


class Manager:
    """What systemd does for a service with Type=notify and WatchdogSec=1: it hears what is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.told: list[str] = []

    def heard(self, line: str) -> int:
        """How often this was told until now."""
        while True:
            try:
                self.told += self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.told.count(line)

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": "1000000"}


def shut_in(service: Service, manager: Manager) -> None:
    """Start it from now on as its unit does."""
    name, *words = service.arguments
    executable = str(Path(sys.executable).parent / name)
    service.arguments = ["python", "-c", SHUT_IN, sys.executable, executable, *words]
    service.environment = manager.environment


@pytest.fixture
def managers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Manager, Manager]]:
    folder = tmp_path_factory.mktemp("n")
    made = Manager(folder / "hub"), Manager(folder / "node")
    yield made
    for one in made:
        one.socket.close()


def test_services_work_shut_in_and_tell_the_manager(tmp_path: Path, managers: tuple[Manager, Manager]) -> None:
    of_hub, of_node = managers
    with LocalFederation(tmp_path) as federation:
        shut_in(federation.hub, of_hub)
        federation.make_hub()
        center = federation.join_center("lyon")
        shut_in(center.service, of_node)
        center.command("ontology", "add", "--demo")
        center.command("sample", "--donors", "40", "--only", "bank", "--import")
        federation.sign_roster()
        federation.start()
        assert of_hub.heard("READY=1") == 1
        assert of_node.heard("READY=1") == 1
        ada = federation.accredit("ada", home="lyon")
        told = ada.command_json("count", "cell_lines", "--purpose", "health", "--by", "type")
        assert [one["status"] for one in told["centers"]] == ["released"]
        until(lambda: of_hub.heard("WATCHDOG=1") >= 3 and of_node.heard("WATCHDOG=1") >= 3, "three signs of life")
        # A process that stands still gives none.
        assert center.service.process is not None
        center.service.process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: of_hub.heard("WATCHDOG=1") > 5, "the hub to go on")
            silent = of_node.heard("WATCHDOG=1")
            before = of_hub.heard("WATCHDOG=1")
            until(lambda: of_hub.heard("WATCHDOG=1") > before + 2, "the hub to go on")
            assert of_node.heard("WATCHDOG=1") == silent
        finally:
            center.service.process.send_signal(signal.SIGCONT)
        center.service.stop()
        federation.hub.stop()
        assert of_node.heard("STOPPING=1") == 1
        assert of_hub.heard("STOPPING=1") == 1
