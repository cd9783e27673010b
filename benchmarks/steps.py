"""What each step of the recipe `motion` bought, one after the other, on the same folds.

    python -m benchmarks.steps ../shared/data/fight --group-by source --folds 5 --seeds 2

Each row adds to the one above it; its difference is paired, clip by clip, to that row, and to the mean pool on the same
features. With `--choose` nothing is added up: on each fold's own training part the candidates below are compared by
folds of their own, the best one is trained on the whole part and scored on the fold. That is what choosing a recipe on
these clips is worth, without the optimism of picking the best row of a table. The best has the least log loss: of 160
clips it tells more than how many are right.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study import MEAN_POOL, MODEL, Study, interval, right, scored
from training.data.splits import Fold, make_folds
from training.loop.fit import fit
from training.measure.scores import ClipScores, score_clips
from training.options import Options
from training.recipes import motion

LARGE: dict[str, Any] = {"size": 320}
MAPS: dict[str, Any] = {"motion": ("last",)}
STEPS: dict[str, dict[str, Any]] = {
    "default": {},
    "all clips learnt from, 10 epochs": {"stop_early": False, "epochs": 10},
    "320 px": LARGE,
    "motion of the last map": MAPS,
    "and of the middle one": {"motion": ("last", "middle")},
    "each feature by its own mean and spread": {"normalisation": "standard"},
    "readout of mean and spread": {"readout": "statistics"},
    "mixup 1": {"mixup": 1.0},
    "a view of the whole frame": {"augment_frames": ("wide",), "num_views": 2},
    "16 frames a second": {"frames_per_second": 16.0},
}
CANDIDATES: dict[str, dict[str, Any]] = {
    "gru": {},
    "no recurrence": {"cell": "none"},
    "lstm": {"cell": "lstm"},
    "gru, added to its input": {"between_layers": "residual"},
    "gru, mean readout": {"readout": "mean"},
    "gru, mixup 0.4": {"mixup": 0.4},
    "gru, 20 epochs": {"epochs": 20},
    "gru, 8 frames a second": {"frames_per_second": 8.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--group-by", required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--choose", action="store_true")
    arguments = parser.parse_args()
    study = Study.of(arguments.clips, group_by=arguments.group_by, background=None, num_folds=arguments.folds)
    seeds = range(arguments.seeds)
    _choose(study, seeds) if arguments.choose else _add_up(study, seeds)


def _add_up(study: Study, seeds: Sequence[int]) -> None:
    print("| step | accuracy [95 %] | minus the row above [95 %] | minus mean-pool on the same features [95 %] |")
    print("|---|---|---|---|")
    options, before_N = Options(), None
    for name, step in STEPS.items():
        options = options.model_copy(update=step)
        right_N = study.right_N(options, study.runs(options, seeds, kind=MODEL))
        pooled_N = study.right_N(options, study.runs(options, seeds, kind=MEAN_POOL))
        resampling = study.resampling(options)
        gained = "-" if before_N is None else interval(right_N - before_N, resampling)
        beside = interval(right_N - pooled_N, resampling)
        print(f"| {name} | {interval(right_N, resampling)} | {gained} | {beside} |", flush=True)
        before_N = right_N
    assert options.model_copy(update={"seed": 0}) == motion(), "the steps end at the recipe"


def _choose(study: Study, seeds: Sequence[int]) -> None:
    """Nested folds: each fold's recipe is chosen on its own training part."""
    dataset = study.dataset(motion())
    right_SN, chosen = np.zeros((len(seeds), len(dataset.clips))), Counter[str]()
    for row, seed in enumerate(seeds):
        for fold in make_folds(dataset.clips, num_folds=study.num_folds, seed=seed):
            by_name = {name: _inner_loss(study, fold.train, _candidate(name, seed)) for name in CANDIDATES}
            best = min(by_name, key=lambda name: by_name[name])
            chosen[best] += 1
            print(f"seed {seed}: {best} ({', '.join(f'{n} {loss:.3f}' for n, loss in by_name.items())})", flush=True)
            found = _held_out(study, fold, _candidate(best, seed))
            right_SN[row, list(fold.test)] = right(dataset.subset(fold.test), found)
    right_N = right_SN.mean(axis=0)
    print(f"\naccuracy of what is chosen: {interval(right_N, study.resampling(motion()))}")
    print("chosen: " + ", ".join(f"{name} {count} times" for name, count in chosen.most_common()))


def _candidate(name: str, seed: int) -> Options:
    return Options.model_validate({**motion().model_dump(), **CANDIDATES[name], "seed": seed})


def _inner_loss(study: Study, indices: Sequence[int], options: Options) -> float:
    """The mean log loss of these clips, in folds of their own."""
    dataset = study.dataset(options).subset(indices)
    folds = make_folds(dataset.clips, num_folds=study.num_folds, seed=options.seed)
    scores = scored(dataset, folds, study, options, MODEL)
    examples = dataset.examples(range(len(dataset.clips)))
    rows = [(score.action_A, example.action_index) for score, example in zip(scores, examples, strict=True)]
    return float(-np.mean([np.log(action_A[index]) for action_A, index in rows if action_A is not None]))


def _held_out(study: Study, fold: Fold, options: Options) -> Sequence[ClipScores]:
    dataset = study.dataset(options)
    config, settings = study.configure(options)
    learnt = dataset.examples(fold.train)
    fitted = fit(learnt, [], config=config, settings=settings, run_file=None, on_epoch=lambda _: None)
    return score_clips(fitted.model, dataset.examples(fold.test))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
