"""What a cell costs: parameters, a stream's memory, a step, a training step; and minGRU's scan beside its rivals.

    python -m benchmarks.cells

One layer of 64 on 64 inputs. CPU-milliseconds of this process with one thread, medians of interleaved rounds: believe
the ratios. Prints markdown tables.
"""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar, get_args

import torch
from torch import Tensor, nn

from vidseq.cells import Layer, build_layer
from vidseq.cells.mingru import MinGru, ParallelScan, loop
from vidseq.config import CellName, RecurrentConfig
from vidseq.state import State

SIZE, BATCH, FRAMES = 64, 16, 64
STREAMS = (1, 64)
SPANS = (64, 256, 1024)
ROUNDS = 11
Name = TypeVar("Name", bound=Hashable)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    compare_cells()
    compare_scans()


def compare_cells() -> None:
    layers = {
        cell: build_layer(RecurrentConfig(cell=cell), number=0, input_size=SIZE).eval() for cell in get_args(CellName)
    }
    stepped_ms = medians_ms(
        {(cell, num_streams): step(layer, num_streams) for cell, layer in layers.items() for num_streams in STREAMS}
    )
    trained_ms = medians_ms({cell: training_step(layer) for cell, layer in layers.items()})
    print("| cell | parameters | bytes a stream | ms a step, 1 stream | 64 streams | ms a training step |")
    print("|---|---|---|---|---|---|")
    for cell, layer in layers.items():
        num_parameters = sum(parameter.numel() for parameter in layer.parameters())
        num_bytes = State(layer.start(1)).num_bytes
        alone_ms, together_ms = (stepped_ms[cell, num_streams] for num_streams in STREAMS)
        print(
            f"| {cell} | {num_parameters:,} | {num_bytes:,} | {alone_ms:.3f} | {together_ms:.3f} "
            f"| {trained_ms[cell]:.2f} |"
        )
    print(f"\nA training step is forward and backward of {BATCH} sequences of {FRAMES} frames.")


def step(layer: Layer, num_streams: int) -> Callable[[], None]:
    """One more frame of every stream, from a memory that has begun."""
    input_BTI = torch.randn(num_streams, 1, SIZE)
    with torch.inference_mode():
        _, memory = layer(torch.randn(num_streams, FRAMES, SIZE), layer.start(num_streams), None)

    @torch.inference_mode()
    def advance() -> None:
        layer.steps(input_BTI, memory, [1] * num_streams)

    return advance


def training_step(layer: Layer) -> Callable[[], None]:
    input_BTI = torch.randn(BATCH, FRAMES, SIZE, requires_grad=True)
    gradient_BTH = torch.randn(BATCH, FRAMES, layer.output_size)

    def learn() -> None:
        hidden_BTH, _ = layer(input_BTI, layer.start(BATCH), None)
        hidden_BTH.backward(gradient_BTH)

    return learn


def compare_scans() -> None:
    """Forward and backward. The gates are one matrix product over all frames, which scan and loop have in common."""
    print(f"\n| minGRU, {BATCH} sequences of | gates, ms | with scan | with loop | nn.GRU | loop / scan | GRU / scan |")
    print("|---|---|---|---|---|---|---|")
    mingru, gru = MinGru(SIZE, SIZE, learned_start=False), nn.GRU(SIZE, SIZE)
    start_BH = torch.zeros(BATCH, SIZE)
    recurrences: dict[str, Callable[[Tensor], Tensor]] = {
        "gates": lambda input_BTI: torch.add(*mingru.decay_and_drive(input_BTI)),
        "scan": lambda input_BTI: ParallelScan.apply(*mingru.decay_and_drive(input_BTI), start_BH),
        "loop": lambda input_BTI: loop(*mingru.decay_and_drive(input_BTI), start_BH),
        "gru": lambda input_BTI: gru(input_BTI.transpose(0, 1))[0],
    }
    for num_frames in SPANS:
        found_ms = medians_ms({name: span(recurrence, num_frames) for name, recurrence in recurrences.items()})
        columns = " | ".join(f"{milliseconds:.2f}" for milliseconds in found_ms.values())
        ratios = " | ".join(f"{found_ms[rival] / found_ms['scan']:.1f}" for rival in ("loop", "gru"))
        print(f"| {num_frames} frames | {columns} | {ratios} |", flush=True)


def span(recurrence: Callable[[Tensor], Tensor], num_frames: int) -> Callable[[], None]:
    input_BTI = torch.randn(BATCH, num_frames, SIZE, requires_grad=True)
    gradient_TBH = torch.randn(num_frames, BATCH, SIZE)
    return lambda: recurrence(input_BTI).backward(gradient_TBH)


def medians_ms(ways: Mapping[Name, Callable[[], None]]) -> dict[Name, float]:
    """CPU-milliseconds of each way, run in turn, each often enough in a turn for the clock to see it."""
    num_calls = {name: max(1, round(5 / spent_ms(way, num_calls=2))) for name, way in ways.items()}
    readings = [{name: spent_ms(way, num_calls=num_calls[name]) for name, way in ways.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(reading[name] for reading in readings) for name in ways}


def spent_ms(way: Callable[[], None], *, num_calls: int) -> float:
    """Of one call."""
    begun = time.process_time()
    for _ in range(num_calls):
        way()
    return 1000 * (time.process_time() - begun) / num_calls


if __name__ == "__main__":
    main()
