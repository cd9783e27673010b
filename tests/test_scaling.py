"""Before and after temperature scaling: what finds a temperature never measures it."""

import numpy as np
import pytest

from training.measure.metrics.resampling import Floats, Ints
from training.measure.scaling import calibration_results
from vidseq.config import Calibration


def too_sure(num_clips: int, *, by: float, seed: int = 0) -> tuple[Floats, Ints]:
    """Logits of two actions, `by` times what their truths were drawn from."""
    generator = np.random.default_rng(seed)
    logit_N = 1.5 * generator.normal(size=num_clips)
    target_N = (generator.random(num_clips) < 1 / (1 + np.exp(-logit_N))).astype(np.int64)
    return by * np.stack([0 * logit_N, logit_N], axis=1), target_N


def results(logits_NA: Floats, target_N: Ints, *, groups: list[str] | None = None, own: Calibration | None = None):
    groups = groups or [f"{n}" for n in range(len(target_N))]
    elapsed_N = np.linspace(0, 4, len(target_N))
    return calibration_results(logits_NA, target_N, elapsed_N, groups=groups, calibration=own)


def test_temperatures_found_on_other_groups_make_a_model_that_is_too_sure_believable() -> None:
    found = results(*too_sure(300, by=3))
    assert found.temperature == pytest.approx(3, rel=0.3)
    assert found.found_on == "the other groups"
    assert found.after.nll < found.before.nll and found.after.brier < found.before.brier
    assert found.before.ece > found.before.band.high and found.after.ece < found.after.band.high


def test_a_group_that_is_unlike_all_others_does_not_find_its_own_temperature() -> None:
    """Its truths are the other way round: only its own clips could have told."""
    logits_NA, target_N = too_sure(200, by=1)
    odd_N = np.arange(200) < 40
    target_N = np.where(odd_N, 1 - target_N, target_N)
    groups = ["odd" if odd else f"{n}" for n, odd in enumerate(odd_N)]
    found = results(logits_NA * np.where(odd_N, 30, 1)[:, None], target_N, groups=groups)
    assert found.after.nll > 3, "40 clips that are sure and wrong stay sure"


def test_the_models_own_temperatures_are_those_of_each_clips_length() -> None:
    logits_NA, target_N = too_sure(100, by=3)
    own = Calibration(elapsed_seconds=(0.0, 2.0), temperatures=(1.0, 3.0))
    found = results(logits_NA, target_N, own=own)
    assert (found.temperature, found.found_on) == (pytest.approx(2.0), "the model's own clips")
    assert found.before.nll > found.after.nll


def test_too_few_clips_find_no_temperature_and_there_is_no_after() -> None:
    found = results(*too_sure(10, by=3))
    assert (found.after, found.temperature, found.found_on) == (None, None, None)
    assert found.before.nll > 0
