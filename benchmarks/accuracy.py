"""Accuracy on labelled clips, cross-validated by group: mean-pool, Elman, GRU and LSTM on the same features and folds.

    python -m benchmarks.accuracy ../shared/data/fight --group-by source --folds 5 --seeds 3
    python -m benchmarks.accuracy ../shared/data/yoga --group-by subject --folds 4 --seeds 3 --background transition

The recipe is the one `vidseq train` uses by default; nothing is chosen on these folds. Each interval is a bootstrap
over groups; differences are paired, clip by clip, to mean-pool.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.clips import read_clips
from training.crossval import cross_validate
from training.dataset import Dataset, load_dataset
from training.evaluate import ClipScores, evaluate
from training.features import FeatureExtractor
from training.metrics import bootstrap_interval
from training.recipes import Options, default
from training.splits import make_folds
from vidseq.config import ModelConfig
from vidseq.encoder import Encoder, load_default_weights

CELLS = ("mean-pool", "elman", "gru", "lstm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--group-by", required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--background")
    arguments = parser.parse_args()
    folder = read_clips(arguments.clips, group_by=arguments.group_by, background=arguments.background)
    labels = {"action_labels": folder.action_labels, "frame_labels": folder.frame_labels}
    config, _ = default(Options(), **labels, background=folder.background)
    encoder = Encoder(config.encoder)
    load_default_weights(encoder)
    dataset = load_dataset(folder, FeatureExtractor(encoder, config=config), on_bad="stop", on_clip=lambda: None)
    print(f"{len(dataset.clips)} clips, {arguments.folds} folds by {arguments.group_by}, {arguments.seeds} seeds\n")
    print("| | clip accuracy [95 %] | minus mean-pool [95 %] | clip macro F1 | frame accuracy | frame macro F1 |")
    print("|---|---|---|---|---|---|")
    right_by_cell: dict[str, NDArray[np.float64]] = {}
    for cell in CELLS:
        runs = [_run(dataset, cell, seed, num_folds=arguments.folds) for seed in range(arguments.seeds)]
        right_by_cell[cell] = np.mean([_right(dataset, scores) for scores in runs], axis=0)
        print(_row(cell, dataset, runs, right_by_cell), flush=True)


def _run(dataset: Dataset, cell: str, seed: int, *, num_folds: int) -> Sequence[ClipScores]:
    """Scores of every clip by models that have not seen its group; the seed draws folds, split and weights."""
    labels = {"action_labels": dataset.action_labels, "frame_labels": dataset.frame_labels}
    options = Options.model_validate({"seed": seed} | ({} if cell == "mean-pool" else {"cell": cell}))
    config, settings = default(options, **labels, background=dataset.background)
    wanted: ModelConfig = config.baseline() if cell == "mean-pool" else config
    folds = make_folds(dataset.clips, num_folds=num_folds, seed=seed)
    return cross_validate(dataset, folds, config=wanted, settings=settings, on_epoch=lambda _: None).scores


def _right(dataset: Dataset, scores: Sequence[ClipScores]) -> NDArray[np.float64]:
    """1 for every clip that was called right."""
    called = [dataset.action_labels[int(score.action_A.argmax())] for score in scores if score.action_A is not None]
    return np.array([float(c == clip.label) for c, clip in zip(called, dataset.clips, strict=True)])


def _row(
    cell: str, dataset: Dataset, runs: Sequence[Sequence[ClipScores]], right: dict[str, NDArray[np.float64]]
) -> str:
    groups = [clip.group or clip.path.name for clip in dataset.clips]
    examples = dataset.examples(range(len(dataset.clips)))
    evaluations = [evaluate(dataset, examples, scores, scores) for scores in runs]
    difference = right[cell] - right["mean-pool"]
    clip_f1 = np.mean([e.clips.macro_f1 for e in evaluations if e.clips])
    frames = [e.frames for e in evaluations if e.frames]
    frame_cells = (
        f"{np.mean([f.accuracy for f in frames]):.3f} | {np.mean([f.macro_f1 for f in frames]):.3f}"
        if frames
        else "- | -"
    )
    cells = (cell, _interval(right[cell], groups), _interval(difference, groups), f"{clip_f1:.3f}", frame_cells)
    return f"| {' | '.join(cells)} |"


def _interval(values_N: NDArray[np.float64], groups: Sequence[str]) -> str:
    low, high = bootstrap_interval(groups, lambda indices: float(values_N[indices].mean()))
    return f"{values_N.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    torch.set_num_threads(1)  # the models are small: threads cost more than they bring
    main()
