"""Scores as `classify` says them: with the temperature of a clip's end, by thresholds where a model says several."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.toy_scores import CONFIG, scores
from training.data.clips import LabelledClip
from training.measure.scores import calibrated_A, groups_of, said_A
from vidseq.config import Calibration, HeadsConfig

WARMER = Calibration(elapsed_seconds=(0.0, 2.0), temperatures=(1.0, 3.0))


@pytest.mark.parametrize(("last_seconds", "temperature"), [(6.5, 1.0), (7.0, 3.0)])
def test_the_temperature_is_that_of_the_time_from_the_first_frame_to_the_last(
    last_seconds: float, temperature: float
) -> None:
    (score,) = scores("b", sureness=3.0)
    seconds_T = np.linspace(5.0, last_seconds, 6)
    action_A = calibrated_A(score, seconds_T, CONFIG.model_copy(update={"calibration": WARMER}))
    odds_A = np.exp(np.array([0, 3, 0]) / temperature)
    assert action_A == pytest.approx(odds_A / odds_A.sum())


def test_without_temperatures_scores_are_left_as_they_are() -> None:
    (score,) = scores("b")
    assert calibrated_A(score, np.arange(6.0), CONFIG) is score.action_A


def test_a_model_without_actions_has_no_scores_of_them() -> None:
    (score,) = scores("b")
    silent = replace(score, action_A=None, action_logits_TA=None)
    assert calibrated_A(silent, np.arange(6.0), CONFIG.model_copy(update={"calibration": WARMER})) is None


def test_one_action_is_called_and_it_is_the_best_even_if_it_is_too_weak_to_be_named() -> None:
    heads = HeadsConfig(action_labels=("a", "b", "c"), unknown_below=0.9)
    assert said_A(np.array([0.4, 0.35, 0.25]), heads).tolist() == [True, False, False]


def test_of_several_each_is_called_from_its_threshold_on() -> None:
    heads = HeadsConfig(action_labels=("a", "b", "c"), several=True, thresholds=(0.5, 0.2, 0.9))
    assert said_A(np.array([0.5, 0.3, 0.8]), heads).tolist() == [True, True, False]


def test_a_clip_without_a_group_is_one_for_itself_whatever_groups_are_called() -> None:
    clips = [LabelledClip(Path(path), "a", group, None) for path, group in (("x", None), ("y", "x"), ("z", "x"))]
    first, second, third = groups_of(clips)
    assert first != second and second == third
