"""Accuracy on labelled clips, cross-validated by group: every cell and both baselines on the same features and folds.

    python -m benchmarks.accuracy ../shared/data/fight --group-by source --folds 5 --seeds 3
    python -m benchmarks.accuracy ../shared/data/fight --group-by source --folds 5 --recipe motion --first-seed 100
    python -m benchmarks.accuracy ../shared/data/yoga --group-by subject --folds 4 --seeds 3 --background transition

`--set` changes options of the recipe, as in `--set bidirectional=true`. Differences are paired, clip by clip, to the
mean pool; p is how often chance alone would make one as large.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from benchmarks.study import FRAME_ALONE, MEAN_POOL, MODEL, Runs, Study, chance_of, interval
from training.measure.metrics.resampling import Floats
from training.options import Options
from training.recipes import RECIPES
from vidseq.config import CellName


def main() -> None:
    arguments = _arguments()
    study = Study.of(
        arguments.clips, group_by=arguments.group_by, background=arguments.background, num_folds=arguments.folds
    )
    if not study.folder.action_labels:
        sys.exit(f"{arguments.clips}: no clip has an action, and that is what is compared")
    changed = dict(change.split("=", 1) for change in arguments.set)
    options = Options.model_validate({**RECIPES[arguments.recipe]().model_dump(), **changed})
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    print(f"{len(study.folder.clips)} clips, {arguments.folds} folds by {arguments.group_by}, {len(seeds)} seeds\n")
    framed = bool(study.folder.frame_labels)
    more = " | frame accuracy | frame macro F1 | edit | F1@10/25/50" if framed else ""
    print(f"| | clip accuracy [95 %] | minus mean-pool [95 %] | p{more} |")
    print("|---|---|---|---" + "|---" * (4 * framed) + "|")
    pooled = study.runs(options, seeds, kind=MEAN_POOL)
    pooled_N = study.right_N(options, pooled)
    print(_row(MEAN_POOL, study, options, pooled, pooled_N), flush=True)
    alone = study.runs(options, seeds, kind=FRAME_ALONE)
    print(_row(FRAME_ALONE, study, options, alone, pooled_N), flush=True)
    for cell in arguments.cells.split(","):
        chosen = Options.model_validate({**options.model_dump(), "cell": cell})
        print(_row(cell, study, chosen, study.runs(chosen, seeds, kind=MODEL), pooled_N), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--group-by", required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--background")
    parser.add_argument("--recipe", choices=list(RECIPES), default="default")
    parser.add_argument("--cells", default=",".join(get_args(CellName)))
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE")
    return parser.parse_args()


def _row(name: str, study: Study, options: Options, runs: Runs, pooled_N: Floats) -> str:
    resampling, right_N = study.resampling(options), study.right_N(options, runs)
    p = None if name == MEAN_POOL else chance_of(right_N, pooled_N, resampling)
    cells: Sequence[str] = (
        name,
        interval(right_N, resampling),
        "-" if name == MEAN_POOL else interval(right_N - pooled_N, resampling),
        "-" if p is None else f"{p:.3f}",
    )
    if study.folder.frame_labels:
        figures = study.frame_figures(options, runs)
        f1 = "/".join(f"{figures[f'f1_at_{overlap}']:.1f}" for overlap in (10, 25, 50))
        cells = (*cells, f"{figures['accuracy']:.3f}", f"{figures['macro_f1']:.3f}", f"{figures['edit']:.1f}", f1)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    torch.set_num_threads(1)  # the models are small: threads cost more than they bring
    main()
