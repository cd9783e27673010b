"""Five times the load that a service can take: what it still does, how fast it says no, how soon it is itself again.

    python -m benchmarks.overload [--seconds 20] [--times 5] [--small] [--bare]

Against a real `vidseq serve` (or its application alone, `--bare`), and through the edge. First its peak: answers a
second to 8 clients that each wait for theirs. Then requests arrive on their own clock, `--times` as many a second,
whatever became of those before (an open loop); each is one connection and one small clip, without retries. What is
accepted is counted from the sixth second on, when the first have got through the queue, to the last arrival. At last a
request at a time, until three in a row are answered in no more than twice the time of before.

The model is what `vidseq train` makes, with random weights, and the clip has two and a half seconds. With `--small`
both are toys: so little work that what a refusal costs is felt.

The clients are in a process of their own, but on the same CPUs as the service: what they use is missing there, and a
refusal is heard when they come to look. So CPU-seconds a second, while five times the load came, are told beside: of
the clients, the edge and the service; and the service's own time, from its histogram (/metrics).
"""

import argparse
import asyncio
import os
import re
import ssl
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.bare import running_bare
from benchmarks.memory import draw, save_model
from tests.edge import running_edge
from tests.running import running_service
from vidseq.config import EncoderConfig, Picture

NUM_CLIENTS = 8  # as many as may always wait: none is refused
LEAD_SECONDS = 5.0
MAX_RECOVERY_SECONDS = 60.0


class Answer(NamedTuple):
    """0 as status: none came."""

    status: int
    seconds: float
    retry_after: bool
    ended_seconds: float


class Door(NamedTuple):
    host: str
    port: int
    trust: ssl.SSLContext | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--small", action="store_true", help="a toy model and a clip of one second")
    parser.add_argument("--bare", action="store_true", help="the application behind uvicorn, without Ray")
    options = parser.parse_args()
    running = running_bare if options.bare else running_service
    with tempfile.TemporaryDirectory() as folder:
        model, file = Path(folder) / "model", Path(folder) / "clip.mp4"
        if options.small:
            save_model(model)
        else:
            save_model(model, encoder=EncoderConfig(weights="none"), size=Picture().size)
        draw(file, num_frames=12 if options.small else 30)
        clip = file.read_bytes()
        with running(model) as service, running_edge(service.url, connections_of_address=4000) as edge:
            doors = {"directly": door_of(service.url, None), "through the edge": door_of(edge.url, edge.trust)}
            print(
                "| | peak, answers/s | asked/s | accepted/s | of the peak | refused | with Retry-After | no answer ",
                end="",
            )
            print("| refused within, p50, ms | p99, ms | normal after, s | CPU: clients | edge | service |")
            print("|---" * 14 + "|", flush=True)
            for name, door in doors.items():
                watched = Watched(service.tree(), edge.process.pid)
                asyncio.run(row(name, door, clip, watched, seconds=options.seconds, times=options.times))
            if not options.bare:
                time.sleep(15)  # replicas report to the node's agent every 10 seconds
                print(f"\nBy the service's own clock: {refused_within(service.url)}")


class Watched(NamedTuple):
    """Whose CPU-seconds are told: the service's processes, with children of theirs that have ended, and the edge."""

    service: set[int]
    edge: int

    def cpu_seconds(self) -> tuple[float, float, float]:
        """Of this process, of the edge, of the service."""
        return time.process_time(), cpu_seconds(self.edge), sum(map(cpu_seconds, self.service))


def cpu_seconds(pid: int) -> float:
    """Of a process and of those of its children that it has waited for."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(number) for number in numbers[11:15]) / os.sysconf("SC_CLK_TCK")


def door_of(url: str, trust: ssl.SSLContext | None) -> Door:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return Door(parts.hostname, parts.port, trust)


async def row(name: str, door: Door, clip: bytes, watched: Watched, *, seconds: float, times: float) -> None:
    usual = [await ask(door, clip) for _ in range(10)]
    usual_seconds = statistics.median(answer.seconds for answer in usual)
    peak = await closed_loop(door, clip, seconds=seconds)
    used_before = watched.cpu_seconds()
    asking, begun, asked_seconds = await open_loop(door, clip, rate=times * peak, seconds=seconds)
    used = [after - before for after, before in zip(watched.cpu_seconds(), used_before, strict=True)]
    recovered = await recovery_seconds(door, clip, usual_seconds)  # from the last arrival on
    answers = await asyncio.gather(*asking)
    taken = [answer for answer in answers if answer.status == 200]
    accepted = [answer for answer in taken if LEAD_SECONDS <= answer.ended_seconds - begun <= asked_seconds]
    accepted_a_second = len(accepted) / (asked_seconds - LEAD_SECONDS)
    refused = [answer for answer in answers if answer.status in (429, 503)]
    took = sorted(1000 * answer.seconds for answer in refused) or [float("nan")]
    lost = len(answers) - len(taken) - len(refused)
    cells = [name, f"{peak:.1f}", f"{len(answers) / asked_seconds:.1f}", f"{accepted_a_second:.1f}"]
    cells += [f"{accepted_a_second / peak:.2f}", str(len(refused))]
    cells += [str(sum(answer.retry_after for answer in refused)), str(lost), f"{statistics.median(took):.0f}"]
    cells += [f"{took[int(0.99 * (len(took) - 1))]:.0f}", f"{recovered:.1f}"]
    cells += [f"{seconds_used / asked_seconds:.2f}" for seconds_used in used]
    print("|", " | ".join(cells), "|", flush=True)


async def closed_loop(door: Door, clip: bytes, *, seconds: float) -> float:
    """Answers a second to clients that each wait for theirs."""
    end = time.perf_counter() + seconds
    num_answers = 0

    async def client() -> None:
        nonlocal num_answers
        while time.perf_counter() < end:
            answer = await ask(door, clip)
            assert answer.status == 200, f"status {answer.status}, where nobody asks for much"
            num_answers += 1

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(NUM_CLIENTS)))
    return num_answers / (time.perf_counter() - begun)


async def open_loop(
    door: Door, clip: bytes, *, rate: float, seconds: float
) -> tuple[list[asyncio.Task[Answer]], float, float]:
    """Requests that arrive `rate` a second; when the first did, and for how long they arrived."""
    asking: list[asyncio.Task[Answer]] = []
    begun = time.perf_counter()
    while (now := time.perf_counter() - begun) < seconds:
        while len(asking) < rate * now:
            asking.append(asyncio.create_task(ask(door, clip)))
        await asyncio.sleep(0.002)
    asked_seconds = time.perf_counter() - begun
    return asking, begun, asked_seconds


async def recovery_seconds(door: Door, clip: bytes, usual_seconds: float) -> float:
    begun = time.perf_counter()
    num_good = 0
    while num_good < 3:
        answer = await ask(door, clip)
        num_good = num_good + 1 if answer.status == 200 and answer.seconds <= 2 * usual_seconds else 0
        if time.perf_counter() - begun > MAX_RECOVERY_SECONDS:
            return float("inf")
    return time.perf_counter() - begun


async def ask(door: Door, clip: bytes) -> Answer:
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection(door.host, door.port, ssl=door.trust)
            try:
                lines = ["POST /v1/classify HTTP/1.1", "Host: x", "Connection: close", "Content-Type: video/mp4"]
                writer.write("\r\n".join([*lines, f"Content-Length: {len(clip)}", "", ""]).encode() + clip)
                head = await reader.readuntil(b"\r\n\r\n")
                seconds = time.perf_counter() - begun
                await reader.read()
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError):  # a timeout is an OSError, too
        return Answer(0, time.perf_counter() - begun, False, time.perf_counter())
    return Answer(int(head.split(b" ", 2)[1]), seconds, b"\r\nretry-after:" in head.lower(), begun + seconds)


def refused_within(url: str) -> str:
    """What its histogram says of all requests so far."""
    with urllib.request.urlopen(url + "/metrics", timeout=20) as answer:
        page = answer.read().decode()
    buckets: dict[float, float] = {}
    for edge, count in re.findall(r'vidseq_request_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} ([\d.e+]+)', page):
        buckets[float(edge)] = buckets.get(float(edge), 0.0) + float(count)
    total = buckets.get(float("inf"), 0.0)
    return ", ".join(f"{buckets[edge]:.0f} of {total:.0f} within {1000 * edge:.0f} ms" for edge in (0.01, 0.1, 1.0))


if __name__ == "__main__":
    main()
