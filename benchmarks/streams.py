"""Many live streams on one engine: what sharing a batch brings, and what a greedy stream does to polite ones.

    python -m benchmarks.streams [--model FOLDER]

Together, all streams have a frame ready at once; one by one, each is served alone, by the same code. Rates are per
CPU-second of this process with one thread, medians of interleaved rounds: believe the ratios. Without --model it is the
packaged backbone with untrained heads, which cost as much as trained ones. Prints markdown tables.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vidseq.checkpoint import load_checkpoint
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig
from vidseq.engine import Engine
from vidseq.model import VideoModel
from vidseq.runner import Runner, Work
from vidseq.state import State

STREAMS = (1, 4, 16, 64, 256)
HEADS = HeadsConfig(action_labels=("fight", "no_fight"), frame_labels=("before", "during", "after"))
RECURRENCES = {
    "gru 64 (the default)": RecurrentConfig(),
    "lstm 512": RecurrentConfig(cell="lstm", projection_size=512, hidden_size=512),
}
NUM_POLITE, PUSH_SECONDS, PUSHES, GREEDY_FRAMES = 15, 1.0, 10, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, recurrent in RECURRENCES.items():
        compare_recurrence(name, VideoModel.build(ModelConfig(heads=HEADS, recurrent=recurrent)))
    model = load_checkpoint(options.model).model if options.model else VideoModel.build(ModelConfig(heads=HEADS))
    compare_whole(model)
    asyncio.run(compare_fairness(model))


def compare_recurrence(name: str, model: VideoModel) -> None:
    """From features and B states to scores and B states, one frame a stream: stacking and splitting included."""
    print(
        f"\n| {name}: streams | steps per CPU-s, together | one by one | ratio | one by one, torch's kernel | ratio |"
    )
    print("|---|---|---|---|---|---|")
    for num_streams in STREAMS:
        feature_ND = torch.randn(num_streams, model.encoder.feature_size)
        num_repeats = max(1, 64 // num_streams)
        ways = [
            repeated(step(model, feature_ND, together), times=num_repeats)
            for step, together in ((Step, True), (Step, False), (Kernel, False))
        ]
        together, alone, kernel = rates(ways, num_repeats * num_streams, rounds=5)
        cells = [f"{together:,.0f}", f"{alone:,.0f}", f"{together / alone:.1f}"]
        print(
            "|", " | ".join([str(num_streams), *cells, f"{kernel:,.0f}", f"{together / kernel:.1f}"]), "|", flush=True
        )


class Step:
    """One more frame of every stream, in one call or in one each, as the engine does it."""

    def __init__(self, model: VideoModel, feature_ND: torch.Tensor, together: bool) -> None:
        self.model, self.runner = model, Runner.of(model)
        self.calls = [feature_ND] if together else list(feature_ND.split(1))
        self.states: list[list[State]] = [[self.runner.start] * len(part_ND) for part_ND in self.calls]

    @torch.inference_mode()
    def __call__(self) -> None:
        for call, part_ND in enumerate(self.calls):
            self.states[call] = self.advanced(part_ND, self.states[call])

    def advanced(self, feature_ND: torch.Tensor, states: list[State]) -> list[State]:
        return [state for _, state in self.runner.recur(feature_ND, states, [1] * len(states))]


class Kernel(Step):
    """The same through torch's recurrent module, which lays out an LSTM's weights at every call."""

    def advanced(self, feature_ND: torch.Tensor, states: list[State]) -> list[State]:
        return [self.model.sequence(feature_ND[:, None], states[0])[1]]


def compare_whole(model: VideoModel) -> None:
    """From pixels to scores through the engine, one frame a stream."""
    print("\n| pixels to scores: streams | frames per CPU-s, together | one by one | ratio |\n|---|---|---|---|")
    with Engine(model) as engine:
        for num_streams in STREAMS:
            works = [a_work(model, 1) for _ in range(num_streams)]
            num_repeats = max(1, 16 // num_streams)

            def together(works: list[Work] = works) -> None:
                for future in [engine.submit(work) for work in works]:
                    future.result()

            def alone(works: list[Work] = works) -> None:
                for work in works:
                    engine.submit(work).result()

            ways = [repeated(way, times=num_repeats) for way in (together, alone)]
            shared, single = rates(ways, num_repeats * num_streams, rounds=2)
            print(f"| {num_streams} | {shared:.1f} | {single:.1f} | {shared / single:.2f} |", flush=True)


def repeated(way: Callable[[], None], *, times: int) -> Callable[[], None]:
    def repeat() -> None:
        for _ in range(times):
            way()

    return repeat


def rates(ways: list[Callable[[], None]], count: int, *, rounds: int) -> list[float]:
    """How many of `count` each way does in a CPU-second; each is run once before, to warm up."""
    seconds: list[list[float]] = [[] for _ in ways]
    for round_number in range(rounds + 1):
        for way, readings in zip(ways, seconds, strict=True):
            begun = time.process_time()
            way()
            if round_number > 0:
                readings.append(time.process_time() - begun)
    return [count / statistics.median(readings) for readings in seconds]


async def compare_fairness(model: VideoModel) -> None:
    """Latencies of the polite streams: from the moment a frame is there to its scores."""
    print(f"\n| {NUM_POLITE} polite streams, a frame each {PUSH_SECONDS:g} s | p50 ms | p95 ms | greedy frames/s |")
    print("|---|---|---|---|")
    for name, greedy, turn_frames in (
        ("alone", False, None),
        (f"beside a greedy one ({GREEDY_FRAMES} frames a push)", True, None),
        ("the same without turns", True, GREEDY_FRAMES),
    ):
        engine = Engine(model, turn_frames=turn_frames)
        await engine.advance(a_work(model, 4))
        begun = time.perf_counter()
        hog = asyncio.create_task(push_greedily(engine, model)) if greedy else None
        latencies = await asyncio.gather(*(push_politely(engine, model, seed) for seed in range(NUM_POLITE)))
        seconds = time.perf_counter() - begun
        num_greedy = 0 if hog is None else await stopped(hog)
        await asyncio.to_thread(engine.close)
        p50, p95 = np.percentile(latencies, [50, 95])
        print(f"| {name} | {1000 * p50:.0f} | {1000 * p95:.0f} | {num_greedy / seconds:.1f} |", flush=True)


async def push_politely(engine: Engine, model: VideoModel, seed: int) -> list[float]:
    """Seconds from when each frame was due; streams are out of step with each other."""
    work, latencies = a_work(model, 1), []
    due = time.perf_counter() + random.Random(seed).uniform(0, PUSH_SECONDS)
    for _ in range(PUSHES):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        done = await engine.advance(work)
        latencies.append(time.perf_counter() - due)
        work, due = Work(work.pixels_THWC, done.state), due + PUSH_SECONDS
    return latencies


async def push_greedily(engine: Engine, model: VideoModel) -> int:
    """The next push as soon as the last is answered, until cancelled; the frames that were answered."""
    work, num_frames = a_work(model, GREEDY_FRAMES), 0
    try:
        while True:
            done = await engine.advance(work)
            work, num_frames = Work(work.pixels_THWC, done.state), num_frames + GREEDY_FRAMES
    except asyncio.CancelledError:
        return num_frames


async def stopped(task: "asyncio.Task[int]") -> int:
    task.cancel()
    return await task


def a_work(model: VideoModel, num_frames: int) -> Work:
    size = model.sequence.config.picture.size
    return Work(np.random.default_rng(0).integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8), None)


if __name__ == "__main__":
    main()
