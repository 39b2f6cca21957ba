"""What a confined process can no longer do, each tried in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from connexon_node import sandbox

pytestmark = pytest.mark.skipif(not sandbox.support().whole, reason="this kernel has no Landlock or seccomp")
TRY = """
import os, socket, sys
from pathlib import Path
from connexon_node import sandbox
given, folder, key = map(Path, sys.argv[1:4])
sandbox.confine(
    readable=[given], folder=folder, limits=sandbox.Limits(memory=10**9, seconds=30, file_size=10_000)
)
try:
    exec(sys.argv[4])
except OSError as error:
    sys.exit(f"refused {error.errno}")
"""


def tried(tmp_path: Path, what: str) -> str:
    given, folder, key = tmp_path / "given", tmp_path / "scratch", tmp_path / "key"
    given.write_text("given")
    key.write_text("secret")
    folder.mkdir(exist_ok=True)
    link = folder / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(key)
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(given), str(folder), str(key), what],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert key.read_text() == "secret"
    return "done" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "what", ["assert given.read_text() == 'given'", "(folder / 'a').write_text('1'); (folder / 'a').unlink()"]
)
def test_the_file_and_the_folder_are_there(tmp_path: Path, what: str) -> None:
    assert tried(tmp_path, what) == "done"


@pytest.mark.parametrize(
    "what",
    [
        "key.read_text()",
        "(folder / 'link').read_text()",
        "key.write_text('x')",
        "given.write_text('x')",
        "os.truncate(key, 0)",
        "key.chmod(0o777)",
        "key.unlink()",
        "os.listdir(key.parent)",
        "os.symlink(key, folder / 'other')",
        "os.link(key, folder / 'other')",
        "os.rename(key, folder / 'other')",
        "os.mkfifo(folder / 'other')",
        "open('/proc/self/environ').read()",
        "open(f'/proc/{os.getppid()}/environ').read()",
        "open('/etc/passwd').read()",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_INET)",
        "socket.socket(socket.AF_UNIX)",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "os.pidfd_open(os.getppid())",
        "(folder / 'large').write_bytes(b'x' * 20_000)",
    ],
)
def test_nothing_else_is(tmp_path: Path, what: str) -> None:
    assert tried(tmp_path, what).startswith("refused")


def test_a_process_with_other_threads_is_not_confined_by_half(tmp_path: Path) -> None:
    thread = "import threading, time; threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
    code = TRY.replace("given, folder, key = ", f"{thread}\ngiven, folder, key = ")
    given, folder = tmp_path / "given", tmp_path / "scratch"
    given.touch()
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(given), str(folder), str(given), "pass"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "NotConfined" in done.stderr
