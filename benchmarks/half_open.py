"""Health and good uploads beside half-open uploads and slow readers; memory while large bodies come at once.

    python -m benchmarks.half_open [--half-open 200] [--seconds 20] [--bare]

Against a real `vidseq serve` (or its application alone, `--bare`), directly and through the edge (a real HAProxy with
deploy/haproxy.cfg). Half of the hostile connections declare a large body and send a byte a second; the others ask for
the labels of a video, line by line, and read a byte a second. Each is opened again as soon as it is cut. Beside them
one client asks /readyz, another uploads small clips, without retries. Clients and service share the machine's CPUs.

Memory is that of all processes of the service: proportional set sizes, in which what is shared counts once, and the
pages of memfds, which nobody has to map to hold them. It is looked at while 8 bodies of 64 MB are on their way, and
when all of them have come. Whoever sends them is not counted.
"""

import argparse
import http.client
import os
import socket
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.bare import running_bare
from benchmarks.memory import draw, save_model
from benchmarks.over_http import resident_bytes
from tests.edge import running_edge
from tests.running import Service, running_service

NUM_BODIES, BODY_BYTES = 8, 64 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half-open", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--bare", action="store_true", help="the application behind uvicorn, without Ray")
    options = parser.parse_args()
    running = running_bare if options.bare else running_service
    with tempfile.TemporaryDirectory() as folder:
        model, clip = Path(folder) / "model", Path(folder) / "clip.mp4"
        save_model(model)
        draw(clip, num_frames=12)
        with running(model) as service, running_edge(service.url, connections_of_address=1000) as edge:
            doors = {"directly": Door(service.url, None), "through the edge": Door(edge.url, edge.trust)}
            print("| | hostile | /readyz p50, ms | p99, ms | largest | answered | good uploads answered | p50, ms |")
            print("|---|---|---|---|---|---|---|---|")
            for name, door in doors.items():
                for num_hostile in (0, options.half_open):
                    row(name, door, clip.read_bytes(), num_hostile, seconds=options.seconds)
            print("\n| 8 bodies of 64 MB | growth at most, MB | of the bodies | afterwards, MB |\n|---|---|---|---|")
            for name, door in doors.items():
                memory_row(name, door, service)


class Door:
    """Where the service is asked, and whom to trust there."""

    def __init__(self, url: str, trust: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self.host, self.port, self.trust = parts.hostname, parts.port, trust

    def connect(self, *, timeout_seconds: float = 60.0) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=timeout_seconds)
        return connection if self.trust is None else self.trust.wrap_socket(connection, server_hostname=self.host)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, float]:
        """Status and seconds of one request on a connection of its own; status 0 where no answer came."""
        begun = time.perf_counter()
        kind = http.client.HTTPConnection if self.trust is None else http.client.HTTPSConnection
        options = {} if self.trust is None else {"context": self.trust}
        connection = kind(self.host, self.port, timeout=60, **options)
        try:
            connection.request(method, path, body or None, {"Content-Type": "video/mp4"} if body else {})
            answer = connection.getresponse()
            answer.read()
            return answer.status, time.perf_counter() - begun
        except OSError:
            return 0, time.perf_counter() - begun
        finally:
            connection.close()


def row(name: str, door: Door, clip: bytes, num_hostile: int, *, seconds: float) -> None:
    over = threading.Event()
    slow = (drip, read_slowly)
    threads = [threading.Thread(target=slow[n % 2], args=[door, clip, over]) for n in range(num_hostile)]
    for thread in threads:
        thread.start()
    time.sleep(3 if threads else 0)  # they are all there
    uploads = list[tuple[int, float]]()
    uploading = threading.Thread(
        target=repeat, args=[lambda: uploads.append(door.ask("POST", "/v1/classify", clip)), seconds, 0.05]
    )
    health = list[tuple[int, float]]()
    uploading.start()
    repeat(lambda: health.append(door.ask("GET", "/readyz")), seconds, 0.05)
    uploading.join()
    over.set()
    for thread in threads:
        thread.join()
    took = sorted(1000 * seconds for _, seconds in health)
    p99 = took[min(len(took) - 1, int(0.99 * len(took)))]
    good = sum(status == 200 for status, _ in uploads)
    ready = sum(status == 200 for status, _ in health)
    cells = [name, num_hostile, f"{statistics.median(took):.0f}", f"{p99:.0f}", f"{took[-1]:.0f}"]
    cells += [f"{ready} of {len(health)}", f"{good} of {len(uploads)} ({100 * good / len(uploads):.1f} %)"]
    cells.append(f"{1000 * statistics.median(seconds for _, seconds in uploads):.0f}")
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def repeat(work: Callable[[], None], seconds: float, pause_seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work()
        time.sleep(pause_seconds)


def head(num_bytes: int, *more: str) -> bytes:
    lines = ["POST /v1/classify HTTP/1.1", "Host: x", "Content-Type: video/mp4", f"Content-Length: {num_bytes}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def drip(door: Door, body: bytes, over: threading.Event) -> None:
    """A body that is declared and comes a byte a second."""
    while not over.is_set():
        with suppress(OSError), door.connect() as connection:
            connection.sendall(head(50_000_000))
            while not over.wait(1.0):
                connection.sendall(b"x")
        over.wait(0.2)


def read_slowly(door: Door, body: bytes, over: threading.Event) -> None:
    """An answer in lines that is taken a byte a second, until it is cut, or for a minute."""
    while not over.is_set():
        with suppress(OSError), door.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head(len(body), "Accept: application/x-ndjson") + body)
            for _ in range(60):
                if over.wait(1.0) or not connection.recv(1):
                    break
        over.wait(0.2)


def memory_row(name: str, door: Door, service: Service) -> None:
    before = held_bytes(service)
    peak, done = before, threading.Event()
    bodies_in = threading.Barrier(NUM_BODIES + 1)

    def upload() -> None:
        with suppress(OSError), door.connect() as connection:
            connection.sendall(head(BODY_BYTES))
            piece = bytes(2**18)
            for _ in range(BODY_BYTES // len(piece) - 1):
                connection.sendall(piece)
            bodies_in.wait()  # all but the last piece is there
            bodies_in.wait()
            connection.sendall(piece)
            connection.recv(4096)

    with ExitStack() as stack:
        threads = [threading.Thread(target=upload) for _ in range(NUM_BODIES)]
        for thread in threads:
            thread.start()
        stack.callback(done.set)

        def sample() -> None:
            nonlocal peak
            while not done.wait(0.1):
                peak = max(peak, held_bytes(service))

        sampler = threading.Thread(target=sample)
        sampler.start()
        bodies_in.wait()
        time.sleep(2)  # what is on its way inside has arrived
        bodies_in.wait()
        for thread in threads:
            thread.join()
        done.set()
        sampler.join()
    time.sleep(3)
    growth, after = peak - before, held_bytes(service) - before
    share = growth / (NUM_BODIES * BODY_BYTES)
    print(f"| {name} | {growth / 2**20:.0f} | {share:.2f} | {after / 2**20:.0f} |", flush=True)


def held_bytes(service: Service) -> int:
    """Of all processes of the service: what they have mapped, and memfds, which nobody has to map to hold them."""
    return resident_bytes(service) + sum(memfds(service).values())


def memfds(service: Service) -> dict[tuple[int, int], int]:
    """The pages of each file in memory without a name that is open as a body, by its device and inode."""
    found = {}
    for pid in service.tree():
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                if "memfd:vidseq-body" in os.readlink(descriptor):
                    stat = os.stat(descriptor)
                    found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return found


if __name__ == "__main__":
    main()
