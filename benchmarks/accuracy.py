"""Accuracy on labelled clips, cross-validated by group: mean-pool, Elman, GRU and LSTM on the same features and folds.

    python -m benchmarks.accuracy ../shared/data/fight --group-by source --folds 5 --seeds 3
    python -m benchmarks.accuracy ../shared/data/yoga --group-by subject --folds 4 --seeds 3 --background transition

The recipe is the one `vidseq train` uses by default; nothing is chosen on these folds. Each interval is a bootstrap
over groups; differences are paired, clip by clip, to mean-pool.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.clips import read_clips
from training.crossval import cross_validate
from training.dataset import Dataset, load_dataset
from training.features import FeatureExtractor
from training.metrics.clips import clip_metrics
from training.metrics.frames import frame_metrics
from training.metrics.resampling import Resampling, intervals_of, mean_of
from training.options import Options, configure
from training.scores import ClipScores
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
    if not folder.action_labels:
        sys.exit(f"{arguments.clips}: no clip has an action, and that is what is compared")
    labels = {"action_labels": folder.action_labels, "frame_labels": folder.frame_labels}
    config, _ = configure(Options(), **labels, background=folder.background)
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
    config, settings = configure(options, **labels, background=dataset.background)
    wanted: ModelConfig = config.baseline() if cell == "mean-pool" else config
    folds = make_folds(dataset.clips, num_folds=num_folds, seed=seed)
    return cross_validate(dataset, folds, config=wanted, settings=settings, on_epoch=lambda _: None).scores


def _right(dataset: Dataset, scores: Sequence[ClipScores]) -> NDArray[np.float64]:
    """For every clip with a label, in order: 1 if it was called right, else 0."""
    return np.array(
        [
            float(dataset.action_labels[int(action_A.argmax())] == clip.label)
            for action_A, clip in zip(_actions_NA(scores), dataset.clips, strict=True)
            if clip.label is not None
        ]
    )


def _actions_NA(scores: Sequence[ClipScores]) -> NDArray[np.float64]:
    return np.stack([score.action_A for score in scores if score.action_A is not None])


def _row(
    cell: str, dataset: Dataset, runs: Sequence[Sequence[ClipScores]], right: dict[str, NDArray[np.float64]]
) -> str:
    groups = [clip.group or str(clip.path) for clip in dataset.clips if clip.label is not None]
    difference = right[cell] - right["mean-pool"]
    clip_f1, frame_accuracy, frame_f1 = zip(*(_figures(dataset, scores) for scores in runs), strict=True)
    intervals = (_interval(right[cell], groups), _interval(difference, groups))
    return f"| {' | '.join((cell, *intervals, *map(_mean, (clip_f1, frame_accuracy, frame_f1))))} |"


def _figures(dataset: Dataset, scores: Sequence[ClipScores]) -> tuple[float, float | None, float | None]:
    """Clip macro F1, frame accuracy and frame macro F1 of one run; None where no frame has a label."""
    examples = dataset.examples(range(len(dataset.clips)))
    action_N = np.array([example.action_index for example in examples])
    clips = clip_metrics(_actions_NA(scores), action_N, labels=dataset.action_labels)
    assert clips is not None, "some clip has an action"
    if not dataset.frame_labels:
        return clips.macro_f1, None, None
    frames = frame_metrics(
        [score.frame_TL for score in scores if score.frame_TL is not None],
        [example.frame_target_T.numpy() for example in examples],
        labels=dataset.frame_labels,
        background=dataset.background,
    )
    return (clips.macro_f1, None, None) if frames is None else (clips.macro_f1, frames.accuracy, frames.macro_f1)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f}" if known else "-"


def _interval(values_N: NDArray[np.float64], groups: Sequence[str]) -> str:
    low, high = intervals_of(Resampling(groups).intervals(mean_of(mean=values_N)))["mean"]
    return f"{values_N.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    torch.set_num_threads(1)  # the models are small: threads cost more than they bring
    main()
