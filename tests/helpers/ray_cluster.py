"""Ray clusters of real processes on this machine, and how to end them."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

RAY = Path(sys.executable).parent / "ray"
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def free_port() -> int:
    """A port that nobody has, and that Ray does not give to its workers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


ATTEMPTS = 5
"""Of starting a node: Ray gives up after 30 s, which a busy machine may need."""


class RayCluster:
    """A head without CPUs, and nodes that have them; all of it ends with the context."""

    def __init__(self, *cpus: int):
        for attempt in range(1, ATTEMPTS + 1):
            port = str(free_port())
            self.address = f"127.0.0.1:{port}"
            self.folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets have short names
            said = self._start("--head", "--port", port, "--num-cpus", "0")
            for each in cpus:
                said = said or self._start("--address", self.address, "--num-cpus", str(each))
            if not said:
                return
            self.end()
            assert attempt < ATTEMPTS, said

    def _start(self, *args: str) -> str:
        """Starts a node; what it said where that failed."""
        command = [str(RAY), "start", "--disable-usage-stats", "--temp-dir", self.folder, *args]
        command += ["--object-store-memory", str(100 * 2**20)]
        done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
        return done.stdout + done.stderr if done.returncode else ""

    def processes(self, program: str = "") -> list[psutil.Process]:
        """Those of the cluster, or of one of its programs."""
        found = []
        for each in psutil.process_iter(["cmdline"]):
            words = " ".join(each.info["cmdline"] or ())
            if self.folder in words and program in words:
                found.append(each)
        return found

    def end(self) -> None:
        """Ends what is left of it."""
        below = [child for each in self.processes() for child in each.children(recursive=True)]
        for each in [*self.processes(), *below]:
            if each.is_running():
                each.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
