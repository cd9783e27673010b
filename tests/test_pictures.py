"""A folder of pictures as a video: in the order of names, 25 a second, each mistake with the picture's name."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.toy_videos import paint, read
from vidseq.config import Limits, Picture, Sampling
from vidseq.errors import EmptyVideo, TooManyFrames, TooManyPixels, UndecodableVideo
from vidseq.pictures import PictureReader
from vidseq.sampling import sample
from vidseq.video import Verdict


def write_pictures(folder: Path, *, num_frames: int, suffix: str = ".png") -> Path:
    """Numbered pictures of 64 x 96, the last one written first: the order on disk is not that of the names."""
    folder.mkdir()
    for number in reversed(range(num_frames)):
        assert cv2.imwrite(str(folder / f"{number:03d}{suffix}"), paint(number))
    return folder


def reader(folder: Path, **limits: int) -> PictureReader:
    return PictureReader(folder, picture=Picture(size=64), limits=Limits.model_validate(limits))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
def test_pictures_come_in_the_order_of_their_names_25_a_second(tmp_path: Path, suffix: str) -> None:
    frames = list(reader(write_pictures(tmp_path / "clip", num_frames=5, suffix=suffix)).frames(lambda _: Verdict.TAKE))
    assert [read(frame.pixels_HWC) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


def test_pictures_are_sampled_by_time(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", num_frames=12)
    (clip,) = sample(reader(folder), Sampling(frames_per_second=5))
    assert [read(pixels_HWC) for pixels_HWC in clip.pixels_THWC] == [0, 5, 10]
    assert clip.seconds_T.tolist() == pytest.approx([0, 0.2, 0.4])


def test_colours_come_as_red_green_blue(tmp_path: Path) -> None:
    red_BGR = np.zeros((32, 32, 3), dtype=np.uint8)
    red_BGR[..., 2] = 255
    cv2.imwrite(str(tmp_path / "red.png"), red_BGR)
    (frame,) = reader(tmp_path).frames(lambda _: Verdict.TAKE)
    assert frame.pixels_HWC[10, 10].tolist() == [255, 0, 0]


def test_other_files_in_the_folder_are_no_frames(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", num_frames=2)
    (folder / "000.txt").write_text("notes")
    assert len(list(reader(folder).frames(lambda _: Verdict.TAKE))) == 2


def test_a_picture_that_is_not_looked_at_is_not_read(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", num_frames=3)
    (folder / "001.png").write_bytes(b"no picture")
    (clip,) = sample(reader(folder), Sampling(frames_per_second=12.5))
    assert [read(pixels_HWC) for pixels_HWC in clip.pixels_THWC] == [0, 2]


def test_nothing_is_asked_for_after_the_end(tmp_path: Path) -> None:
    asked: list[float] = []

    def stop(seconds: float) -> Verdict:
        asked.append(seconds)
        return Verdict.STOP

    assert list(reader(write_pictures(tmp_path / "clip", num_frames=3)).frames(stop)) == []
    assert asked == [0.0]


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", num_frames=2)
    (folder / "001.png").write_bytes(b"no picture")
    with pytest.raises(UndecodableVideo, match=r"001\.png"):
        list(reader(folder).frames(lambda _: Verdict.TAKE))


def test_a_folder_without_pictures_is_an_empty_video(tmp_path: Path) -> None:
    with pytest.raises(EmptyVideo, match="holds no pictures"):
        reader(tmp_path)


def test_a_picture_with_more_pixels_than_allowed_is_refused_with_both_numbers(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", num_frames=1)
    with pytest.raises(TooManyPixels) as caught:
        list(reader(folder, max_pixels=64 * 96 - 1).frames(lambda _: Verdict.TAKE))
    assert (caught.value.value, caught.value.limit) == (64 * 96, 64 * 96 - 1)


def test_more_pictures_than_allowed_are_refused_before_any_is_read(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", num_frames=3)
    with pytest.raises(TooManyFrames):
        reader(folder, max_frames=2)


def test_numbers_in_names_count_by_value_and_hidden_files_do_not(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), paint(number))
    (tmp_path / "._frame3.png").write_bytes(b"what another system left")
    frames = list(reader(tmp_path).frames(lambda _: Verdict.TAKE))
    assert [read(frame.pixels_HWC) for frame in frames] == [1, 2, 10]


def test_a_header_that_declares_too_many_pixels_is_refused_before_decoding(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), paint(1))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises((TooManyPixels, UndecodableVideo)):
        list(reader(tmp_path, max_pixels=1_000_000).frames(lambda _: Verdict.TAKE))
