"""One more head on a pass that goes on anyway: CPU-seconds a clip for one model, and for ten that share its backbone.

    python -m benchmarks.batch_heads [--real ../shared/data/fight] [--clips 24] [--heads 10] [--rounds 3] [--give-back]

In this process and its decoders, one thread, in turns. The models have the packaged backbone and random heads.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean

import torch

from benchmarks.batch_features import cpu_seconds, find_clips, save_head
from serving.batch.job import Started
from serving.batch.score_job import ScoreJob
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="a folder of clips; without it some are drawn")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--give-back", action="store_true", help="give freed memory back, as glibc does by itself")
    arguments = parser.parse_args()
    if not arguments.give_back:
        keep_freed_memory()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips = find_clips(arguments.real, folder, arguments.clips)
        models = [save_head(folder / f"model{seed}", seed=seed) for seed in range(arguments.heads)]
        handles = {number: started(models[:number]) for number in (1, 2, arguments.heads)}
        seconds: dict[int, list[float]] = {number: [] for number in handles}
        for _ in range(arguments.rounds):
            for number, handle in handles.items():
                handle.rows(str(clips[0]), "")
                begun = cpu_seconds()
                for clip in clips:
                    handle.rows(str(clip), "")
                seconds[number].append((cpu_seconds() - begun) / len(clips))
    costs = {number: mean(values) for number, values in seconds.items()}
    print(f"{len(clips)} clips, {arguments.rounds} rounds in turns\n")
    print("| models | CPU-ms a clip | added by each after the first |")
    print("|---|---|---|")
    for number, cost in costs.items():
        added = "" if number == 1 else f"{100 * (cost / costs[1] - 1) / (number - 1):.2f} %"
        print(f"| {number} | {1000 * cost:.1f} | {added} |")


def started(models: list[Path]) -> Started:
    infos = tuple(load_checkpoint(model).info for model in models)
    job = ScoreJob(tuple(models), None, infos, top_k=5, frames=False, limits=Limits())
    return job.start("cpu")


if __name__ == "__main__":
    main()
