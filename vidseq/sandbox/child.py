"""One clip, or pictures, decoded for whoever asks through the channel. Runs confined; knows no processes and no limits.

Ask  -> grab, grab, grab ... up to the first frame that is due -> its picture, into shared memory -> Step
Look -> the picture that lies in the other shared memory                                          -> Shown
"""

import mmap
import os
import socket
import time
from contextlib import suppress

import numpy as np

from vidseq.config import Picture
from vidseq.decoder import Decoder, Pixels
from vidseq.errors import TooManyPixels, UndecodablePicture, UndecodableVideo
from vidseq.pictures import decode_picture
from vidseq.sandbox.confine import Layer
from vidseq.sandbox.protocol import (
    FITS,
    MOST_BYTES,
    MOST_FRAMES,
    NUM_SLOTS,
    Ask,
    Failed,
    Hello,
    Job,
    Look,
    Outcome,
    Reason,
    Shown,
    Step,
)

STEP_SECONDS = 0.25  # after so long the parent hears what there is, so that it can tell slow from stuck
_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem


def serve(job: Job, channel: socket.socket, ring: mmap.mmap, layers: Layer) -> None:
    """Decodes standard input until the parent closes the channel, or something cannot be done."""
    work = _serve_pictures if job.pictures else _serve_clip
    with suppress(BrokenPipeError, ConnectionResetError):  # nobody wants any more
        try:
            work(job, channel, ring, layers)
        except UndecodableVideo:
            channel.send(Failed(Reason.NO_PIXELS).pack())
        except Exception as error:
            no_memory = isinstance(error, MemoryError) or getattr(error, "code", None) == _OPENCV_NO_MEMORY
            channel.send(Failed(Reason.NO_MEMORY if no_memory else Reason.BROKEN).pack())
            raise


def _serve_pictures(job: Job, channel: socket.socket, ring: mmap.mmap, layers: Layer) -> None:
    channel.send(Hello(layers, opened=True).pack())
    while message := channel.recv(MOST_BYTES):
        channel.send(_look(Look.unpack(message), ring).pack())


def _look(look: Look, ring: mmap.mmap) -> Shown:
    try:
        pixels_HWC = decode_picture(os.pread(0, look.num_bytes, 0), max_pixels=look.max_pixels)
    except TooManyPixels as error:
        return Shown(Outcome.TOO_LARGE, num_pixels=int(error.value))
    except UndecodablePicture as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        return Shown(Outcome.NO_PICTURE)
    _put(pixels_HWC, ring, slot=0)
    return Shown(Outcome.DECODED, *pixels_HWC.shape[:2])


def _serve_clip(job: Job, channel: socket.socket, ring: mmap.mmap, layers: Layer) -> None:
    with suppress(OSError):  # a pipe cannot be rewound
        os.lseek(0, 0, os.SEEK_SET)
    decoder = Decoder.of_standard_input(arriving=job.arriving)
    channel.send(_hello(decoder, layers).pack())
    picture = Picture(size=job.size, fit=FITS[job.fit])
    while message := channel.recv(MOST_BYTES):
        channel.send(_answer(Ask.unpack(message), decoder, picture, ring).pack())


def _hello(decoder: Decoder, layers: Layer) -> Hello:
    if not decoder.opened:
        return Hello(layers, opened=False)
    found = decoder.header()
    return Hello(
        layers,
        opened=True,
        width=found.width,
        height=found.height,
        four_letters=found.four_letters.encode("latin-1"),
        num_frames=found.num_frames,
        frames_per_second=found.frames_per_second,
    )


def _answer(ask: Ask, decoder: Decoder, picture: Picture, ring: mmap.mmap) -> Step:
    seconds: list[float] = []
    if not ask.again:
        seconds, ended = _grab(ask.not_before, decoder)
        due = not ended and seconds[-1] >= ask.not_before
        if not (due and ask.picture):
            return Step(tuple(seconds), ended, lead_seconds=decoder.lead_seconds or 0.0)
    pixels_HWC = decoder.picture(None if ask.whole else picture, None)
    _put(pixels_HWC, ring, slot=ask.slot % NUM_SLOTS)
    height, width, _ = pixels_HWC.shape
    lead_seconds = decoder.lead_seconds or 0.0
    return Step(tuple(seconds), filled=True, height=height, width=width, lead_seconds=lead_seconds)


def _put(pixels_HWC: Pixels, ring: mmap.mmap, *, slot: int) -> None:
    slot_bytes = len(ring) // NUM_SLOTS
    if pixels_HWC.nbytes > slot_bytes:  # the parent has gated the header: frames of another size are scaled to it
        raise UndecodableVideo(f"a picture of {pixels_HWC.nbytes} bytes does not fit into {slot_bytes}")
    place = np.frombuffer(ring, np.uint8, count=pixels_HWC.nbytes, offset=slot * slot_bytes)
    place.reshape(pixels_HWC.shape)[:] = pixels_HWC


def _grab(not_before: float, decoder: Decoder) -> tuple[list[float], bool]:
    """At least one frame, unless there is none; whether decoding has ended."""
    seconds: list[float] = []
    until = time.monotonic() + STEP_SECONDS
    while grabbed := decoder.grab(None, None):
        seconds += grabbed
        if seconds[-1] >= not_before or len(seconds) == MOST_FRAMES or time.monotonic() > until:
            return seconds, False
    return seconds, True
