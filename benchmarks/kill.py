"""Live sessions while replicas die: labels lost, doubled and changed, and the longest pause that a client saw.

    python -m benchmarks.kill [--sessions 50] [--replicas 3] [--kills 10]

A real `vidseq serve`, clients that push pictures in real time, and SIGKILL to one replica whenever all of them run.
What each client was told is held against the same stream, uninterrupted, in one process. The model is a small one with
random weights: what is measured is not what it says, but that it says all of it once.
"""

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.memory import save_model
from tests.running import Service, descendants, running_service
from vidseq.checkpoint import load_checkpoint
from vidseq.client import AsyncClient
from vidseq.config import Limits
from vidseq.engine import Engine
from vidseq.live import Live
from vidseq.messages import Encoded, FrameHeader, StreamOptions
from vidseq.schemas import Moment

RATE = 8
PUSH_FRAMES = 4
SIZE = 32
PATIENCE_SECONDS = 180.0


@dataclass
class Client:
    """One session: what it pushed and what it was told, and when."""

    number: int
    num_pushed: int = 0
    labels: list[Moment] = field(default_factory=list)
    longest_pause_seconds: float = 0.0

    async def run(self, url: str, stop: asyncio.Event) -> None:
        async with AsyncClient(url, max_retries=50) as client, client.stream() as stream:
            listening = asyncio.create_task(self._listen(stream))
            due_seconds = time.monotonic() + self.number / 50
            while not stop.is_set():
                await asyncio.sleep(max(0.0, due_seconds - time.monotonic()))
                frames = [self.frame(self.num_pushed + index) for index in range(PUSH_FRAMES)]
                await stream.push_many(frames)
                self.num_pushed += PUSH_FRAMES
                due_seconds += PUSH_FRAMES / RATE
            await stream.end()
            await listening

    async def _listen(self, stream) -> None:  # type: ignore[no-untyped-def]
        last_seconds = time.monotonic()
        async for label in stream:
            self.labels.append(label)
            now_seconds = time.monotonic()
            self.longest_pause_seconds = max(self.longest_pause_seconds, now_seconds - last_seconds)
            last_seconds = now_seconds

    def frame(self, index: int):  # type: ignore[no-untyped-def]
        """(seconds, picture): the same for the same client and index."""
        seed = np.random.default_rng((self.number, index // 16)).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        return index / RATE, np.roll(seed, index % 16, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save_model(model, size=SIZE)
        with running_service(model, "--replicas", str(options.replicas)) as service:
            clients = asyncio.run(
                live(service, sessions=options.sessions, replicas=options.replicas, kills=options.kills)
            )
        told = asyncio.run(compared(model, clients))
    print(f"\n{len(clients)} sessions, {options.replicas} replicas, {options.kills} replicas killed, ", end="")
    print(f"{sum(client.num_pushed for client in clients):,} frames pushed\n")
    print("| lost | doubled | differing | longest pause of a client |\n|---|---|---|---|")
    pause_seconds = max(client.longest_pause_seconds for client in clients)
    print(f"| {told['lost']} | {told['doubled']} | {told['differing']} | {pause_seconds:.1f} s |")


async def live(service: Service, *, sessions: int, replicas: int, kills: int) -> list[Client]:
    """What each of so many clients was told while replicas were killed."""
    stop = asyncio.Event()
    clients = [Client(number) for number in range(sessions)]
    running = [asyncio.create_task(client.run(service.url, stop)) for client in clients]
    killer = asyncio.create_task(_kill(service, num_replicas=replicas, num_kills=kills))
    await asyncio.wait([*running, killer], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await killer
    await asyncio.gather(*running)
    return clients


async def _kill(service: Service, *, num_replicas: int, num_kills: int) -> None:
    chance = random.Random(0)
    print("| kill | after s | all back after s |\n|---|---|---|")
    begun = time.monotonic()
    await all_run(service, num_replicas)
    for kill in range(1, num_kills + 1):
        await asyncio.sleep(chance.uniform(2, 5))
        replicas = await all_run(service, num_replicas)
        os.kill(chance.choice(sorted(replicas)), signal.SIGKILL)
        killed = time.monotonic()
        await asyncio.sleep(0.5)
        await all_run(service, num_replicas)
        print(f"| {kill} | {killed - begun:.1f} | {time.monotonic() - killed:.1f} |", flush=True)
    await asyncio.sleep(3)


async def all_run(service: Service, num_replicas: int) -> set[int]:
    """The replicas' process ids, once all have loaded their model and opened the store."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(replicas := {pid for pid in descendants(service.process.pid) if _is_ready(pid)}) < num_replicas:
        assert time.monotonic() < deadline, f"only {len(replicas)} of {num_replicas} replicas run"
        await asyncio.sleep(0.25)
    return replicas


def _is_ready(pid: int) -> bool:
    """A replica that has the store open: it does so last."""
    try:
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ServeReplica:service"):
            return False
        return any(os.readlink(link).endswith("sessions.db") for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


async def compared(model: Path, clients: list[Client]) -> dict[str, int]:
    checkpoint = load_checkpoint(model)
    checkpoint.model.encoder.batch_frames = 64
    counts = {"lost": 0, "doubled": 0, "differing": 0}
    with Engine(checkpoint.model, turn_frames=64) as engine, ThreadPoolExecutor(1) as decoders:
        live = Live(checkpoint, advance=engine.advance, decoders=decoders, limits=Limits())
        for client in clients:
            expected = {moment.seconds: moment for moment in await _uninterrupted(live, client)}
            found = {moment.seconds: moment for moment in client.labels}
            counts["lost"] += len(expected.keys() - found.keys())
            counts["doubled"] += len(client.labels) - len(found)
            counts["differing"] += sum(_differs(expected.get(seconds), moment) for seconds, moment in found.items())
    return counts


async def _uninterrupted(live: Live, client: Client) -> list[Moment]:
    session, labels, options = live.start(), list[Moment](), StreamOptions()
    for start in range(0, client.num_pushed, 64):
        frames = [_encoded(*client.frame(index)) for index in range(start, min(start + 64, client.num_pushed))]
        applied, session = await live.push(session, frames, options=options, born_seconds=time.perf_counter())
        labels += applied.labels
    return labels


def _encoded(seconds: float, picture) -> Encoded:  # type: ignore[no-untyped-def]
    data = picture.tobytes()
    return Encoded(FrameHeader(seconds=seconds, format="rgb", bytes=len(data), width=SIZE, height=SIZE), data)


def _differs(expected: Moment | None, found: Moment) -> bool:
    if expected is None:
        return True
    pairs = ((expected.frame, found.frame), (expected.action, found.action))
    return any(one.label != other.label or abs(one.score - other.score) > 1e-5 for one, other in pairs if one and other)


if __name__ == "__main__":
    main()
