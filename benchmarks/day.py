"""A stream as long as a day, and a video of two hours: memory and time, the first hour against the last.

    python -m benchmarks.day [--hours 24]

The stream is pushed as fast as it goes, 8 frames for each of its seconds in pushes of 8 seconds. After each push its
session is written to the store and read back, as a service does whose replicas change at every push. Each part runs in
a process of its own; the backbone is a small one with random weights, so that a day ends in minutes.
"""

import argparse
import asyncio
import secrets
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.memory import draw, save_model
from serving.sealing import Tokens
from serving.sessions import Sessions, SessionSettings
from serving.store import Lifetimes, open_store
from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.config import Limits
from vidseq.engine import Engine
from vidseq.incoming import Incoming
from vidseq.labelling import Labelling
from vidseq.live import Live
from vidseq.messages import Encoded, FrameHeader, Open, pack_frames
from vidseq.runner import Work, direct
from vidseq.sampling import sample
from vidseq.video import Reader

RATE = 8
PUSH_SECONDS = 8
SIZE = 32
FILE_HOURS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--part", choices=["stream", "file"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "stream":
        asyncio.run(_stream(options.hours))
    elif options.part == "file":
        asyncio.run(_file())
    else:
        for part in ("stream", "file"):
            subprocess.run(
                [sys.executable, "-m", "benchmarks.day", "--part", part, "--hours", str(options.hours)], check=True
            )


async def _stream(hours: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", size=SIZE)
        checkpoint = load_checkpoint(Path(folder) / "model")
        checkpoint.model.encoder.batch_frames = RATE * PUSH_SECONDS
        keys = (secrets.token_bytes(32),)
        store = open_store(f"sqlite:///{folder}/sessions.db", lifetimes=Lifetimes(), keys=keys)
        with Engine(checkpoint.model, turn_frames=RATE * PUSH_SECONDS) as engine, ThreadPoolExecutor(1) as decoders:
            live = Live(checkpoint, advance=engine.advance, decoders=decoders, limits=Limits())
            sessions = Sessions(live, store=store, tokens=Tokens(keys), settings=SessionSettings())
            await _push_hours(sessions, hours)
        store.close()


async def _push_hours(sessions: Sessions, hours: int) -> None:
    opened = (await sessions.open(Open(), owner="")).ready
    assert opened.session is not None
    pictures = np.random.default_rng(0).integers(0, 256, (64, SIZE, SIZE, 3), dtype=np.uint8)
    rows, num_labels, sequence = [], 0, 0
    for hour in range(hours):
        begun = time.process_time()
        for start_seconds in range(hour * 3600, (hour + 1) * 3600, PUSH_SECONDS):
            push = pack_frames(_frame(pictures, start_seconds * RATE + index) for index in range(PUSH_SECONDS * RATE))
            applied = await sessions.put(opened.session, sequence=sequence, push=push, owner="")
            num_labels, sequence = num_labels + len(applied.labels), sequence + 1
        rows.append((_resident_mib(), time.process_time() - begun))
    assert num_labels == hours * 3600 * RATE, f"{num_labels} labels for {hours} hours"
    _tell(f"{hours} h stream", rows, num_frames=3600 * RATE)


def _frame(pictures: np.ndarray, index: int) -> Encoded:  # type: ignore[type-arg]
    data = pictures[index % len(pictures)].tobytes()
    return Encoded(FrameHeader(seconds=index / RATE, format="rgb", bytes=len(data), width=SIZE, height=SIZE), data)


async def _file() -> None:
    """A file is fed while it is decoded, as an upload is."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model")
        clip = Path(folder) / "clip.avi"
        draw(clip, num_frames=FILE_HOURS * 3600 * 12)
        with Incoming(max_bytes=2**33) as incoming:
            decoding = asyncio.to_thread(_decode, incoming, load_checkpoint(Path(folder) / "model"))
            rows, num_frames = (await asyncio.gather(decoding, _feed(incoming, clip)))[0]
    _tell(f"{FILE_HOURS} h file, by ten minutes", rows, num_frames=num_frames // len(rows))


def _decode(incoming: Incoming, checkpoint: Checkpoint) -> tuple[list[tuple[float, float]], int]:
    labelling, compute = Labelling.of(checkpoint.config), direct(checkpoint.model)
    track, state, rows, begun, num_frames = labelling.start(), None, [], time.process_time(), 0
    with Reader(incoming, picture=checkpoint.config.picture) as reader:
        for chunk in sample(reader, checkpoint.config.sampling):
            done = compute(Work(chunk.pixels_THWC, state)).result()
            state = done.state
            _, track = labelling.settle(track, chunk.seconds_T.tolist(), done.scores)
            num_frames += len(chunk)
            if chunk.seconds_T[-1] >= 600 * (len(rows) + 1) - 5:
                rows.append((_resident_mib(), time.process_time() - begun))
                begun = time.process_time()
    return rows, num_frames


async def _feed(incoming: Incoming, clip: Path) -> None:
    with clip.open("rb") as file:
        while chunk := file.read(64 * 1024):
            await incoming.feed(chunk)
    incoming.finish()


def _tell(title: str, rows: list[tuple[float, float]], *, num_frames: int) -> None:
    memory, seconds = zip(*rows, strict=True)
    slope = float(np.polyfit(range(len(memory) - 1), memory[1:], 1)[0]) if len(memory) > 2 else 0.0
    steps = max((later - earlier for earlier, later in pairwise(memory[1:])), default=0.0)
    print(f"\n| {title} | memory MiB | CPU-ms a frame |\n|---|---|---|")
    for name, index in (("first", 0), ("second", min(1, len(rows) - 1)), ("last", -1)):
        print(f"| {name} | {memory[index]:.1f} | {1000 * seconds[index] / num_frames:.3f} |")
    ratio = seconds[-1] / seconds[0]
    print(f"\nslope {slope:.3f} MiB a row after the first (largest step {steps:.1f}); time last / first {ratio:.2f}")


def _resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    main()
