"""One more head in a service's engine: CPU-seconds a clip for one model, for ten asked together, and for ten apart.

    python -m benchmarks.heads [--real ../shared/data/fight] [--clips 24] [--heads 10] [--rounds 3]

In this process and its decoders, one thread, in turns. The models have the packaged backbone and random heads.
"""

import argparse
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch

from benchmarks.batch_features import cpu_seconds, find_clips, save_head
from serving.labeller import Labeller
from vidseq.config import Limits
from vidseq.sandbox.box import Sandbox

Ask = Callable[[Path], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="a folder of clips; without it some are drawn")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, Sandbox() as sandbox:
        folder = Path(scratch)
        clips = find_clips(arguments.real, folder, arguments.clips)
        first, *others = (save_head(folder / f"model{seed}", seed=seed) for seed in range(arguments.heads))
        labeller = Labeller(first, also=others, name=None, device="cpu", limits=Limits(), sandbox=sandbox)
        names = [info.name for info in labeller.models.models]
        ways = {
            "one": together(labeller, names[:1]),
            "two together": together(labeller, names[:2]),
            f"{len(names)} together": together(labeller, names),
            f"{len(names)} one by one": apart(labeller, names),
        }
        costs = measured(ways, clips, num_rounds=arguments.rounds)
        labeller.close()
    print(f"{len(clips)} clips, {arguments.rounds} rounds in turns\n")
    print("| models | CPU-ms a clip | of one |")
    print("|---|---|---|")
    for way, cost in costs.items():
        print(f"| {way} | {1000 * cost:.1f} | {cost / costs['one']:.3f} |")


def measured(ways: dict[str, Ask], clips: list[Path], *, num_rounds: int) -> dict[str, float]:
    """CPU-seconds a clip."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(num_rounds):
        for way, ask in ways.items():
            ask(clips[0])
            begun = cpu_seconds()
            for clip in clips:
                ask(clip)
            seconds[way].append((cpu_seconds() - begun) / len(clips))
    return {way: mean(values) for way, values in seconds.items()}


def together(labeller: Labeller, names: list[str]) -> Ask:
    def ask(clip: Path) -> None:
        with clip.open("rb") as video:
            labeller.classify_each(video, models=names, stop=threading.Event())

    return ask


def apart(labeller: Labeller, names: list[str]) -> Ask:
    asks = [together(labeller, [name]) for name in names]
    return lambda clip: [ask(clip) for ask in asks]


if __name__ == "__main__":
    main()
