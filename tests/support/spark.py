"""A Spark master and workers as processes of their own, from the pip package."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

START_SECONDS = 60.0


def why_not() -> str:
    """Why Spark cannot be started here; empty where it can."""
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed: pip install 'connexon[spark]'"
    if shutil.which("java") is None:
        return "Java 17 is not installed"
    return ""


class SparkCluster:
    """A master and workers on loopback; each worker gives one core and `memory`."""

    def __init__(self, folder: Path, *, workers: int = 2, memory: str = "1g") -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self._start("master", "master.Master", "--port", "0")
            self.url = self._said("master", r"Starting Spark master at (spark://\S+)")
            for number in range(workers):
                name, work = f"worker-{number}", str(folder / f"work-{number}")
                self._start(name, "worker.Worker", "--cores", "1", "--memory", memory, "--work-dir", work, self.url)
            for number in range(workers):
                self._said(f"worker-{number}", r"Successfully registered with master (\S+)")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all of them."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(30)

    def _start(self, name: str, main: str, *arguments: str) -> None:
        found = importlib.util.find_spec("pyspark")
        assert found is not None
        assert found.origin is not None
        home = Path(found.origin).parent
        command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{main}", "--host", "127.0.0.1"]
        environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [*command, "--webui-port", "0", *arguments],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _said(self, name: str, pattern: str) -> str:
        log, deadline = self._folder / f"{name}.log", time.monotonic() + START_SECONDS
        while not (found := re.search(pattern, log.read_text())):
            ended = [process.args for process in self._processes if process.poll() is not None]
            assert not ended, f"{ended} ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"{name} is not there: {log.read_text()}"
            time.sleep(0.05)
        return found[1]
