"""From scores to words: what the labels, the ranks and the segments of an answer are."""

import numpy as np
import pytest
import torch

from tests.toy_models import ACTIONS, FRAMES, toy_config
from vidseq.answers import Collected
from vidseq.config import Calibration, ModelConfig, Sampling
from vidseq.engine import Done
from vidseq.labelling import Labelling
from vidseq.model import Scores
from vidseq.sampling import Clip
from vidseq.schemas import ModelInfo, Prediction, VideoReport
from vidseq.state import State

INFO = ModelInfo(name="toy", version="1", sha256="0" * 64, action_labels=ACTIONS, frame_labels=FRAMES)
REPORT = VideoReport(
    width=32,
    height=32,
    codec="h264",
    container="mp4",
    duration_seconds=1.0,
    frames_declared=8,
    frames_decoded=8,
    complete=True,
)


def scores_of(labels: list[int], *, action: int, several: bool = False) -> Scores:
    """Frame scores that name these labels, one a frame, and an action score that grows with time."""
    frame_BTL = 4.0 * torch.nn.functional.one_hot(torch.tensor([labels]), len(FRAMES))
    action_BTA = torch.zeros(1, len(labels), len(ACTIONS))
    action_BTA[0, :, action] = torch.arange(1.0, len(labels) + 1)
    return Scores(action_BTA, frame_BTL, several)


def done(scores: Scores) -> Done:
    return Done(scores, State(), queued_ms=1.0, encode_ms=2.0, recur_ms=3.0)


def clip_at(seconds: list[float]) -> Clip:
    return Clip(np.zeros((len(seconds), 32, 32, 3), dtype=np.uint8), np.array(seconds), 1)


def answer(labels: list[int], *, config: ModelConfig, top_k: int = 5) -> Prediction:
    """What is said of a video of two chunks, 8 frames a second."""
    collected, half = Collected(config), len(labels) // 2
    for first, part in ((0, labels[:half]), (half, labels[half:])):
        clip = clip_at([(first + index) / 8 for index in range(len(part))])
        collected.add(clip, done(scores_of(part, action=1, several=config.heads.several)))
    return predicted(collected, sampling=config.sampling, top_k=top_k)


def predicted(
    collected: Collected, *, sampling: Sampling, seen_until: float | None = None, top_k: int = 5
) -> Prediction:
    return collected.prediction(report=REPORT, seen_until=seen_until, info=INFO, sampling=sampling, top_k=top_k)


def test_every_frame_has_its_best_label_at_its_own_time() -> None:
    prediction = answer([0, 1, 1, 2], config=toy_config())
    assert [frame.label for frame in prediction.frames] == ["still", "moving", "moving", "gone"]
    assert [frame.seconds for frame in prediction.frames] == [0, 1 / 8, 2 / 8, 3 / 8]


def test_the_action_is_what_was_said_after_the_last_frame() -> None:
    prediction = answer([0, 1, 1, 2], config=toy_config())
    expected = float(torch.tensor([0.0, 2.0, 0.0]).softmax(0)[1])
    assert prediction.action == prediction.top[0] and prediction.actions == (prediction.action,)
    assert prediction.action.label == ACTIONS[1]
    assert prediction.action.score == pytest.approx(expected, abs=1e-6)


def test_a_calibrated_model_answers_with_the_scores_of_the_time_that_has_elapsed() -> None:
    """The last of these frames is 0.375 s after the first, and what counts from a second on is not its business."""
    calibration = Calibration(elapsed_seconds=(0.0, 0.25, 1.0), temperatures=(9.0, 2.0, 9.0))
    prediction = answer([0, 1, 1, 2], config=toy_config().model_copy(update={"calibration": calibration}))
    expected = torch.tensor([0.0, 2.0 / 2.0, 0.0]).softmax(0)
    assert [scored.score for scored in prediction.top] == pytest.approx(sorted(expected.tolist(), reverse=True))


@pytest.mark.parametrize(("unknown_below", "known"), [(0.78, True), (0.79, False)])
def test_an_action_below_the_threshold_is_unknown_and_its_candidates_are_told(
    unknown_below: float, known: bool
) -> None:
    """Its score is e^2 / (e^2 + 2), 0.787."""
    prediction = answer([0, 1, 1, 2], config=toy_config(unknown_below=unknown_below))
    assert (prediction.action is not None) == known == bool(prediction.actions)
    assert [scored.label for scored in prediction.top] == [ACTIONS[1], ACTIONS[0], ACTIONS[2]]


def test_of_several_actions_those_that_pass_their_thresholds_are_said_the_surest_first() -> None:
    """The scores are 0.5, 0.88 and 0.5: logits of 0, 2 and 0 each for itself."""
    said = answer([0, 1, 1, 2], config=toy_config(several=True, thresholds=(0.6, 0.8, 0.4)))
    assert [scored.label for scored in said.actions] == [ACTIONS[1], ACTIONS[2]]
    assert said.action == said.actions[0] and said.action.score == pytest.approx(1 / (1 + np.exp(-2)))
    none = answer([0, 1, 1, 2], config=toy_config(several=True, thresholds=(0.6, 0.9, 0.6)))
    assert none.action is None and none.actions == () and len(none.top) == 3


@pytest.mark.parametrize(("top_k", "num_named"), [(1, 1), (2, 2), (3, 3), (100, 3)])
def test_no_more_actions_are_named_than_asked_for_or_known(top_k: int, num_named: int) -> None:
    prediction = answer([0, 1], config=toy_config(), top_k=top_k)
    assert len(prediction.top) == num_named
    assert [scored.score for scored in prediction.top] == sorted((s.score for s in prediction.top), reverse=True)


def test_background_makes_no_segment() -> None:
    prediction = answer([0, 1, 1, 0, 2, 0], config=toy_config())
    found = [(segment.label, segment.start_seconds, segment.end_seconds) for segment in prediction.segments]
    assert found == [("moving", 1 / 8, 3 / 8), ("gone", 4 / 8, 5 / 8)]


def test_a_segment_that_is_open_at_the_end_lasts_one_sampling_period_beyond_the_last_frame() -> None:
    (segment,) = answer([0, 0, 1, 1], config=toy_config()).segments
    assert (segment.start_seconds, segment.end_seconds) == (2 / 8, 4 / 8)


def test_where_every_frame_is_taken_the_last_lasts_as_long_as_the_one_before() -> None:
    config = toy_config(sampling=Sampling(frames_per_second="native"))
    collected = Collected(config)
    collected.add(clip_at([0.0, 0.1, 0.35]), done(scores_of([1, 1, 1], action=0)))
    (segment,) = predicted(collected, sampling=config.sampling).segments
    assert segment.end_seconds == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("sampling", "stride", "seen_until", "end_seconds"),
    [
        (Sampling(frames_per_second=0.1), 1, None, 11.0),
        (Sampling(frames_per_second=0.1), 1, 3.0, 3.0),
        (Sampling(frames_per_second=0.1, end_seconds=2.5), 1, 3.0, 2.5),
        (Sampling(frames_per_second=0.1), 1, 0.25, 1.0),  # what was sampled is not cut off
        (Sampling(frames_per_second=8), 4, 3.0, 1.5),
        (Sampling(frames_per_second="native"), 2, 3.0, 1.5),
    ],
)
def test_a_segment_ends_neither_after_the_request_nor_after_the_video(
    sampling: Sampling, stride: int, seen_until: float | None, end_seconds: float
) -> None:
    collected, seconds_T = Collected(toy_config()), np.array([0.0, 0.5, 1.0])
    clip = Clip(np.zeros((3, 32, 32, 3), dtype=np.uint8), seconds_T, stride)
    collected.add(clip, done(scores_of([1, 1, 1], action=0)))
    prediction = predicted(collected, sampling=sampling, seen_until=seen_until)
    assert [segment.end_seconds for segment in prediction.segments] == [pytest.approx(end_seconds)]


def test_the_milliseconds_of_all_chunks_are_added_up() -> None:
    timings = answer([0, 1, 1, 2], config=toy_config()).timings
    assert (timings.queued_ms, timings.encode_ms, timings.recur_ms) == (2.0, 4.0, 6.0)


def test_a_model_without_frame_labels_says_nothing_of_frames() -> None:
    scores = Scores(scores_of([0, 1], action=2).action_logits_BTA, None)
    labelling = Labelling.of(toy_config(frame_labels=(), background=None))
    first, last = labelling.moments(labelling.settle(labelling.start(), [0.0, 0.125], scores)[0])
    assert first.frame is None and last.frame is None
    assert first.action.label == ACTIONS[2] and last.action.score > first.action.score


def test_a_model_without_actions_says_nothing_of_the_action() -> None:
    config = toy_config(action_labels=())
    collected = Collected(config)
    scores = Scores(None, scores_of([1, 1], action=0).frame_logits_BTL)
    collected.add(clip_at([0.0, 0.125]), done(scores))
    prediction = predicted(collected, sampling=config.sampling)
    assert prediction.action is None and prediction.actions == prediction.top == ()
    assert [frame.label for frame in prediction.frames] == ["moving", "moving"]
