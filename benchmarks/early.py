"""What early exit saves and what it costs, cross-validated by group: a markdown table.

    python -m benchmarks.early ../shared/data/fight --group-by source --folds 5 --seeds 3
    python -m benchmarks.early ../shared/data/yoga --group-by subject --folds 4 --seeds 3

As `vidseq train` does it by default: of each fold's training part a split stops the training and calibrates; the clips
left out are watched, and nothing is chosen on them. `uncalibrated` divides by no temperature. A fold whose split is too
small to calibrate looks at whole clips. Of the frames `computed`, some lie behind the exit, in its chunk.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from training.data.clips import read_clips
from training.data.dataset import Dataset, load_dataset
from training.data.features import FeatureExtractor
from training.data.splits import Fold, make_nested_folds, validation_split
from training.loop.fit import fit
from training.measure.calibration import Calibrated, Course, calibrate
from training.measure.scores import score_clips
from training.options import Options, configure
from vidseq.classifier import WATCHED_CHUNK_FRAMES
from vidseq.config import Calibration
from vidseq.early import EarlyExit, Watch
from vidseq.encoder import Encoder, load_default_weights
from vidseq.naming import probabilities, temperatures_at

PLAIN = Calibration(elapsed_seconds=(0.0,), temperatures=(1.0,))
SCORES = (0.8, 0.9, 0.95)
HOLDS_SECONDS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Seen:
    """How one clip was answered, and at what price."""

    right: bool
    exited: bool
    num_frames: int
    num_computed: int
    num_whole: int


@dataclass(frozen=True, eq=False)
class Trial:
    """The clips that one fold left out, and what was found on its validation clips."""

    courses: tuple[Course, ...]
    calibrated: Calibrated | None

    @property
    def calibration(self) -> Calibration | None:
        return None if self.calibrated is None else self.calibrated.calibration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--group-by", required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    dataset = _dataset(arguments.clips, arguments.group_by)
    trials = [
        _trial(dataset, fold, seed)
        for seed in range(arguments.seeds)
        for fold in make_nested_folds(dataset.clips, num_folds=arguments.folds, seed=seed)
    ]
    _say_calibrations(trials)
    print("| score | hold | accuracy | of those that exited | exited | frames looked at | computed |")
    print("|---|---|---|---|---|---|---|")
    print(_row("whole clips", "", [_watch(course) for trial in trials for course in trial.courses]))
    for plain in (False, True):
        for score in SCORES:
            for hold_seconds in HOLDS_SECONDS:
                early_exit = EarlyExit(score=score, hold_seconds=hold_seconds)
                seen = [
                    _watch(course, early_exit, PLAIN if plain else trial.calibration)
                    for trial in trials
                    for course in trial.courses
                ]
                print(_row(f"{score:g}{', uncalibrated' if plain else ''}", f"{hold_seconds:g} s", seen), flush=True)


def _dataset(clips: Path, group_by: str) -> Dataset:
    folder = read_clips(clips, group_by=group_by)
    if not folder.action_labels:
        sys.exit(f"{clips}: no clip has an action, and that is what early exit is about")
    config, _ = configure(Options(), action_labels=folder.action_labels, frame_labels=(), background=None)
    encoder = Encoder(config.encoder)
    load_default_weights(encoder)
    return load_dataset(folder, FeatureExtractor(encoder, config=config), on_bad="stop", on_clip=lambda: None)


def _trial(dataset: Dataset, fold: Fold, seed: int) -> Trial:
    config, settings = configure(
        Options(seed=seed),
        action_labels=dataset.action_labels,
        frame_labels=dataset.frame_labels,
        background=dataset.background,
    )
    clips = [replace(dataset.clips[index], split=None) for index in fold.train]
    train, validation = validation_split(clips, seed=seed)
    held_out = [fold.train[index] for index in validation]
    fitted = fit(
        dataset.examples([fold.train[index] for index in train]),
        dataset.examples(held_out),
        config=config,
        settings=settings,
        run_file=None,
        on_epoch=lambda _: None,
    )

    def courses(indices: Sequence[int]) -> tuple[Course, ...]:
        examples = dataset.examples(indices)
        return tuple(
            Course(dataset.features[index].seconds_T, score.action_logits_TA, example.action_target_A)
            for index, score, example in zip(indices, score_clips(fitted.model, examples), examples, strict=True)
            if score.action_logits_TA is not None and example.action_target_A is not None
        )

    return Trial(courses(fold.test), calibrate(courses(held_out)))


def _watch(course: Course, early_exit: EarlyExit | None = None, calibration: Calibration | None = None) -> Seen:
    """To the exit; to the end where there is nothing to exit by."""
    num_whole = num_frames = len(course.seconds_T)
    enough = None
    if early_exit is not None and calibration is not None:
        temperature_T = temperatures_at(course.seconds_T - course.seconds_T[0], calibration)
        logits_TA = torch.from_numpy(course.action_logits_TA)
        score_TA = probabilities(logits_TA, several=False, temperature_T=temperature_T).numpy()
        enough, _ = Watch(early_exit).look(course.seconds_T, score_TA)
    if enough is not None:
        num_frames = enough.num_frames
    num_computed = math.ceil(num_frames / WATCHED_CHUNK_FRAMES) * WATCHED_CHUNK_FRAMES
    assert course.target_A is not None, "only clips with an action are watched"
    right = int(course.action_logits_TA[num_frames - 1].argmax()) == int(course.target_A.argmax())
    return Seen(right, enough is not None, num_frames, min(num_computed, num_whole), num_whole)


def _row(name: str, hold: str, seen: Sequence[Seen]) -> str:
    num_whole = sum(one.num_whole for one in seen)
    exited = [one.right for one in seen if one.exited]
    cells = (
        name,
        hold,
        f"{np.mean([one.right for one in seen]):.3f}",
        f"{np.mean(exited):.3f}" if exited else "-",
        f"{len(exited) / len(seen):.0%}",
        f"{sum(one.num_frames for one in seen) / num_whole:.0%}",
        f"{sum(one.num_computed for one in seen) / num_whole:.0%}",
    )
    return f"| {' | '.join(cells)} |"


def _say_calibrations(trials: Sequence[Trial]) -> None:
    found = [trial.calibrated for trial in trials if trial.calibrated is not None]
    print(f"{len(trials)} trainings, {len(found)} of them calibrated", end="")
    if found:
        stretches = [stretch for calibrated in found for stretch in calibrated.stretches]
        temperatures = [stretch.temperature for stretch in stretches]
        before, after = (np.mean([getattr(s, name) for s in stretches]) for name in ("ece_before", "ece_after"))
        print(
            f" on {min(one.num_clips for one in found)} to {max(one.num_clips for one in found)} clips: temperatures "
            f"{min(temperatures):.2f} to {max(temperatures):.2f}, calibration error on these {before:.3f}, then "
            f"{after:.3f}",
            end="",
        )
    print("\n")


if __name__ == "__main__":
    torch.set_num_threads(1)  # the models are small: threads cost more than they bring
    main()
