"""Clips are decoded once; their pixels are then read from disk as they are needed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.toy_videos import paint, read, write_clip
from training.data.pixels import PixelCache
from vidseq.config import Limits, Picture, Sampling
from vidseq.errors import TooManyFrames, VideoError
from vidseq.sampling import sample
from vidseq.video import Reader

PICTURE = Picture(size=64)


def pixel_cache(
    cache: Path, *, picture: Picture = PICTURE, sampling: Sampling = Sampling(), **limits: int
) -> PixelCache:
    return PixelCache(picture=picture, sampling=sampling, cache=cache, limits=Limits.model_validate(limits))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """4 s at 10 frames a second: 32 frames at the default 8, which come in two chunks."""
    return write_clip(tmp_path / "clip.mp4", num_frames=40)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_the_pixels_are_those_of_the_sampled_frames(clip: Path, cache: Path) -> None:
    with Reader(clip, picture=PICTURE, limits=Limits()) as reader:
        chunks = list(sample(reader, Sampling()))
    pixels = pixel_cache(cache)(clip)
    assert len(chunks) > 1
    np.testing.assert_array_equal(pixels.pixels_THWC, np.concatenate([chunk.pixels_THWC for chunk in chunks]))
    np.testing.assert_array_equal(pixels.seconds_T, np.concatenate([chunk.seconds_T for chunk in chunks]))


@pytest.mark.parametrize("size", [64, 256])
def test_what_is_done_to_them_does_not_reach_the_disk(clip: Path, cache: Path, size: int) -> None:
    """Large clips are mapped from their file, and torch takes no arrays that cannot be written."""
    pixels_THWC = pixel_cache(cache, picture=Picture(size=size))(clip).pixels_THWC
    before = pixels_THWC.copy()
    torch.from_numpy(pixels_THWC)[0] = 7
    np.testing.assert_array_equal(pixel_cache(cache, picture=Picture(size=size))(clip).pixels_THWC, before)


def test_they_are_decoded_once(clip: Path, cache: Path) -> None:
    """The second time, a limit that would refuse the video is never met: nobody decodes."""
    first = pixel_cache(cache)(clip)
    second = pixel_cache(cache, max_frames=1)(clip)
    np.testing.assert_array_equal(first.pixels_THWC, second.pixels_THWC)


@pytest.mark.parametrize(
    "change", [{"picture": Picture(size=32)}, {"sampling": Sampling(frames_per_second=4)}], ids=str
)
def test_another_picture_or_sampling_is_decoded_anew(clip: Path, cache: Path, change: dict[str, Picture]) -> None:
    pixel_cache(cache)(clip)
    with pytest.raises(TooManyFrames):
        pixel_cache(cache, max_frames=1, **change)(clip)


def test_a_renamed_clip_is_read_and_a_changed_one_is_decoded(clip: Path, cache: Path) -> None:
    pixel_cache(cache)(clip)
    renamed = clip.rename(clip.with_name("renamed.mp4"))
    assert len(pixel_cache(cache, max_frames=1)(renamed).seconds_T) == 32
    with pytest.raises(TooManyFrames):
        pixel_cache(cache, max_frames=1)(write_clip(clip, num_frames=40, first_number=100))


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_what_was_cut_short_on_disk_is_decoded_again(clip: Path, cache: Path, share: float) -> None:
    whole = np.array(pixel_cache(cache)(clip).pixels_THWC)
    (path,) = cache.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    np.testing.assert_array_equal(pixel_cache(cache)(clip).pixels_THWC, whole)


def test_a_folder_of_pictures_is_a_clip_too(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        assert cv2.imwrite(str(folder / f"{number}.png"), paint(number, height=64, width=64))
    pixels = pixel_cache(cache, sampling=Sampling(frames_per_second=25))(folder)
    assert [read(pixels_HWC) for pixels_HWC in pixels.pixels_THWC] == [0, 1, 2]


def test_a_clip_that_cannot_be_decoded_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"this is no video")
    with pytest.raises(VideoError):
        pixel_cache(cache)(bad)
    assert list(cache.iterdir()) == []
