"""Labels and segments as they become final: the same in any chunks, each frame named once, K frames late."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidseq.config import Calibration, HeadsConfig, ModelConfig, Sampling, SegmentsConfig
from vidseq.labelling import Labelled, Labelling, Track, closed
from vidseq.messages import SegmentChange
from vidseq.model import Scores
from vidseq.segments import Segmenter

ACTIONS, FRAMES = ("grow", "shrink"), ("still", "moving", "gone")
RATE = 8


def a_config(*, lookahead_frames: int, calibration: Calibration | None = None, **segments: float) -> ModelConfig:
    return ModelConfig(
        sampling=Sampling(frames_per_second=RATE),
        heads=HeadsConfig(
            action_labels=ACTIONS,
            frame_labels=FRAMES,
            background="still",
            lookahead_seconds=lookahead_frames / RATE,
        ),
        segments=SegmentsConfig.model_validate(segments),
        calibration=calibration,
    )


@dataclass(frozen=True, eq=False)
class Course:
    """One stream's scores, and the frames at which its chunks begin and end."""

    scores: Scores
    seconds: list[float]
    cuts: list[int]


@st.composite
def courses(draw: st.DrawFn) -> Course:
    """Scores that stay with a label for a while, at times that rise by a frame or by a gap."""
    runs = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.floats(0.5, 6)), min_size=1, max_size=8))
    logits = [[size * (label == index) for index in range(3)] for label, length, size in runs for _ in range(length)]
    num_frames = len(logits)
    gaps = draw(st.lists(st.sampled_from([1, 1, 1, 6]), min_size=num_frames, max_size=num_frames))
    cuts = draw(st.lists(st.integers(1, num_frames), max_size=num_frames))
    seconds = (np.cumsum(gaps) / RATE).tolist()
    action_BTA = torch.arange(2.0 * num_frames).reshape(1, num_frames, 2).sin()
    return Course(Scores(action_BTA, torch.tensor([logits])), seconds, sorted({0, num_frames, *cuts}))


def run(labelling: Labelling, course: Course, cuts: list[int]) -> list[Labelled]:
    """What each chunk brings, and last what the end brings."""
    told, track = [], labelling.start()
    for start, end in pairwise(cuts):
        action_BTA, frame_BTL = course.scores.action_logits_BTA, course.scores.frame_logits_BTL
        chunk = Scores(action_BTA[:, start:end], frame_BTL[:, start:end])
        labelled, track = labelling.settle(track, course.seconds[start:end], chunk)
        told.append(labelled)
    return [*told, labelling.finish(track, end_seconds=course.seconds[-1] + 1 / RATE)]


def seconds_of(told: list[Labelled]) -> list[float]:
    return [seconds for labelled in told for seconds in labelled.seconds_T]


def changes_of(told: list[Labelled]) -> list[SegmentChange]:
    return [change for labelled in told for change in labelled.segments]


def frames_of(told: list[Labelled]) -> np.ndarray:
    return np.concatenate([labelled.frame_TL for labelled in told if labelled.frame_TL is not None])


lookaheads = st.integers(0, 12)
rules = st.fixed_dictionaries(
    {"merge_gap_seconds": st.sampled_from([0.0, 0.2, 0.5]), "min_duration_seconds": st.sampled_from([0.0, 0.3, 0.7])}
)


@given(course=courses(), lookahead_frames=lookaheads, rules=rules)
def test_any_chunking_gives_the_same_labels_and_the_same_changes(
    course: Course, lookahead_frames: int, rules: dict[str, float]
) -> None:
    labelling = Labelling.of(a_config(lookahead_frames=lookahead_frames, **rules))
    whole, chunks = (run(labelling, course, cuts) for cuts in ([0, len(course.seconds)], course.cuts))
    assert seconds_of(chunks) == seconds_of(whole) == course.seconds
    assert changes_of(chunks) == changes_of(whole)
    assert np.array_equal(frames_of(chunks), frames_of(whole))


@given(course=courses(), lookahead_frames=lookaheads)
def test_a_label_is_told_with_the_frame_that_comes_so_many_later_and_is_made_of_its_scores(
    course: Course, lookahead_frames: int
) -> None:
    num_frames = len(course.seconds)
    *told, last = run(Labelling.of(a_config(lookahead_frames=lookahead_frames)), course, list(range(num_frames + 1)))
    for frame, labelled in enumerate(told):
        assert (
            list(labelled.seconds_T)
            == course.seconds[: frame + 1][frame - lookahead_frames :][: frame >= lookahead_frames]
        )
    assert list(last.seconds_T) == course.seconds[max(0, num_frames - lookahead_frames) :]
    steps_TL = course.scores.frame_probabilities_BTL()[0].numpy()
    expected = [steps_TL[min(frame + lookahead_frames, num_frames - 1)] for frame in range(num_frames)]
    assert np.array_equal(frames_of([*told, last]), expected)


@given(course=courses(), lookahead_frames=lookaheads, rules=rules)
def test_the_segments_are_the_fold_of_the_labels(
    course: Course, lookahead_frames: int, rules: dict[str, float]
) -> None:
    config = a_config(lookahead_frames=lookahead_frames, **rules)
    told = run(Labelling.of(config), course, course.cuts)
    frames = zip(seconds_of(told), frames_of(told).tolist(), strict=True)
    segmenter = Segmenter(FRAMES, "still", config.segments)
    assert closed(changes_of(told)) == segmenter.fold(frames, end_seconds=course.seconds[-1] + 1 / RATE)


@given(course=courses(), lookahead_frames=lookaheads, rules=rules)
def test_a_segment_opens_once_before_it_closes_unless_it_closes_at_the_end(
    course: Course, lookahead_frames: int, rules: dict[str, float]
) -> None:
    *told, last = run(Labelling.of(a_config(lookahead_frames=lookahead_frames, **rules)), course, course.cuts)
    opened: list[tuple[str, float]] = []
    for change in changes_of(told):
        name = (change.segment.label, change.segment.start_seconds)
        assert (name in opened) == (change.change == "closed"), change
        opened = [*opened, name] if change.change == "opened" else [one for one in opened if one != name]
    at_the_end = [
        (change.segment.label, change.segment.start_seconds) for change in last.segments if change.change == "closed"
    ]
    assert set(opened) <= set(at_the_end), "what was opened closes in the end"


@pytest.mark.parametrize("lookahead_frames", [0, 3])
def test_the_action_of_a_moment_is_what_was_said_when_its_label_became_final(lookahead_frames: int) -> None:
    """No lag is undone: the running action is about all that was seen so far."""
    action_BTA = torch.tensor([[[float(frame), 0.0] for frame in range(6)]])
    scores, seconds = Scores(action_BTA, torch.zeros(1, 6, 3)), [frame / RATE for frame in range(6)]
    told = run(Labelling.of(a_config(lookahead_frames=lookahead_frames)), Course(scores, seconds, []), [0, 6])
    action_TA = np.concatenate([labelled.action_TA for labelled in told if labelled.action_TA is not None])
    newest = [min(frame + lookahead_frames, 5) for frame in range(6)]
    assert np.array_equal(action_TA[:6], action_BTA.softmax(dim=-1)[0].numpy()[newest])


@given(course=courses(), lookahead_frames=lookaheads)
def test_any_chunking_gives_the_same_calibrated_action_and_time_elapses_from_the_first_frame(
    course: Course, lookahead_frames: int
) -> None:
    calibration = Calibration(elapsed_seconds=(0.0, 0.5, 2.0), temperatures=(4.0, 2.0, 0.5))
    labelling = Labelling.of(a_config(lookahead_frames=lookahead_frames, calibration=calibration))
    later = Course(course.scores, [1000 + seconds for seconds in course.seconds], course.cuts)
    num_frames = len(course.seconds)
    told = [run(labelling, course, [0, num_frames]), run(labelling, course, course.cuts)]
    told += [run(labelling, later, course.cuts)]
    whole, *others = [np.concatenate([one.action_TA for one in each if one.action_TA is not None]) for each in told]
    assert all(np.array_equal(whole, other) for other in others)
    elapsed_T = np.subtract(course.seconds, course.seconds[0])
    temperatures = [4.0 if elapsed < 0.5 else 2.0 if elapsed < 2 else 0.5 for elapsed in elapsed_T]
    steps_TA = (course.scores.action_logits_BTA[0] / torch.tensor(temperatures)[:, None]).softmax(dim=-1)
    newest = [min(frame + lookahead_frames, num_frames - 1) for frame in range(num_frames)]
    assert whole == pytest.approx(steps_TA.numpy()[newest])


def test_a_moment_says_one_action_or_where_a_model_says_several_all_of_them() -> None:
    heads = {"action_labels": ACTIONS}
    one, several, unsure = (
        Labelling.of(ModelConfig(heads=HeadsConfig.model_validate(heads | more)))
        for more in ({}, {"several": True}, {"unknown_below": 0.9})
    )
    logits_BTA = torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]])
    moments = {}
    for labelling in (one, several, unsure):
        scores = Scores(logits_BTA, None, labelling.naming.several)
        moments[labelling] = labelling.moments(labelling.settle(labelling.start(), [0.0, 0.125], scores)[0])
    assert [(moment.action.label, moment.actions) for moment in moments[one]] == [("grow", ())] * 2
    assert [[said.label for said in moment.actions] for moment in moments[several]] == [["grow", "shrink"], []]
    assert moments[several][0].action == moments[several][0].actions[0] and moments[several][1].action is None
    assert [moment.action for moment in moments[unsure]] == [None, None]
    assert "actions" not in moments[one][0].model_dump_json(), "a wire of one action does not grow"


def test_a_stream_that_has_not_begun_ends_without_a_word() -> None:
    labelling = Labelling.of(a_config(lookahead_frames=2))
    track: Track = labelling.start()
    last = labelling.finish(track, end_seconds=0.0)
    assert (last.seconds_T, last.segments) == ((), ())
