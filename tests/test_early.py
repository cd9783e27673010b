"""Early exit: the frame at which enough was seen follows from scores and times alone, whatever the chunks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.toy_models import toy_config
from vidseq.config import Calibration, Sampling
from vidseq.early import EarlyExit, Enough, Watch
from vidseq.errors import OptionError

PLAIN = Calibration(elapsed_seconds=(0.0,), temperatures=(1.0,))


def scores_of(scores: list[float], *, actions: list[int] | None = None) -> np.ndarray:
    """Two actions, of which the one that is named has this score."""
    score_TA = np.tile(1 - np.array(scores)[:, None], 2)
    score_TA[np.arange(len(scores)), actions or [0] * len(scores)] = scores
    return score_TA


def exit_of(scores: list[float], *, hold_seconds: float, actions: list[int] | None = None) -> Enough | None:
    """Two frames a second, from 10 s on, against a score of 0.9."""
    watch = Watch(EarlyExit(score=0.9, hold_seconds=hold_seconds))
    return watch.look(10 + np.arange(len(scores)) / 2, scores_of(scores, actions=actions))[0]


def test_it_is_enough_when_the_score_has_stayed_up_for_as_long_as_asked() -> None:
    enough = exit_of([0.6, 0.95, 0.92, 0.97, 0.99], hold_seconds=1.0)
    assert (enough.num_frames, enough.exited.seconds) == (4, 11.5)
    assert enough.exited.score == pytest.approx(0.97)


def test_without_a_time_to_hold_the_first_high_score_is_enough() -> None:
    assert exit_of([0.6, 0.95, 0.5], hold_seconds=0.0).num_frames == 2


def test_a_dip_begins_the_time_anew() -> None:
    assert exit_of([0.95, 0.95, 0.89, 0.95, 0.95], hold_seconds=1.0) is None
    assert exit_of([0.95, 0.95, 0.89, 0.95, 0.95, 0.95], hold_seconds=1.0).num_frames == 6


def test_another_action_begins_the_time_anew() -> None:
    assert exit_of([0.95] * 4, hold_seconds=1.0, actions=[0, 0, 1, 1]) is None
    assert exit_of([0.95] * 5, hold_seconds=1.0, actions=[0, 0, 1, 1, 1]).num_frames == 5


@st.composite
def courses(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Times that rise unevenly, scores of three actions, and where they are cut into chunks."""
    num_frames = draw(st.integers(1, 40))
    seed = draw(st.integers(0, 1000))
    generator = np.random.default_rng(seed)
    seconds_T = np.cumsum(generator.uniform(0.01, 0.5, num_frames))
    odds_TA = np.exp(np.cumsum(generator.normal(size=(num_frames, 3)), axis=0))
    cuts = draw(st.lists(st.integers(1, num_frames), max_size=num_frames))
    return seconds_T, odds_TA / odds_TA.sum(axis=1, keepdims=True), sorted({0, num_frames, *cuts})


@given(course=courses(), score=st.floats(0.51, 1.0), hold_seconds=st.floats(0, 4))
def test_any_chunking_exits_at_the_same_frame(
    course: tuple[np.ndarray, np.ndarray, list[int]], score: float, hold_seconds: float
) -> None:
    seconds_T, score_TA, cuts = course
    watch = Watch(EarlyExit(score=score, hold_seconds=hold_seconds))
    whole, _ = watch.look(seconds_T, score_TA)
    found: list[tuple[int, float]] = []
    for start, end in pairwise(cuts):
        enough, watch = watch.look(seconds_T[start:end], score_TA[start:end])
        found += [] if enough is None or found else [(start + enough.num_frames, enough.exited.score)]
    assert found == ([] if whole is None else [(whole.num_frames, whole.exited.score)])


@given(course=courses(), score=st.floats(0.51, 0.99), hold_seconds=st.floats(0, 2))
def test_who_asks_for_more_never_sees_less(
    course: tuple[np.ndarray, np.ndarray, list[int]], score: float, hold_seconds: float
) -> None:
    seconds_T, score_TA, _ = course

    def num_frames(**early_exit: float) -> float:
        enough = Watch(EarlyExit.model_validate(early_exit)).look(seconds_T, score_TA)[0]
        return np.inf if enough is None else enough.num_frames

    asked = num_frames(score=score, hold_seconds=hold_seconds)
    assert num_frames(score=score, hold_seconds=hold_seconds + 0.5) >= asked
    assert num_frames(score=(1 + score) / 2, hold_seconds=hold_seconds) >= asked


@pytest.mark.parametrize("wrong", [{"score": 0.5}, {"score": 1.01}, {"score": float("nan")}, {"hold_seconds": -1}])
def test_a_wish_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        EarlyExit.model_validate({"score": 0.9, "hold_seconds": 1.0} | wrong)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "toy is not calibrated by elapsed time"),
        ({"bidirectional": True}, "toy needs the whole video"),
        ({"sampling": Sampling(max_frames=8)}, "toy needs the whole video"),
        ({"several": True}, "toy says several actions"),
    ],
)
def test_a_model_that_cannot_exit_early_is_named(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        Watch.of(toy_config(**options), EarlyExit(score=0.9), name="toy")


def test_a_calibration_without_actions_to_name_is_none() -> None:
    config = toy_config(action_labels=()).model_copy(update={"calibration": PLAIN})
    with pytest.raises(OptionError, match="not calibrated"):
        Watch.of(config, EarlyExit(score=0.9), name="toy")


def test_who_is_sure_enough_to_stop_is_sure_enough_to_name_the_action() -> None:
    config = toy_config(unknown_below=0.9).model_copy(update={"calibration": PLAIN})
    with pytest.raises(OptionError, match=r"early exit at a score of 0\.8: below 0\.9 toy calls an action unknown"):
        Watch.of(config, EarlyExit(score=0.8), name="toy")
    assert Watch.of(config, EarlyExit(score=0.9), name="toy").action is None
