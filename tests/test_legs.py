"""A video in legs has the frames and the features of the video in one piece, or says that it cannot be divided."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toy_models import toy_config, toy_model
from tests.toy_videos import paint, write_clip, write_frames
from vidseq.config import ModelConfig, MotionConfig, Sampling
from vidseq.errors import VideoError
from vidseq.features.extract import Look, Seen, encoded
from vidseq.features.legs import CannotDivide, Leg, encode_leg, read_legs
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader

MOTION = MotionConfig(maps=("last",), grid=1)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


def in_one(clip: Path, config: ModelConfig, sandbox: Sandbox | None) -> tuple[np.ndarray, np.ndarray, Seen]:
    encoder = toy_model(config).encoder
    with Reader(clip, picture=config.picture, sandbox=sandbox) as reader:
        chunks = list(encoded(reader, config.sampling, encoder))
        seen = Seen.by(reader, stride=1)
    features, seconds = [chunk.columns["feature_TD"] for chunk in chunks], [chunk.seconds_T for chunk in chunks]
    return np.concatenate(features), np.concatenate(seconds), seen


def in_legs(
    clip: Path, config: ModelConfig, folder: Path, num_legs: int, sandbox: Sandbox | None = None
) -> tuple[np.ndarray, np.ndarray, Seen, list[int]]:
    files = [folder / f"{number}.safetensors" for number in range(num_legs)]
    encoder = toy_model(config).encoder
    for number, file in enumerate(files):
        with Reader(clip, picture=config.picture, sandbox=sandbox) as reader:
            encode_leg(reader, Look.of(config), encoder, Leg(number, num_legs), file)
    lengths = []
    for number in range(num_legs):
        alone = read_legs([files[number], files[-1]] if number + 1 < num_legs else files[-1:], moving=False)
        assert alone is not None
        lengths.append(sum(len(chunk.seconds_T) for chunk in alone[0]))
    lengths = [length - lengths[-1] * (number + 1 < num_legs) for number, length in enumerate(lengths)]
    found = read_legs(files, moving=config.encoder.motion is not None)
    assert found is not None
    chunks = list(found[0])
    features, seconds = [chunk.columns["feature_TD"] for chunk in chunks], [chunk.seconds_T for chunk in chunks]
    return np.concatenate(features), np.concatenate(seconds), found[1], lengths


@pytest.mark.parametrize("num_legs", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling": Sampling(frames_per_second="native")},
        {"sampling": Sampling(frames_per_second=3)},
        {"motion": MOTION},
        {"motion": MOTION, "sampling": Sampling(frames_per_second="native")},
    ],
    ids=["8", "native", "3", "motion", "motion native"],
)
@pytest.mark.parametrize("boxed", [False, True])
def test_legs_are_the_video_in_one_piece(
    tmp_path: Path, num_legs: int, options: dict[str, Any], boxed: bool, sandbox: Sandbox
) -> None:
    clip, config = write_clip(tmp_path / "clip.mp4", num_frames=143, frames_per_second=25), toy_config(**options)
    box = sandbox if boxed else None
    feature_TD, seconds_T, seen = in_one(clip, config, box)
    legs_TD, legs_T, legs_seen, lengths = in_legs(clip, config, tmp_path, num_legs, box)
    np.testing.assert_array_equal(legs_T, seconds_T)
    np.testing.assert_allclose(legs_TD, feature_TD, atol=1e-5)
    assert legs_seen == seen
    assert max(lengths) - min(lengths) <= max(2, len(seconds_T) / num_legs * 0.2), "each has about as much to do"


def test_frames_at_any_times_belong_to_one_leg(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = [0.0, *np.cumsum(rng.choice([0.01, 0.04, 0.4, 2.0], 60)).tolist()]
    clip = write_frames(tmp_path / "clip.mkv", [paint(number) for number in range(len(times))], times)
    config = toy_config()
    feature_TD, seconds_T, seen = in_one(clip, config, None)
    legs_TD, legs_T, legs_seen, _ = in_legs(clip, config, tmp_path, 5)
    np.testing.assert_array_equal(legs_T, seconds_T)
    np.testing.assert_allclose(legs_TD, feature_TD, atol=1e-5)
    assert legs_seen == seen


def test_motion_across_a_long_pause_cannot_be_divided(tmp_path: Path) -> None:
    """The frame before a leg lies 10 s back, further than a leg looks."""
    times = [number / 10 for number in range(20)] + [12 + number / 10 for number in range(20)]
    clip = write_frames(tmp_path / "clip.mkv", [paint(number) for number in range(40)], times)
    with pytest.raises(CannotDivide):
        in_legs(clip, toy_config(motion=MOTION), tmp_path, 2)
    in_legs(clip, toy_config(), tmp_path, 2)


def test_what_is_thinned_as_a_whole_cannot_be_divided(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=40)
    with pytest.raises(CannotDivide):
        in_legs(clip, toy_config(sampling=Sampling(max_frames=8)), tmp_path, 2)


def test_a_damaged_video_is_told_by_a_leg(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError):
        in_legs(tmp_path / "clip.mp4", toy_config(), tmp_path, 2)


def test_a_damaged_leg_is_no_leg(tmp_path: Path) -> None:
    in_legs(write_clip(tmp_path / "clip.mp4", num_frames=40), toy_config(), tmp_path, 2)
    files = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert read_legs(files, moving=False) is None
