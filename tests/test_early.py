"""Early exit: the frame at which enough was seen follows from scores and times alone, whatever the chunks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.toy_models import toy_config
from vidseq.config import Calibration, Sampling
from vidseq.early import EarlyExit, Enough, Watch, calibrated
from vidseq.errors import OptionError

PLAIN = Calibration(elapsed_seconds=(0.0,), temperatures=(1.0,))
COOLING = Calibration(elapsed_seconds=(0.0, 1.0, 2.0), temperatures=(4.0, 2.0, 1.0))


def logits_of(scores: list[float], *, actions: list[int] | None = None) -> np.ndarray:
    """Two actions, of which the one that is named has this score."""
    logits_TA = np.zeros((len(scores), 2))
    rows = np.arange(len(scores))
    logits_TA[rows, actions or [0] * len(scores)] = np.log(np.array(scores) / (1 - np.array(scores)))
    return logits_TA


def exit_of(scores: list[float], *, hold_seconds: float, actions: list[int] | None = None) -> Enough | None:
    """Two frames a second, from 10 s on, against a score of 0.9."""
    watch = Watch(EarlyExit(score=0.9, hold_seconds=hold_seconds), PLAIN)
    return watch.look(10 + np.arange(len(scores)) / 2, logits_of(scores, actions=actions))[0]


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


def test_the_temperature_is_that_of_the_time_since_the_first_frame() -> None:
    probability_TA = calibrated(np.array([[2.0, 0.0]] * 4), np.array([0.0, 0.999, 1.0, 7.0]), COOLING)
    expected = [1 / (1 + np.exp(-2 / temperature)) for temperature in (4, 4, 2, 1)]
    assert probability_TA[:, 0] == pytest.approx(expected)
    assert probability_TA.sum(axis=1) == pytest.approx(1)


def test_a_late_frame_of_a_video_that_begins_late_is_no_late_frame() -> None:
    watch = Watch(EarlyExit(score=0.8, hold_seconds=0), COOLING)
    logits_TA = logits_of([0.9] * 4)
    assert watch.look(100 + np.arange(4.0), logits_TA)[0].exited.seconds == 102


def test_logits_of_any_size_have_a_probability() -> None:
    huge_TA = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    assert calibrated(huge_TA, np.zeros(2), PLAIN).tolist() == [[1, 0, 0], pytest.approx([1 / 3] * 3)]


@st.composite
def courses(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Times that rise unevenly, logits of three actions, and where they are cut into chunks."""
    num_frames = draw(st.integers(1, 40))
    seed = draw(st.integers(0, 1000))
    generator = np.random.default_rng(seed)
    seconds_T = np.cumsum(generator.uniform(0.01, 0.5, num_frames))
    logits_TA = np.cumsum(generator.normal(size=(num_frames, 3)), axis=0)
    cuts = draw(st.lists(st.integers(1, num_frames), max_size=num_frames))
    return seconds_T, logits_TA, sorted({0, num_frames, *cuts})


@given(course=courses(), score=st.floats(0.51, 1.0), hold_seconds=st.floats(0, 4))
def test_any_chunking_exits_at_the_same_frame(
    course: tuple[np.ndarray, np.ndarray, list[int]], score: float, hold_seconds: float
) -> None:
    seconds_T, logits_TA, cuts = course
    watch = Watch(EarlyExit(score=score, hold_seconds=hold_seconds), COOLING)
    whole, _ = watch.look(seconds_T, logits_TA)
    found: list[tuple[int, float]] = []
    for start, end in pairwise(cuts):
        enough, watch = watch.look(seconds_T[start:end], logits_TA[start:end])
        found += [] if enough is None or found else [(start + enough.num_frames, enough.exited.score)]
    assert found == ([] if whole is None else [(whole.num_frames, whole.exited.score)])


@given(course=courses(), score=st.floats(0.51, 0.99), hold_seconds=st.floats(0, 2))
def test_who_asks_for_more_never_sees_less(
    course: tuple[np.ndarray, np.ndarray, list[int]], score: float, hold_seconds: float
) -> None:
    seconds_T, logits_TA, _ = course

    def num_frames(**early_exit: float) -> float:
        enough = Watch(EarlyExit.model_validate(early_exit), COOLING).look(seconds_T, logits_TA)[0]
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
    ],
)
def test_a_model_that_cannot_exit_early_is_named(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        Watch.of(toy_config(**options), EarlyExit(score=0.9), name="toy")


def test_a_calibration_without_actions_to_name_is_none() -> None:
    config = toy_config(action_labels=()).model_copy(update={"calibration": PLAIN})
    with pytest.raises(OptionError, match="not calibrated"):
        Watch.of(config, EarlyExit(score=0.9), name="toy")
