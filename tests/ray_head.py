"""A Ray of one node as `ray start --head` begins it on a cluster, for tests: on the loopback, and gone afterwards."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.running import STOP_SECONDS, alive, descendants, free_port

RAY = Path(sys.executable).with_name("ray")
START_SECONDS = 150.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class Head:
    """Its address for drivers, its dashboard's port, and the environment that its nodes and drivers share."""

    address: str
    dashboard_port: int
    environment: dict[str, str]

    def run(self, code: str) -> "subprocess.CompletedProcess[str]":
        """A driver in a process of its own."""
        command = [sys.executable, "-c", code]
        environment = {**self.environment, "RAY_ADDRESS": self.address}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@contextmanager
def ray_head(environment: Mapping[str, str]) -> Iterator[Head]:
    """`environment` is beside that of this process."""
    port, dashboard_port = free_port(), free_port()
    told = {**os.environ, **QUIET, **environment}
    with tempfile.TemporaryDirectory(prefix="vr-", dir="/tmp") as folder, tempfile.TemporaryFile() as output:
        options = ["--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder}"]
        options += [f"--dashboard-port={dashboard_port}", "--dashboard-agent-listen-port=0", "--num-cpus=2"]
        options += ["--object-store-memory=80000000", "--disable-usage-stats"]
        process = subprocess.Popen([RAY, "start", *options], env=told, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + START_SECONDS
            while b"Ray runtime started" not in os.pread(output.fileno(), 2**20, 0):
                said = os.pread(output.fileno(), 2**20, 0).decode()
                assert process.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.1)
            yield Head(f"127.0.0.1:{port}", dashboard_port, told)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    tree = {process.pid, *descendants(process.pid)}
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid in tree:
        if alive(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
