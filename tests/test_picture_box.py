"""vidseq.sandbox.picture_box: pictures from outside are decoded as here, in processes of their own, an owner's each."""

import contextlib
import io
import os
import signal
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.require import missing
from tests.test_sandbox import await_true, is_gone
from vidseq.config import Limits
from vidseq.errors import (
    DecoderCrashed,
    OutOfMemory,
    TooManyBytes,
    TooManyPixels,
    TooSlow,
    UndecodablePicture,
    VideoError,
)
from vidseq.pictures import FORMATS, DecodePicture, decode_picture
from vidseq.sandbox.box import Sandbox
from vidseq.sandbox.confine import ALL
from vidseq.sandbox.picture_box import MOST_BYTES, PictureBoxes

LIMITS = Limits(max_pixels=640 * 480)


def drawn(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(width * height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(values, "RGBA").convert(mode)


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def grey_of_16_bits() -> bytes:
    return encoded(Image.fromarray(np.arange(0, 60_000, 20, dtype=np.uint16).reshape(50, 60)), "PNG")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    return encoded(drawn(), "JPEG", exif=exif)


PICTURES = {
    **{form: encoded(drawn(), form) for form in FORMATS},
    "the largest": encoded(drawn(640, 480), "PNG"),
    "one pixel": encoded(drawn(1, 1), "PNG"),
    "palette": encoded(drawn().convert("P"), "PNG"),
    "grey": encoded(drawn(mode="L"), "JPEG"),
    "grey of 16 bits": grey_of_16_bits(),
    "transparent": encoded(drawn(mode="RGBA"), "WEBP"),
    "CMYK": encoded(drawn(mode="CMYK"), "JPEG"),
    "turned": turned(),
    "an animation": encoded(drawn(), "WEBP", save_all=True, append_images=[drawn(64, 48, "L").convert("RGB")]),
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def boxes_of(sandbox: Sandbox, limits: Limits = LIMITS) -> PictureBoxes:
    return PictureBoxes(lambda: sandbox.pictures(limits))


@pytest.fixture
def boxes(sandbox: Sandbox) -> Iterator[PictureBoxes]:
    with contextlib.suppress(FileNotFoundError):  # no server yet
        await_true(lambda: children(sandbox) == [])  # of tests before, that have been closed
    boxes = boxes_of(sandbox)
    yield boxes
    boxes.close()
    await_true(lambda: children(sandbox) == [])


def children(sandbox: Sandbox) -> list[int]:
    """The process ids of all that decode."""
    pid = sandbox.server_pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_the_same_as_here(boxes: PictureBoxes, name: str) -> None:
    with boxes.of("ann") as decode:
        found = decode(PICTURES[name])
    assert np.array_equal(found, decode_picture(PICTURES[name], max_pixels=LIMITS.max_pixels))


def test_what_is_no_picture_is_told_and_the_next_is_decoded_by_the_same_process(
    boxes: PictureBoxes, sandbox: Sandbox
) -> None:
    with boxes.of("ann") as decode:
        before = decode(PICTURES["JPEG"])
        pids = children(sandbox)
        with pytest.raises(UndecodablePicture):
            decode(b"no picture")
        with pytest.raises(TooManyPixels, match="307,840 pixels a frame; at most 307,200"):
            decode(encoded(drawn(640, 481), "PNG"))
        with pytest.raises(TooManyBytes):
            decode(bytes(MOST_BYTES + 1))
        assert np.array_equal(decode(PICTURES["JPEG"]), before)
        assert children(sandbox) == pids != []


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_pictures_cost_nobody_anything(sandbox: Sandbox, data: st.DataObject) -> None:
    """They are decoded as they are here, or refused as they are here."""
    whole = bytearray(PICTURES[data.draw(st.sampled_from(FORMATS))])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    boxes = boxes_of(sandbox)
    with boxes.of("ann") as decode:
        boxed = outcome(decode, damaged)
    boxes.close()
    assert boxed == outcome(lambda data: decode_picture(data, max_pixels=LIMITS.max_pixels), damaged)


def outcome(decode: DecodePicture, data: bytes) -> bytes | type[VideoError]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's, which are errors in tests
            return decode(data).tobytes()
    except VideoError as error:
        return type(error)


def test_a_process_stays_for_the_next_pictures_of_its_owner_and_for_nobody_else(
    boxes: PictureBoxes, sandbox: Sandbox
) -> None:
    def pids_after(owner: str) -> set[int]:
        with boxes.of(owner) as decode:
            decode(PICTURES["JPEG"])
        return set(children(sandbox))

    first = pids_after("ann")
    assert pids_after("ann") == first
    both = pids_after("ben")
    assert len(both) == 2 and both > first
    assert pids_after("ann") == pids_after("ben") == both


def test_who_decodes_nothing_has_no_process(boxes: PictureBoxes, sandbox: Sandbox) -> None:
    with boxes.of("ann"):
        assert children(sandbox) == []


def test_two_pushes_of_one_owner_at_once_have_two_processes(boxes: PictureBoxes, sandbox: Sandbox) -> None:
    with boxes.of("ann") as one, boxes.of("ann") as other:
        assert np.array_equal(one(PICTURES["PNG"]), other(PICTURES["PNG"]))
        assert len(children(sandbox)) == 2


def test_of_many_owners_few_processes_wait(boxes: PictureBoxes, sandbox: Sandbox) -> None:
    def push(owner: int) -> None:
        for _ in range(3):
            with boxes.of(str(owner)) as decode:
                decode(PICTURES["JPEG"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push, range(30)))
    await_true(lambda: len(children(sandbox)) == 8)


def test_a_process_that_dies_costs_its_picture_and_no_other(boxes: PictureBoxes, sandbox: Sandbox) -> None:
    with boxes.of("ann") as decode:
        decode(PICTURES["JPEG"])
        (pid,) = children(sandbox)
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(DecoderCrashed, match="SIGSEGV"):
            decode(PICTURES["JPEG"])
        assert decode(PICTURES["JPEG"]).shape == (48, 64, 3)


def test_a_process_that_dies_while_it_waits_costs_nothing(boxes: PictureBoxes, sandbox: Sandbox) -> None:
    with boxes.of("ann") as decode:
        decode(PICTURES["JPEG"])
    (pid,) = children(sandbox)
    os.kill(pid, signal.SIGKILL)
    await_true(lambda: is_gone(pid))
    await_true(lambda: children(sandbox) == [])
    with boxes.of("ann") as decode:
        assert decode(PICTURES["JPEG"]).shape == (48, 64, 3)


@pytest.mark.usefixtures("boxes")
def test_a_process_that_is_stuck_is_killed_in_time(sandbox: Sandbox) -> None:
    boxes = boxes_of(sandbox, Limits(max_stall_seconds=3.0))
    with boxes.of("ann") as decode:
        decode(PICTURES["JPEG"])
        (pid,) = children(sandbox)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TooSlow, match="max_stall_seconds"):
            decode(PICTURES["JPEG"])
    await_true(lambda: is_gone(pid))
    boxes.close()


def test_what_does_not_fit_into_its_memory_is_told(sandbox: Sandbox) -> None:
    boxes = boxes_of(sandbox, Limits(max_decoder_bytes=420 * 2**20, max_pixels=12_000 * 12_000))
    with boxes.of("ann") as decode, pytest.raises(OutOfMemory, match="max_decoder_bytes"):
        decode(encoded(Image.new("L", (12_000, 12_000)), "PNG"))
    boxes.close()


@pytest.mark.usefixtures("boxes")
def test_what_has_waited_too_long_is_ended_by_a_sweep(sandbox: Sandbox) -> None:
    with contextlib.closing(PictureBoxes(lambda: sandbox.pictures(LIMITS), idle_seconds=5.0)) as impatient:
        with impatient.of("ann") as decode:
            decode(PICTURES["JPEG"])
        impatient.sweep()
        assert len(children(sandbox)) == 1, "it may be needed again"
        time.sleep(5.0)
        impatient.sweep()
        await_true(lambda: children(sandbox) == [])


def test_after_its_end_nothing_waits(sandbox: Sandbox) -> None:
    boxes = boxes_of(sandbox)
    with boxes.of("ann") as decode:
        decode(PICTURES["JPEG"])
        boxes.close()
        assert decode(PICTURES["JPEG"]).shape == (48, 64, 3)
    await_true(lambda: children(sandbox) == [])


def test_it_is_as_confined_as_a_decoder_of_clips(sandbox: Sandbox) -> None:
    """Which is tried from inside in test_sandbox_confine."""
    box = sandbox.pictures(LIMITS)
    box.close()
    if lacking := ALL & ~box.layers:
        missing("sandbox", f"this kernel does not offer {lacking}")
    assert box.layers == ALL
