"""Scores at the end of each clip, before and after temperature scaling. Knows nothing of models.

What finds a temperature and what measures it must be different clips: a model that has its temperatures found them on
others; for a model that has none yet, each group's clips are scaled by what the other groups' clips ask for.

Shape letters: N clips, A actions.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from training.measure.calibration import Course, calibrate
from training.measure.figures import CalibrationResults
from training.measure.metrics.classes import one_hot
from training.measure.metrics.reliability import reliability
from training.measure.metrics.resampling import Floats, Ints, Resampling
from vidseq.config import Calibration
from vidseq.naming import probabilities, temperatures_at

NUM_PARTS = 5


def calibration_results(
    logits_NA: Floats, target_N: Ints, elapsed_N: Floats, *, groups: Sequence[str], calibration: Calibration | None
) -> CalibrationResults:
    """Reliability of clips that all have one action, before and after; without a temperature there is no after.

    Args:
        logits_NA: of each clip's action, at its end.
        elapsed_N: seconds from each clip's first sampled frame to its last.
        calibration: the model's own, found on other clips; None finds temperatures on the other groups of these.
    """
    resampling = Resampling(groups)
    found_on: Literal["the model's own clips", "the other groups"] = "the model's own clips"
    if calibration is not None:
        temperature_N: Floats | None = temperatures_at(elapsed_N, calibration).numpy()
    else:
        temperature_N, found_on = _crosswise(logits_NA, target_N, resampling.group_N), "the other groups"
    before = reliability(_probability_NA(logits_NA), target_N, resampling=resampling)
    if temperature_N is None:
        return CalibrationResults(num=len(target_N), before=before, after=None, temperature=None, found_on=None)
    scaled_NA = _probability_NA(logits_NA / temperature_N[:, None])
    return CalibrationResults(
        num=len(target_N),
        before=before,
        after=reliability(scaled_NA, target_N, resampling=resampling),
        temperature=float(temperature_N.mean()),
        found_on=found_on,
    )


def _crosswise(logits_NA: Floats, target_N: Ints, group_N: Ints) -> Floats | None:
    """temperature_N, each from clips of other groups; None where these are too few to find one."""
    num_groups = int(group_N.max()) + 1
    part_G = np.random.default_rng(0).permutation(num_groups) % NUM_PARTS
    part_N = part_G[group_N]
    temperature_N = np.ones(len(target_N))
    for part in np.unique(part_N):
        found = _temperature(logits_NA[part_N != part], target_N[part_N != part])
        if found is None:
            return None
        temperature_N[part_N == part] = found
    return temperature_N


def _temperature(logits_NA: Floats, target_N: Ints) -> float | None:
    """One for whole clips: a course of one moment each."""
    true_NA = one_hot(target_N, num_labels=logits_NA.shape[1]).astype(np.float32)
    rows = zip(logits_NA.astype(np.float32), torch.from_numpy(true_NA), strict=True)
    found = calibrate([Course(np.zeros(1), logits_A[None], true_A) for logits_A, true_A in rows])
    return None if found is None else found.calibration.temperatures[0]


def _probability_NA(logits_NA: Floats) -> Floats:
    probability_NA: Floats = probabilities(torch.from_numpy(logits_NA), several=False).numpy()
    return probability_NA
