"""What crosses the wall of the sandbox: structs of fixed size over one socket, and nothing else. Knows no processes.

    to the server   Job, with the descriptors of clip, channel, ring and messages
    to the child    Ask, for the next frames; or Look, at one picture
    to the parent   Hello once, then a Step for each Ask, a Shown for each Look, or Failed; Ended from the server, once
                    the child is gone

Whoever reads what a child says believes nothing: another length, or a value out of its range, is Garbled.
"""

import math
import struct
from enum import IntEnum
from typing import Any, NamedTuple, get_args

from vidseq.config import Fit

FITS: tuple[Fit, ...] = get_args(Fit)
MOST_BYTES = 2048  # of a message
MOST_FRAMES = 128  # in one Step
NUM_SLOTS = 2  # of the ring: one picture is copied out while the next is made
NUM_JOB_DESCRIPTORS = 4
READY = b"ready"  # what the server says once, when it can take jobs

_JOB = struct.Struct("=??BIIQQ")
_ASK = struct.Struct("=dB???")
_LOOK = struct.Struct("=QQ")
_HELLO = struct.Struct("=BI?dd4sdd")
_STEP = struct.Struct("=B??IIId")
_SHOWN = struct.Struct("=BBIIQ")
_FAILED = struct.Struct("=BB")
_ENDED = struct.Struct("=Bi")


class Garbled(Exception):
    """A message that is none of these."""


class Kind(IntEnum):
    HELLO = 1
    STEP = 2
    FAILED = 3
    ENDED = 4
    SHOWN = 5


class Reason(IntEnum):
    """Why a child, or the server in its place, gives up."""

    NO_MEMORY = 1
    NO_PIXELS = 2  # a frame was decoded but cannot be converted
    NO_PROCESS = 3  # the server cannot fork
    BROKEN = 4  # a mistake of ours


class Outcome(IntEnum):
    """What came of a Look."""

    DECODED = 1
    NO_PICTURE = 2
    TOO_LARGE = 3


class Job(NamedTuple):
    """One clip: what it may cost, the Picture that is made of its frames, and the size of the ring's slots.

    `fit` is the place of the Picture's among FITS. With `pictures` there is no clip, but memory in which one encoded
    picture after the other will lie.
    """

    pictures: bool
    arriving: bool
    fit: int
    size: int
    cpu_seconds: int
    memory_bytes: int
    slot_bytes: int

    def pack(self) -> bytes:
        return _JOB.pack(*self)

    @classmethod
    def unpack(cls, message: bytes) -> "Job":
        return cls(*_unpack(_JOB, message))


class Ask(NamedTuple):
    """Decode up to the first frame at or after `not_before` seconds; with `picture`, put that one into `slot`.

    `whole`: as it was decoded, not the fitted square. `again`: decode nothing, give the picture of the last frame.
    """

    not_before: float
    slot: int
    picture: bool
    whole: bool
    again: bool

    def pack(self) -> bytes:
        return _ASK.pack(*self)

    @classmethod
    def unpack(cls, message: bytes) -> "Ask":
        return cls(*_unpack(_ASK, message))


class Look(NamedTuple):
    """Decode the picture that has the first `num_bytes` of the memory, unless it has more than `max_pixels`."""

    num_bytes: int
    max_pixels: int

    def pack(self) -> bytes:
        return _LOOK.pack(*self)

    @classmethod
    def unpack(cls, message: bytes) -> "Look":
        return cls(*_unpack(_LOOK, message))


class Hello(NamedTuple):
    """The child is confined by `layers`, and this is the stream's header."""

    layers: int
    opened: bool
    width: float = 0.0
    height: float = 0.0
    four_letters: bytes = b""
    num_frames: float = 0.0
    frames_per_second: float = 0.0

    def pack(self) -> bytes:
        return _HELLO.pack(Kind.HELLO, *self)


class Step(NamedTuple):
    """The timestamps of the frames that were decoded. `ended`: there are no more. `filled`: the last one's picture,
    [height, width, 3], is in the slot that was asked for. `lead_seconds` is Decoder's."""

    seconds: tuple[float, ...]
    ended: bool = False
    filled: bool = False
    height: int = 0
    width: int = 0
    lead_seconds: float = 0.0

    def pack(self) -> bytes:
        head = _STEP.pack(Kind.STEP, self.ended, self.filled, len(self.seconds), *self[3:])
        return head + struct.pack(f"={len(self.seconds)}d", *self.seconds)


class Shown(NamedTuple):
    """DECODED: [height, width, 3] lies in the first slot. TOO_LARGE: it has `num_pixels`."""

    outcome: Outcome
    height: int = 0
    width: int = 0
    num_pixels: int = 0

    def pack(self) -> bytes:
        return _SHOWN.pack(Kind.SHOWN, *self)


class Failed(NamedTuple):
    reason: Reason

    def pack(self) -> bytes:
        return _FAILED.pack(Kind.FAILED, self.reason)


class Ended(NamedTuple):
    """The child is gone; `status` is what waitpid said."""

    status: int

    def pack(self) -> bytes:
        return _ENDED.pack(Kind.ENDED, self.status)


Told = Hello | Step | Shown | Failed | Ended


def read(message: bytes) -> Told:
    """What a child or the server says. Raises Garbled."""
    match message[0] if message else 0:
        case Kind.HELLO:
            return _finite(Hello(*_unpack(_HELLO, message)[1:]))
        case Kind.STEP:
            _, ended, filled, count, *rest = _unpack(_STEP, message[: _STEP.size])
            times = struct.Struct(f"={min(count, MOST_FRAMES)}d")
            return _finite(Step(_unpack(times, message[_STEP.size :]), ended, filled, *rest))
        case Kind.SHOWN if message[1:] and message[1] in list(Outcome):
            _, outcome, *rest = _unpack(_SHOWN, message)
            return Shown(Outcome(outcome), *rest)
        case Kind.FAILED if message[1:] and message[1] in list(Reason):
            return Failed(Reason(_unpack(_FAILED, message)[1]))
        case Kind.ENDED:
            return Ended(_unpack(_ENDED, message)[1])
    raise Garbled(f"{len(message)} bytes that begin with {message[:1]!r}")


def _finite(told: Hello | Step) -> Told:
    numbers = (*told.seconds, told.lead_seconds) if isinstance(told, Step) else told
    if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
        raise Garbled(f"a number that is none in {told}")
    return told


def _unpack(layout: struct.Struct, message: bytes) -> tuple[Any, ...]:
    if len(message) != layout.size:
        raise Garbled(f"{len(message)} bytes where {layout.size} are due")
    return layout.unpack(message)
