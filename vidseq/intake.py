"""What comes in: which frames of a push are looked at, and what time, size and rate have done since the last one.

Knows nothing of models. A pace goes in with the frames and comes out after them, so that a stream may be cut anywhere:

    Pace, frames  ->  advance (is it sampled?)  ->  decode, fit  ->  pieces  ->  Intake, with the next Pace

A piece is a clip between whose frames nothing happened; before it the stream's memory is kept, faded or lost.

Shape letters: T frames, H height, W width, C channels (red, green, blue).
"""

import threading
from collections.abc import Iterable
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace

import numpy as np

from vidseq.config import Picture, Sampling, StreamRules
from vidseq.decoder import Pixels, fit
from vidseq.errors import StreamRefused, VideoError
from vidseq.messages import Encoded, Notice
from vidseq.pictures import DecodePicture, raw_picture
from vidseq.sampling import Clip, Clock, advance

RATE_FRAMES = 16  # a rate is a mean over so many sampled frames: single intervals jitter
RATE_CHANGE = 1.5


@dataclass(frozen=True)
class Pace:
    """Time, size and rate of one stream so far, in plain numbers. None: not known yet.

    `interval_seconds` is the mean between sampled frames over the first full window of the present rate; the window
    that is being counted began at `window_seconds` and has `window_frames` so far. `keep` is how much of the stream's
    memory lives on before the next frame that is looked at: less than 1 where a rule was told and no such frame came.
    """

    clock: Clock | None = None
    first_seconds: float | None = None
    num_rising: int = 0
    sampled_seconds: float | None = None
    width: int = 0
    height: int = 0
    interval_seconds: float | None = None
    window_seconds: float | None = None
    window_frames: int = 0
    keep: float = 1.0

    @property
    def last_seconds(self) -> float | None:
        return None if self.clock is None else self.clock.last_seconds

    @property
    def seen_until(self) -> float | None:
        """When the last frame that came ends, if it is shown for as long as the others were on average."""
        if self.num_rising < 2 or self.clock is None or self.first_seconds is None:
            return None
        last_seconds = self.clock.last_seconds
        return last_seconds + (last_seconds - self.first_seconds) / (self.num_rising - 1)


@dataclass(frozen=True, eq=False)
class Piece:
    """A clip, and how much of the stream's memory lives on before it: 1 all of it, 0 nothing."""

    clip: Clip
    keep: float


@dataclass(frozen=True, eq=False)
class Intake:
    """What one push came to."""

    pieces: tuple[Piece, ...]
    notices: tuple[Notice, ...]
    pace: Pace


def take_frames(
    pace: Pace,
    frames: Iterable[Encoded],
    *,
    sampling: Sampling,
    rules: StreamRules,
    picture: Picture,
    decode: DecodePicture,
    stop: threading.Event | None = None,
) -> Intake:
    """Decodes the frames that are sampled, and no others. A picture that is none is left out and told.

    Args:
        decode: what makes pixels of the bytes of an encoded picture.
        stop: set when nobody waits for it any more.

    Raises:
        StreamRefused: a rule says so.
        CancelledError: `stop` was set.
    """
    pieces = _Pieces(pace, rules)
    for frame in frames:
        if stop is not None and stop.is_set():
            raise CancelledError
        pieces.arrive(frame.seconds)
        sampled, clock = advance(pieces.pace.clock, frame.seconds, sampling)
        if sampled:
            try:
                pixels_HWC = _decode(frame, decode)
            except VideoError as error:
                pieces.count("undecodable", frame.seconds, f"a picture was left out: {error}")
                continue
            pieces.add(fit(pixels_HWC, picture), frame.seconds, size=(pixels_HWC.shape[1], pixels_HWC.shape[0]))
        pieces.went_on(clock)
    return pieces.intake()


def take_clip(pace: Pace, clip: Clip, *, size: tuple[int, int], rules: StreamRules) -> Intake:
    """The same for frames of a video of this (width, height) that `sample` has chosen.

    Raises:
        StreamRefused: a rule says so.
    """
    pieces = _Pieces(pace, rules)
    for pixels_HWC, seconds in zip(clip.pixels_THWC, clip.seconds_T.tolist(), strict=True):
        pieces.add(pixels_HWC, seconds, size=size)
    pieces.pace = replace(pieces.pace, clock=clip.clock)
    return pieces.intake()


class _Pieces:
    """The pieces of one push, as they grow."""

    def __init__(self, pace: Pace, rules: StreamRules) -> None:
        self.pace = pace
        self._rules = rules
        self._keep = pace.keep
        self._held: list[tuple[float, list[Pixels], list[float]]] = []
        self._notices: list[Notice] = []

    def arrive(self, seconds: float) -> None:
        """A frame has come. One whose time does not rise is never sampled (see `advance`), unless a rule resets."""
        last_seconds = self.pace.last_seconds
        if last_seconds is None or seconds > last_seconds:
            return
        told = f"a frame at {seconds:.3f} s came after one at {last_seconds:.3f} s"
        if self._rules.backward == "drop":
            self.count("backward", seconds, told)
            return
        self._happened("backward", self._rules.backward, seconds, told)
        self.pace = Pace(width=self.pace.width, height=self.pace.height)

    def went_on(self, clock: Clock) -> None:
        """The frame was dealt with: the clock after it."""
        rising = self.pace.clock is None or clock.last_seconds > self.pace.clock.last_seconds
        first_seconds = clock.last_seconds if self.pace.first_seconds is None else self.pace.first_seconds
        self.pace = replace(
            self.pace, clock=clock, first_seconds=first_seconds, num_rising=self.pace.num_rising + rising
        )

    def add(self, pixels_HWC: Pixels, seconds: float, *, size: tuple[int, int]) -> None:
        """A frame that is looked at, of a picture of this (width, height)."""
        self._judge_size(seconds, size)
        self._judge_gap(seconds)
        self._judge_rate(seconds)
        self.pace = replace(self.pace, sampled_seconds=seconds)
        if self._keep < 1 or not self._held:
            self._held.append((self._keep, [], []))
            self._keep = 1.0
        _, pixels, times = self._held[-1]
        pixels.append(pixels_HWC)
        times.append(seconds)

    def count(self, kind: str, seconds: float, detail: str) -> None:
        """One more frame that is left out; one notice tells of all of a push."""
        for index, notice in enumerate(self._notices):
            if notice.kind == kind:
                self._notices[index] = notice.model_copy(update={"num_frames": notice.num_frames + 1})
                return
        self._tell(kind, "dropped", seconds, detail)

    def intake(self) -> Intake:
        pieces = (Piece(Clip(np.stack(pixels), np.array(times)), keep) for keep, pixels, times in self._held)
        return Intake(tuple(pieces), tuple(self._notices), replace(self.pace, keep=self._keep))

    def _judge_size(self, seconds: float, size: tuple[int, int]) -> None:
        before = (self.pace.width, self.pace.height)
        if before not in ((0, 0), size):
            detail = f"the pictures were {before[0]} x {before[1]} and are {size[0]} x {size[1]} now"
            self._happened("size", self._rules.size, seconds, detail)
        self.pace = replace(self.pace, width=size[0], height=size[1])

    def _judge_gap(self, seconds: float) -> None:
        before = self.pace.sampled_seconds
        if before is None or seconds - before <= self._rules.max_gap_seconds:
            return
        gap_seconds = seconds - before
        detail = f"nothing was seen for {gap_seconds:.3f} s; {self._rules.max_gap_seconds:g} s are expected at most"
        self._happened("gap", self._rules.gap, seconds, detail)
        if self._rules.gap == "decay":
            # after any gap more than nothing is kept: nothing would be a reset
            self._keep *= 0.5 ** min(gap_seconds / self._rules.half_life_seconds, 1000.0)
        self.pace = replace(self.pace, window_seconds=None)

    def _judge_rate(self, seconds: float) -> None:
        pace = self.pace
        if pace.window_seconds is None:
            self.pace = replace(pace, window_seconds=seconds, window_frames=0)
        elif pace.window_frames + 1 < RATE_FRAMES:
            self.pace = replace(pace, window_frames=pace.window_frames + 1)
        else:
            interval_seconds = (seconds - pace.window_seconds) / RATE_FRAMES
            known_seconds: float | None = pace.interval_seconds or interval_seconds
            assert known_seconds is not None
            if max(interval_seconds / known_seconds, known_seconds / interval_seconds) > RATE_CHANGE:
                detail = f"a frame each {known_seconds:.3f} s has become one each {interval_seconds:.3f} s"
                self._happened("rate", self._rules.rate, seconds, detail)
                known_seconds = None  # the change lies somewhere in this window: the next one has the new rate
            self.pace = replace(pace, interval_seconds=known_seconds, window_seconds=seconds, window_frames=0)

    def _happened(self, kind: str, effect: str, seconds: float, detail: str) -> None:
        if effect == "refuse":
            raise StreamRefused(f"{detail}: the rules of this stream refuse that ({kind})")
        if effect == "reset":
            self._keep = 0.0
        self._tell(kind, effect, seconds, detail)

    def _tell(self, kind: str, effect: str, seconds: float, detail: str) -> None:
        told = {"kind": kind, "effect": effect, "seconds": seconds, "num_frames": 1, "detail": detail}
        self._notices.append(Notice.model_validate(told))


def _decode(frame: Encoded, decode: DecodePicture) -> Pixels:
    """[H, W, C] in blue, green, red, as `fit` takes it."""
    header = frame.header
    if header.format != "rgb":
        return decode(bytes(frame.data))
    assert header.width is not None and header.height is not None, "the header has checked itself"
    return raw_picture(bytes(frame.data), width=header.width, height=header.height)
