"""Pictures that come one by one, decoded in children that stay for the next: a process costs more than a picture.

    boxes.of(owner) -> decode, decode ...     a child that has waited for this owner, or a new one

A child decodes for one owner only: whoever takes it over has nobody's pictures but his own. It ends with what went
wrong in it, after some thousand pictures, and when nobody has needed it for a minute or others are needed more.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vidseq.config import Limits
from vidseq.decoder import Pixels
from vidseq.errors import DecoderCrashed, LimitExceeded, TooManyBytes, TooManyPixels, UndecodablePicture
from vidseq.pictures import DecodePicture
from vidseq.sandbox.boxed import Begin
from vidseq.sandbox.channel import Channel
from vidseq.sandbox.confine import Layer
from vidseq.sandbox.protocol import Hello, Job, Look, Outcome, Shown
from vidseq.sandbox.ring import Ring

MOST_BYTES = 64 * 2**20  # of one encoded picture
_CPU_SECONDS = 600  # of a child, for all its pictures; long before it is replaced
_WORN_SECONDS = 200.0
_WORN_PICTURES = 5000
_MOST_IDLE = 8
_IDLE_SECONDS = 60.0


class BoxedPictures:
    """One child. `decode` raises UndecodablePicture, TooManyPixels and TooManyBytes, after which it is as good as
    before; and DecoderCrashed, TooSlow and OutOfMemory, after which it is to be closed."""

    def __init__(self, limits: Limits, *, begin: Begin) -> None:
        """Raises SandboxError, and what `decode` raises last."""
        self._max_pixels = limits.max_pixels
        self._num_pictures = 0
        self._ring = Ring(3 * limits.max_pixels)
        self._channel = Channel(limits.model_copy(update={"max_decode_seconds": float(_CPU_SECONDS)}), arriving=None)
        self._memory = os.memfd_create("vidseq-picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._memory, MOST_BYTES)
            fcntl.fcntl(self._memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            job = Job(
                pictures=True,
                arriving=False,
                fit=0,
                size=0,
                cpu_seconds=_CPU_SECONDS,
                memory_bytes=limits.max_decoder_bytes,
                slot_bytes=self._ring.slot_bytes,
            )
            theirs, words = self._channel.theirs.fileno(), self._channel.complaints.write_fd
            begin(job, (self._memory, theirs, self._ring.fd, words))
            self._channel.begun()
            self.layers = Layer(self._channel.hear(Hello).layers)
        except BaseException:
            self.close()
            raise

    def decode(self, data: bytes) -> Pixels:
        """[H, W, C] in blue, green, red, upright, as `vidseq.pictures.decode_picture` makes it."""
        if len(data) > MOST_BYTES:
            raise TooManyBytes(len(data), MOST_BYTES)
        os.pwrite(self._memory, data, 0)
        self._num_pictures += 1
        self._channel.send(Look(len(data), self._max_pixels))
        shown = self._channel.hear(Shown)
        if shown.outcome is Outcome.NO_PICTURE:
            raise UndecodablePicture("the picture is not a JPEG, PNG or WebP that can be read")
        if shown.outcome is Outcome.TOO_LARGE:
            raise TooManyPixels(shown.num_pixels, self._max_pixels)
        if not 0 < shown.height * shown.width <= self._max_pixels:
            raise DecoderCrashed("the decoder's process gave a picture of a size that it must not have")
        return self._ring.picture(0, height=shown.height, width=shown.width)

    @property
    def fresh(self) -> bool:
        """Whether it is there, and not worn."""
        waited_seconds = self._channel.waited_seconds
        return self._channel.quiet and waited_seconds < _WORN_SECONDS and self._num_pictures < _WORN_PICTURES

    def close(self) -> None:
        """The child is killed."""
        self._channel.close()
        self._ring.close()
        os.close(self._memory)


class _Idle(NamedTuple):
    owner: str
    box: BoxedPictures
    since_seconds: float  # time.monotonic


class PictureBoxes:
    """Threads may share it. `begin` makes a child, as `Sandbox.pictures` does.

    Whoever wants those to end that have waited for `idle_seconds`, with the last picture in their memory, calls `sweep`
    now and then.
    """

    def __init__(self, begin: Callable[[], BoxedPictures], *, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._begin = begin
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []  # the longest idle first
        self._closed = False

    @contextmanager
    def of(self, owner: str) -> Iterator[DecodePicture]:
        """What decodes pictures of this owner, one after the other. A child is taken only if there is one to decode.

        It raises what `BoxedPictures` does, and SandboxError.
        """
        taken: list[BoxedPictures] = []

        def decode(data: bytes) -> Pixels:
            if not taken:
                taken.append(self._take(owner))
            try:
                return taken[0].decode(data)
            except (UndecodablePicture, LimitExceeded):
                raise
            except BaseException:
                taken.pop().close()
                raise

        try:
            yield decode
        finally:
            for box in taken:
                self._give_back(owner, box)

    def sweep(self) -> None:
        """End those that have waited too long, and those that are too many."""
        with self._lock:
            since = time.monotonic() - self._idle_seconds
            kept = [each for each in self._idle[-_MOST_IDLE:] if each.since_seconds > since]
            kept = [each for each in kept if each.box.fresh and not self._closed]
            gone = [each for each in self._idle if each not in kept]
            self._idle = kept
        for each in gone:
            each.box.close()

    def close(self) -> None:
        """Ends those that wait; those at work end with their work."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for each in idle:
            each.box.close()

    def _take(self, owner: str) -> BoxedPictures:
        with self._lock:
            found = next((each for each in reversed(self._idle) if each.owner == owner), None)
            if found is not None:
                self._idle.remove(found)
        if found is not None and found.box.fresh:
            return found.box
        if found is not None:
            found.box.close()
        return self._begin()

    def _give_back(self, owner: str, box: BoxedPictures) -> None:
        with self._lock:
            self._idle.append(_Idle(owner, box, time.monotonic()))
        self.sweep()
