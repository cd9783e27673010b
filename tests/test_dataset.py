"""A dataset shows its clips in any order of frames, and to a model of single frames without what moved."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.toy_models import toy_config
from tests.toy_videos import write_clip
from training.data.clips import LabelledClip, LabelledSegment
from training.data.dataset import Dataset, outside_warning
from training.data.features import FeatureExtractor
from vidseq.config import MotionConfig
from vidseq.encoder import Encoder

CHANNELS = 8


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """One clip of 16 frames, whose features tell of motion."""
    config = toy_config(motion=MotionConfig(grid=2, channels=CHANNELS))
    torch.manual_seed(0)
    extractor = FeatureExtractor(Encoder(config.encoder), config=config, store=tmp_path / "cache")
    path = write_clip(tmp_path / "clip.mp4", num_frames=20)
    labelled = LabelledClip(path, "a", group=None, split=None)
    return Dataset((labelled,), (extractor(path),), ("a",), (), None, (), extractor.motion)


def changes_TC(dataset: Dataset, order_T: list[int]) -> torch.Tensor:
    """The mean differences of a clip whose frames come in this order."""
    assert dataset.motion is not None
    start = dataset.motion.pooled_size
    return dataset.rearranged(0, np.array(order_T))[:, start : start + CHANNELS]


def test_frames_in_their_order_have_the_features_that_were_computed_chunk_by_chunk(dataset: Dataset) -> None:
    (example,) = dataset.examples([0])
    assert example.num_frames == 16
    assert torch.equal(dataset.rearranged(0, np.arange(16)), example.feature_TD)


def test_in_another_order_what_moved_is_made_again(dataset: Dataset) -> None:
    assert not changes_TC(dataset, [3, 3, 3]).any()
    forwards_TC, backwards_TC = changes_TC(dataset, [0, 1, 2]), changes_TC(dataset, [2, 1, 0])
    assert forwards_TC[1:].abs().sum() > 0
    torch.testing.assert_close(backwards_TC[1:], forwards_TC[1:].flip(0))


def test_a_model_of_single_frames_is_not_told_what_moved(dataset: Dataset) -> None:
    assert dataset.motion is not None
    (example,), (alone,) = dataset.examples([0]), dataset.alone().examples([0])
    assert torch.equal(alone.feature_TD, example.feature_TD[:, : dataset.motion.pooled_size])


def test_segments_that_begin_when_their_clip_is_over_are_told(dataset: Dataset) -> None:
    """As when times are numbers of frames, or milliseconds. A segment may end later than the last frame begins."""
    (clip,), last = dataset.clips, float(dataset.features[0].seconds_T[-1])

    def warning(*starts: float) -> str | None:
        segments = tuple(LabelledSegment(start, start + 100, "x") for start in starts)
        return outside_warning(replace(dataset, clips=(replace(clip, segments=segments),)))

    assert warning() is None and warning(0.0, last) is None
    found = warning(0.0, 120.0, 300.0)
    assert found is not None
    assert found.startswith("2 segment(s) of 1 clip(s) begin after the last frame, as in ")
    assert f"at 120 of {last:g} seconds" in found


def test_near_duplicates_are_found_by_what_is_seen(dataset: Dataset) -> None:
    alone = dataset.alone()
    assert np.array_equal(dataset.mean_features(), alone.mean_features())
