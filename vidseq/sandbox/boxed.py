"""The Decoder of one clip that runs in a child process. Knows no containers and no limits of videos.

grab      Ask -------------------> child: frames up to the first that is due, and its picture
          Step <------------------
picture   copied out of the ring, and the next Ask is on its way: the child decodes while the caller looks at it
"""

import math
from collections.abc import Callable, Sequence

from vidseq.config import Limits, Picture
from vidseq.decoder import Header, Pixels
from vidseq.errors import DecoderCrashed
from vidseq.sandbox.channel import Channel
from vidseq.sandbox.confine import Layer
from vidseq.sandbox.protocol import FITS, NUM_SLOTS, Ask, Hello, Job, Step
from vidseq.sandbox.ring import Ring

Begin = Callable[[Job, Sequence[int]], None]  # hands a job and its descriptors to the fork server


class BoxedDecoder:
    """As vidseq.decoder.Decoder, of the open file `fd`, which the caller keeps open as long.

    It believes nothing that the child says. All but `close` raise DecoderCrashed, TooSlow, OutOfMemory, SandboxError.
    """

    def __init__(self, fd: int, *, arriving: bool, picture: Picture, limits: Limits, begin: Begin) -> None:
        """`picture` is the one that `grab` and `picture` may ask for; None they may always."""
        self._step = Step(())
        self._slot = 0
        self._asked = False
        self._ring = Ring(3 * max(limits.max_pixels, picture.size**2))
        self._channel = Channel(limits, arriving=fd if arriving else None)
        job = Job(
            pictures=False,
            arriving=arriving,
            fit=FITS.index(picture.fit),
            size=picture.size,
            cpu_seconds=math.ceil(limits.max_decode_seconds),
            memory_bytes=limits.max_decoder_bytes,
            slot_bytes=self._ring.slot_bytes,
        )
        try:
            begin(job, (fd, self._channel.theirs.fileno(), self._ring.fd, self._channel.complaints.write_fd))
            self._channel.begun()
            self._hello = self._channel.hear(Hello)
            if not self.opened:
                self._channel.check_memory()
        except BaseException:
            self.close()
            raise

    @property
    def opened(self) -> bool:
        return self._hello.opened

    @property
    def layers(self) -> Layer:
        """What the kernel granted of what the child was to give up."""
        return Layer(self._hello.layers)

    @property
    def lead_seconds(self) -> float | None:
        """Decoder's, of a child that has decoded a frame."""
        return self._step.lead_seconds if self._step.seconds else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the decoder said of the file, counted: one sentence, or none."""
        self._channel.complaints.listen()
        return self._channel.complaints.warnings

    def header(self) -> Header:
        found = self._hello
        letters = found.four_letters.decode("latin-1")
        return Header(found.width, found.height, letters, found.num_frames, found.frames_per_second)

    def grab(self, picture: Picture | None, not_before: float | None) -> tuple[float, ...]:
        """The timestamps of the next frames; () where they end. With None for `not_before` it is one frame, else as
        many as come up to the first that is not before it: of that one `picture` is made, too."""
        if self._step.ended:
            return ()
        if not self._asked:
            self._ask(picture, not_before)
        self._step = self._hear()
        if not self._step.ended and not self._step.seconds:
            raise DecoderCrashed("the decoder's process gave neither a frame nor an end")
        return self._step.seconds

    def picture(self, picture: Picture | None, not_before: float | None) -> Pixels:
        """The frame last grabbed. Then the child goes on, as if grab(picture, not_before) had been called."""
        step = self._step
        if not step.filled:
            self._channel.send(Ask(-math.inf, self._slot, picture=True, whole=picture is None, again=True))
            step = self._hear()
        if not step.filled or not self._fits(step, picture):
            raise DecoderCrashed("the decoder's process gave no picture, or one of another size")
        slot, self._slot = self._slot, (self._slot + 1) % NUM_SLOTS
        self._ask(picture, not_before)
        return self._ring.picture(slot, height=step.height, width=step.width)

    def close(self) -> None:
        """The child is killed."""
        self._channel.close()
        self._ring.close()

    def _ask(self, picture: Picture | None, not_before: float | None) -> None:
        due = -math.inf if not_before is None else not_before
        foreseen = not_before is not None
        self._channel.send(Ask(due, self._slot, picture=foreseen, whole=picture is None, again=False))
        self._asked = True

    def _hear(self) -> Step:
        self._asked = False
        step = self._channel.hear(Step)
        if step.ended:
            self._channel.check_memory()
        return step

    def _fits(self, step: Step, picture: Picture | None) -> bool:
        if picture is not None:
            return (step.height, step.width) == (picture.size, picture.size)
        return 0 < step.height * step.width * 3 <= self._ring.slot_bytes
