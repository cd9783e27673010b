"""Toy clips whose frames paint their own number, so that after any codec a test can read which frame it got.

The number stands in the centre square as 4 x 4 blocks of black and white: 12 bits, and four corners that never change
(white, black, black, black), so that a picture on its side or upside down cannot be read.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from vidseq.container import new_memory

Pixels = npt.NDArray[np.uint8]

BLOCKS = 4
CORNERS = {(0, 0): True, (0, 3): False, (3, 0): False, (3, 3): False}
CELLS = [(row, column) for row in range(BLOCKS) for column in range(BLOCKS) if (row, column) not in CORNERS]
MILLISECOND = Fraction(1, 1000)


def paint(number: int, *, height: int = 64, width: int = 96) -> Pixels:
    """A frame [H, W, 3]: `number` (below 4096) in the centre square, grey around it."""
    blocks = np.zeros((BLOCKS, BLOCKS), dtype=np.uint8)
    blocks[0, 0] = 255
    for bit, cell in enumerate(CELLS):
        blocks[cell] = 255 * (number >> bit & 1)
    side = min(height, width) // BLOCKS * BLOCKS
    top, left = (height - side) // 2, (width - side) // 2
    frame_HWC = np.full((height, width, 3), 128, dtype=np.uint8)
    square = blocks.repeat(side // BLOCKS, axis=0).repeat(side // BLOCKS, axis=1)
    frame_HWC[top : top + side, left : left + side] = square[..., None]
    return frame_HWC


def read(square_HWC: Pixels) -> int:
    """The number painted in a square picture of any size."""
    size = square_HWC.shape[0] // BLOCKS
    margin = size // 4
    white = {}
    for row, column in [*CORNERS, *CELLS]:
        block = square_HWC[row * size : (row + 1) * size, column * size : (column + 1) * size]
        white[row, column] = bool(block[margin : size - margin, margin : size - margin].mean() > 128)
    assert {cell: white[cell] for cell in CORNERS} == CORNERS, "the picture is not upright, or no toy"
    return sum(white[cell] << bit for bit, cell in enumerate(CELLS))


def write_clip(
    path: Path,
    *,
    num_frames: int = 20,
    frames_per_second: int = 10,
    seconds: Sequence[float] | None = None,
    first_number: int = 0,
    height: int = 64,
    width: int = 96,
    codec: str = "libx264",
    muxing: dict[str, str] | None = None,
) -> Path:
    """A clip of numbered frames at a constant rate from 0 s on, or with one frame at each of `seconds`."""
    if seconds is None:
        seconds = [(first_number + index) / frames_per_second for index in range(num_frames)]
    frames = [paint(first_number + index, height=height, width=width) for index in range(len(seconds))]
    return write_frames(path, frames, seconds, frames_per_second=frames_per_second, codec=codec, muxing=muxing)


def write_frames(
    path: Path,
    frames: Sequence[Pixels],
    seconds: Sequence[float],
    *,
    frames_per_second: int = 10,
    codec: str = "libx264",
    muxing: dict[str, str] | None = None,
) -> Path:
    """A clip of the given frames [H, W, 3] at the given times (kept to 1 ms by H.264, else to the rate)."""
    # SVT-AV1 gives the thread that opens it real-time priority where it may, and all that it starts later inherits it.
    with ThreadPoolExecutor(1) as own:
        own.submit(_write_frames, path, frames, seconds, frames_per_second, codec, muxing or {}).result()
    return path


def _write_frames(
    path: Path,
    frames: Sequence[Pixels],
    seconds: Sequence[float],
    frames_per_second: int,
    codec: str,
    muxing: dict[str, str],
) -> None:
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream(codec, rate=frames_per_second)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = {"mjpeg": "yuvj420p", "magicyuv": "gbrp"}.get(codec, "yuv420p")
        if codec == "libx264":
            stream.codec_context.time_base = MILLISECOND
        for frame_HWC, at_seconds in zip(frames, seconds, strict=True):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = round(at_seconds * 1000), MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def remux(source: Path, target: Path, **muxing: str) -> Path:
    """The same pictures, not coded again, in another container."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=muxing) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target


def recode(source: Path, target: Path) -> Path:
    """AVI cannot hold what H.264 needs, so its pictures are coded again, at a constant rate."""
    with av.open(str(source)) as old:
        rate = old.streams.video[0].average_rate or Fraction(25)
        frames = [frame.to_ndarray(format="rgb24") for frame in old.decode(video=0)]
    seconds = [float(index / rate) for index in range(len(frames))]
    return write_frames(target, frames, seconds, frames_per_second=round(rate), codec="mpeg4")


def write_sound(path: Path, *, num_seconds: int = 1) -> Path:
    """A file with a sound track and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for index in range(num_seconds * 8):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1000), dtype=np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 8000, index * 1000
            container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return path


def turn_clockwise(mp4: bytes) -> bytes:
    """The same file, with a display matrix that says: turn it by 90 degrees."""
    quarter_turn = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    return overwrite(mp4, mp4.index(b"tkhd") + 4 + 40, quarter_turn)


@contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    """The descriptor of a file that holds them."""
    fd = new_memory("toy")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def overwrite(data: bytes, offset: int, new: bytes) -> bytes:
    """The same bytes with `new` at `offset`: a header that lies."""
    return data[:offset] + new + data[offset + len(new) :]
