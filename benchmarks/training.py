"""What training costs beside what its features cost: 20 epochs on cached features against computing them once.

    python -m benchmarks.training ../shared/data/fight

CPU-seconds of this process over all clips, at the defaults of `vidseq train`; of each cell the least of three rounds,
one cell after the other in each. What a cell takes beyond the mean pool, which is the same network without it, is the
share of its loop over time, forwards and backwards.
"""

import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import get_args

import torch

from training.data.clips import read_clips
from training.data.dataset import load_dataset
from training.data.features import FeatureExtractor
from training.loop.fit import fit
from training.options import Options, configure
from vidseq.config import CellName, ModelConfig, RecurrentConfig
from vidseq.encoder import Encoder, load_default_weights

NO_CELL = "mean-pool"


def main() -> None:
    folder = read_clips(Path(sys.argv[1]))
    config, settings = configure(
        Options(epochs=20, patience_epochs=20),
        action_labels=folder.action_labels,
        frame_labels=folder.frame_labels,
        background=folder.background,
    )
    encoder = Encoder(config.encoder)
    load_default_weights(encoder)
    with tempfile.TemporaryDirectory() as cache:
        extractor = FeatureExtractor(encoder, config=config, store=Path(cache))
        rows = []
        for name in ("features, computed", "features, from the cache"):
            begun = time.process_time()
            for clip in folder.clips:
                extractor(clip.path)
            rows.append((name, time.process_time() - begun))
        dataset = load_dataset(folder, extractor, on_bad="stop", on_clip=lambda: None)
    examples = dataset.examples(range(len(folder.clips)))
    configs = {cell: _with_cell(config, cell) for cell in (NO_CELL, *get_args(CellName))}
    seconds: dict[str, list[float]] = {cell: [] for cell in configs}
    for _, (cell, chosen) in product(range(3), configs.items()):
        begun = time.process_time()
        fit(examples, examples[:40], config=chosen, settings=settings, run_file=None, on_epoch=lambda _: None)
        seconds[cell].append(time.process_time() - begun)
    least = {cell: min(rounds) for cell, rounds in seconds.items()}
    print(f"{len(folder.clips)} clips, {sum(len(e.feature_TD) for e in examples)} sampled frames\n")
    print("| | CPU-seconds | of the features | of it the cell's loop |\n|---|---|---|---|")
    for name, taken in rows:
        print(f"| {name} | {taken:.1f} | {taken / rows[0][1]:.3f} | - |")
    for cell, taken in least.items():
        share = "-" if cell == NO_CELL else f"{1 - least[NO_CELL] / taken:.0%}"
        print(f"| 20 epochs, {cell} | {taken:.1f} | {taken / rows[0][1]:.3f} | {share} |")


def _with_cell(config: ModelConfig, cell: str) -> ModelConfig:
    if cell == NO_CELL:
        return config.baseline()
    recurrent = RecurrentConfig.model_validate(config.recurrent.model_dump() | {"cell": cell})
    return config.model_copy(update={"recurrent": recurrent})


if __name__ == "__main__":
    torch.set_num_threads(1)  # waiting threads count as work
    main()
