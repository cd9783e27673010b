"""A real `vidseq serve` in a process of its own, for tests and benchmarks: on a free port, and gone afterwards."""

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import IO

VIDSEQ = Path(sys.executable).with_name("vidseq")
START_SECONDS = 240.0  # 15 on an idle machine
STOP_SECONDS = 60.0
MAX_OUTPUT_BYTES = 2**20
UNCHOSEN_PORTS = range(20_000, 32_768)  # below: Ray's workers; above: Linux's ip_local_port_range


@dataclass(frozen=True)
class Service:
    """Where it answers; the process that was started, what it says, and where it keeps what it must not leave."""

    port: int
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]
    scratch: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tree(self) -> set[int]:
        """The process ids of the service."""
        return {self.process.pid, *descendants(self.process.pid)}

    def said(self) -> str:
        # Not by seeking: the service writes where its reader would stand.
        return os.pread(self.output.fileno(), MAX_OUTPUT_BYTES, 0).decode()


@contextmanager
def running_service(model: Path, *options: str) -> Iterator[Service]:
    """`vidseq serve model`, ready and having said so; at the end it is told to stop, and nothing of it may be left."""
    with started_service(model, *options) as service:
        deadline = time.monotonic() + START_SECONDS
        while status(service.port, "/readyz") != 200 or "ready on " not in service.said():
            assert service.process.poll() is None, service.said()
            assert time.monotonic() < deadline, f"not ready: {service.said()}"
            time.sleep(0.1)
        yield service


@contextmanager
def started_service(model: Path, *options: str) -> Iterator[Service]:
    """The same, from its first moment on."""
    port = free_port()
    # Directly under /tmp: the names of Ray's sockets may have 107 bytes.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory(prefix="vs-", dir="/tmp") as scratch:
        process = subprocess.Popen(
            [VIDSEQ, "serve", str(model), "--port", str(port), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": scratch},
        )
        service = Service(port, process, output, Path(scratch))
        try:
            yield service
        finally:
            stop(service)


def stop(service: Service) -> None:
    """Told once, politely. What has not gone after that is killed, one by one, and is a failure."""
    tree = service.tree()
    service.process.terminate()
    with suppress(subprocess.TimeoutExpired):
        service.process.wait(STOP_SECONDS)
    left = {pid for pid in tree if alive(pid)}
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"{len(left)} processes were left over: {service.said()}"
    assert status(service.port, "/livez") is None
    assert [str(path) for path in service.scratch.rglob("*")] == [], service.said()


def status(port: int, path: str) -> int | None:
    """The status of a GET, None if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody has, and that the kernel gives to nobody who lets it choose, as Ray does."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", secrets.choice(UNCHOSEN_PORTS))) as server:
            port: int = server.getsockname()[1]
            return port


def descendants(pid: int) -> set[int]:
    """All processes that `pid` started, and those that these started."""
    children: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, set()).add(int(stat.parent.name))
    found: set[int] = set()
    newest = {pid}
    while newest:
        newest = set().union(*(children.get(parent, set()) for parent in newest)) - found
        found |= newest
    return found


def alive(pid: int) -> bool:
    """Not gone, and not a zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def name_of(pid: int) -> str:
    """The first 15 letters of what the process calls itself; "" when it has gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@dataclass(frozen=True)
class Listener:
    """A socket on which somebody waits for whoever comes: `kind` is tcp or udp."""

    name: str
    kind: str
    address: IPv4Address | IPv6Address
    port: int

    @property
    def host(self) -> str:
        """Where it can be spoken to from this machine."""
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
        return anywhere.get(str(self.address), str(self.address))


def listeners(pids: set[int]) -> list[Listener]:
    """Every TCP socket on which one of these processes listens, and every UDP socket that is bound, by /proc/net."""
    bound = _bound_sockets()
    found = []
    for pid in pids:
        for inode in _open_files(pid):
            if inode in bound:
                found.append(Listener(name_of(pid), *bound[inode]))
    return found


def _open_files(pid: int) -> Iterator[str]:
    """What its descriptors are of; nothing more once it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                yield os.readlink(f"/proc/{pid}/fd/{descriptor}")


def _bound_sockets() -> dict[str, tuple[str, IPv4Address | IPv6Address, int]]:
    bound: dict[str, tuple[str, IPv4Address | IPv6Address, int]] = {}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        waits = "0A" if table.startswith("tcp") else "07"  # LISTEN; of UDP, which knows no such thing, unconnected
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == waits:
                host, _, port = fields[1].partition(":")
                bound[f"socket:[{fields[9]}]"] = (table[:3], _address(host), int(port, 16))
    return bound


def _address(host: str) -> IPv4Address | IPv6Address:
    """As /proc/net writes it: words of four bytes, each backwards."""
    words = bytes.fromhex(host)
    address = ip_address(b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4)))
    return getattr(address, "ipv4_mapped", None) or address
