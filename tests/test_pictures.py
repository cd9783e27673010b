"""vidseq.pictures: a folder in the order of its names, 25 a second; one picture from bytes; typed errors."""

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.toy_videos import paint, read
from vidseq.config import Limits, Picture, Sampling
from vidseq.decoder import Pixels
from vidseq.errors import EmptyVideo, OptionError, TooManyFrames, TooManyPixels, UndecodablePicture, VideoError
from vidseq.picture_folder import PictureReader
from vidseq.pictures import decode_picture, raw_picture
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


# A folder


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
    with pytest.raises(UndecodablePicture, match=r"001\.png"):
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
    with pytest.raises((TooManyPixels, UndecodablePicture)):
        list(reader(tmp_path, max_pixels=1_000_000).frames(lambda _: Verdict.TAKE))


# One picture from bytes

NOISE_HWC = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)  # red, green, blue
MAX_PIXELS = 10_000


def encode(pixels: Pixels, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_a_lossless_picture_has_exactly_the_pixels_of_raw_bytes(kind: str, options: dict[str, bool]) -> None:
    decoded_HWC = decode_picture(encode(NOISE_HWC, kind, **options), max_pixels=MAX_PIXELS)
    raw_HWC = raw_picture(NOISE_HWC.tobytes(), width=80, height=48)
    assert np.array_equal(decoded_HWC, raw_HWC)
    assert np.array_equal(raw_HWC, NOISE_HWC[:, :, ::-1])


def test_a_jpeg_is_close_to_what_it_was() -> None:
    decoded_HWC = decode_picture(encode(paint(1234), "JPEG", quality=95), max_pixels=MAX_PIXELS)
    assert np.abs(decoded_HWC.astype(int) - paint(1234)).mean() < 2


def test_a_picture_that_says_it_lies_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    on_its_side = encode(np.ascontiguousarray(np.rot90(NOISE_HWC)), "PNG", exif=exif)
    (tmp_path / "1.png").write_bytes(encode(np.ascontiguousarray(np.rot90(paint(77))), "PNG", exif=exif))
    (frame,) = reader(tmp_path).frames(lambda _: Verdict.TAKE)
    assert np.array_equal(decode_picture(on_its_side, max_pixels=MAX_PIXELS), NOISE_HWC[:, :, ::-1])
    assert read(frame.pixels_HWC) == 77


def test_of_16_bits_the_upper_8_are_taken() -> None:
    grey_HW = np.arange(48 * 80, dtype=np.uint16).reshape(48, 80) * 17
    decoded_HWC = decode_picture(encode(grey_HW, "PNG"), max_pixels=MAX_PIXELS)
    assert np.array_equal(decoded_HWC, np.dstack([(grey_HW >> 8).astype(np.uint8)] * 3))


def test_grey_becomes_three_equal_channels() -> None:
    grey_HW = NOISE_HWC[:, :, 0]
    assert np.array_equal(decode_picture(encode(grey_HW, "PNG"), max_pixels=MAX_PIXELS), np.dstack([grey_HW] * 3))


def test_transparency_is_left_out() -> None:
    see_through = np.dstack([NOISE_HWC, np.zeros((48, 80), dtype=np.uint8)])
    assert np.array_equal(decode_picture(encode(see_through, "PNG"), max_pixels=MAX_PIXELS), NOISE_HWC[:, :, ::-1])


def test_of_an_animation_the_first_picture_is_taken() -> None:
    later = [Image.fromarray(paint(number)) for number in (8, 9)]
    animation = encode(paint(7), "WEBP", save_all=True, append_images=later, lossless=True)
    assert np.array_equal(decode_picture(animation, max_pixels=MAX_PIXELS), paint(7))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_a_picture_of_another_format_is_not_opened(kind: str) -> None:
    with pytest.raises(UndecodablePicture, match="not a JPEG, PNG or WebP"):
        decode_picture(encode(NOISE_HWC, kind), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_too_many_pixels_are_refused_by_the_header_with_both_numbers(kind: str) -> None:
    header = encode(NOISE_HWC, kind)[:700]
    with pytest.raises(TooManyPixels) as caught:
        decode_picture(encode(NOISE_HWC, kind) if kind == "WEBP" else header, max_pixels=48 * 80 - 1)
    assert (caught.value.value, caught.value.limit) == (48 * 80, 48 * 80 - 1)


def test_a_declared_size_at_which_pillow_warns_is_refused_in_our_own_words() -> None:
    png = bytearray(encode(NOISE_HWC, "PNG"))
    png[16:24] = (12_000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    with pytest.raises(TooManyPixels, match="144,000,000 pixels"):
        decode_picture(bytes(png), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@settings(max_examples=40)
@given(data=st.data())
def test_any_damage_ends_in_a_picture_or_in_a_typed_error(kind: str, data: st.DataObject) -> None:
    picture = bytearray(encode(paint(99), kind))
    for offset in data.draw(st.lists(st.integers(0, len(picture) - 1), max_size=4)):
        picture[offset] = data.draw(st.integers(0, 255))
    try:
        decoded_HWC = decode_picture(bytes(picture[: data.draw(st.integers(0, len(picture)))]), max_pixels=MAX_PIXELS)
    except VideoError:
        return
    assert decoded_HWC.shape[2] == 3


@pytest.mark.parametrize("num_bytes", [0, 48 * 80 * 3 - 1, 48 * 80 * 3 + 1])
def test_raw_bytes_of_another_number_are_refused_with_both(num_bytes: int) -> None:
    with pytest.raises(OptionError, match=rf"80 x 48 pixels .* are 11,520 bytes; {num_bytes:,} came"):
        raw_picture(bytes(num_bytes), width=80, height=48)


@pytest.mark.parametrize(("width", "height"), [(0, 0), (-1, -1), (0, 7)])
def test_a_raw_picture_without_a_pixel_is_refused(width: int, height: int) -> None:
    with pytest.raises(OptionError, match="has no pixel"):
        raw_picture(b"", width=width, height=height)
