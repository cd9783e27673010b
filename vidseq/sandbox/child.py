"""One clip, decoded for whoever asks through the channel. Runs confined; knows no processes and no limits of videos.

Ask -> grab, grab, grab ... up to the first frame that is due -> its picture, into shared memory -> Step
"""

import mmap
import os
import socket
import time
from contextlib import suppress

import numpy as np

from vidseq.config import Picture
from vidseq.decoder import Decoder
from vidseq.errors import UndecodableVideo
from vidseq.sandbox.confine import Layer
from vidseq.sandbox.protocol import FITS, MOST_BYTES, MOST_FRAMES, NUM_SLOTS, Ask, Failed, Hello, Job, Reason, Step

STEP_SECONDS = 0.25  # after so long the parent hears what there is, so that it can tell slow from stuck
_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem


def serve(job: Job, channel: socket.socket, ring: mmap.mmap, layers: Layer) -> None:
    """Decodes standard input until the parent closes the channel, or something cannot be done."""
    with suppress(BrokenPipeError, ConnectionResetError):  # nobody wants any more
        try:
            _serve(job, channel, ring, layers)
        except UndecodableVideo:
            channel.send(Failed(Reason.NO_PIXELS).pack())
        except Exception as error:
            no_memory = isinstance(error, MemoryError) or getattr(error, "code", None) == _OPENCV_NO_MEMORY
            channel.send(Failed(Reason.NO_MEMORY if no_memory else Reason.BROKEN).pack())
            raise


def _serve(job: Job, channel: socket.socket, ring: mmap.mmap, layers: Layer) -> None:
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
    slot_bytes = len(ring) // NUM_SLOTS
    if pixels_HWC.nbytes > slot_bytes:  # the parent has gated the header: frames of another size are scaled to it
        raise UndecodableVideo(f"a picture of {pixels_HWC.nbytes} bytes does not fit into {slot_bytes}")
    slot = np.frombuffer(ring, np.uint8, count=pixels_HWC.nbytes, offset=ask.slot % NUM_SLOTS * slot_bytes)
    slot[:] = pixels_HWC.reshape(-1)
    height, width, _ = pixels_HWC.shape
    lead_seconds = decoder.lead_seconds or 0.0
    return Step(tuple(seconds), filled=True, height=height, width=width, lead_seconds=lead_seconds)


def _grab(not_before: float, decoder: Decoder) -> tuple[list[float], bool]:
    """At least one frame, unless there is none; whether decoding has ended."""
    seconds: list[float] = []
    until = time.monotonic() + STEP_SECONDS
    while grabbed := decoder.grab(None, None):
        seconds += grabbed
        if seconds[-1] >= not_before or len(seconds) == MOST_FRAMES or time.monotonic() > until:
            return seconds, False
    return seconds, True
