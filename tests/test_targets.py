"""Frame labels as numbers: which frame each step is asked about, and which step answers for each frame."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_models import FRAMES, toy_config
from training.data.clips import LabelledClip, LabelledSegment
from training.data.targets import IGNORED, delayed, frame_targets, settled
from vidseq.config import Sampling
from vidseq.labelling import Labelling
from vidseq.model import Scores

SECONDS_T = np.arange(6) / 2


def marked(*segments: tuple[float, float, str]) -> LabelledClip:
    marks = tuple(LabelledSegment(start, end, label) for start, end, label in segments)
    return LabelledClip(Path("a.mp4"), label=None, group=None, split=None, segments=marks)


def test_a_segment_labels_the_frames_from_its_start_up_to_but_without_its_end() -> None:
    clip = marked((0.5, 1.5, "b"), (1.5, 2.0, "a"))
    assert frame_targets(clip, SECONDS_T, ("a", "b", "none"), "none").tolist() == [2, 1, 1, 0, 2, 2]
    assert frame_targets(clip, SECONDS_T, ("b",), None).tolist() == [IGNORED, 0, 0, IGNORED, IGNORED, IGNORED]


def test_the_frames_of_a_clip_that_was_not_marked_have_no_label() -> None:
    assert frame_targets(marked(), SECONDS_T, ("a", "none"), "none").tolist() == [IGNORED] * 6


@pytest.mark.parametrize(
    ("lookahead_frames", "expected"),
    [(0, [5, 6, 7]), (1, [IGNORED, 5, 6]), (3, [IGNORED] * 3), (9, [IGNORED] * 3)],
)
def test_each_step_is_asked_about_the_frame_so_many_steps_ago(lookahead_frames: int, expected: list[int]) -> None:
    assert delayed(torch.tensor([5, 6, 7]), lookahead_frames=lookahead_frames).tolist() == expected


@pytest.mark.parametrize(
    ("lookahead_frames", "expected"), [(0, [0, 1, 2, 3]), (1, [1, 2, 3, 3]), (3, [3] * 4), (9, [3] * 4)]
)
def test_each_frame_is_answered_by_the_step_so_many_steps_on_or_by_the_last(
    lookahead_frames: int, expected: list[int]
) -> None:
    steps_TL = np.arange(4.0)[:, None]
    assert settled(steps_TL, lookahead_frames=lookahead_frames)[:, 0].tolist() == expected


@given(num_frames=st.integers(1, 20), lookahead_frames=st.integers(0, 24), seed=st.integers(0, 9))
def test_a_trained_frame_is_scored_as_a_stream_would_label_it(
    num_frames: int, lookahead_frames: int, seed: int
) -> None:
    """Training undoes the lag by an index, a stream frame by frame: they must agree on every frame."""
    logits_BTL = torch.randn(1, num_frames, len(FRAMES), generator=torch.Generator().manual_seed(seed))
    config = toy_config(
        sampling=Sampling(frames_per_second=8), lookahead_seconds=lookahead_frames / 8, action_labels=()
    )
    labelling, seconds = Labelling.of(config), [frame / 8 for frame in range(num_frames)]
    first, track = labelling.settle(labelling.start(), seconds, Scores(None, logits_BTL))
    last = labelling.finish(track, end_seconds=seconds[-1])
    told = [*labelling.moments(first), *labelling.moments(last)]
    scores_TL = settled(logits_BTL.softmax(dim=-1)[0].numpy(), lookahead_frames=lookahead_frames)
    assert config.lookahead_frames == lookahead_frames
    assert [moment.seconds for moment in told] == seconds
    assert [moment.frame.score for moment in told] == scores_TL.max(axis=1).tolist()
    assert [moment.frame.label for moment in told] == [FRAMES[best] for best in scores_TL.argmax(axis=1)]
