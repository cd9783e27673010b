"""Which frames are looked at: by time, not by index, the same whatever the chunks. Knows nothing of files or models.

    ticks     |         |         |         |         |        origin + k / rate
    frames    .      .      .      .      .      .      .
    sampled   ^             ^      ^             ^      ^      the first frame at or after each tick, each only once

Shape letters: T sampled frames, H height, W width, C channels (red, green, blue).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vidseq import schemas
from vidseq.config import Sampling
from vidseq.errors import NothingSampled
from vidseq.video import Frame, Verdict

# A frame counts as on time when it is this much early: Matroska rounds timestamps to a millisecond.
EARLY_SECONDS = 0.002


class FrameSource(Protocol):
    """Whatever can be asked for frames: a video's Reader, a folder's PictureReader."""

    def frames(self, want: Callable[[float], Verdict]) -> Iterator[Frame]: ...


@dataclass(frozen=True)
class Clock:
    """Where sampling stands between two frames, in plain numbers that a state can hold. None: no frame was seen yet."""

    origin_seconds: float
    next_tick: int
    last_seconds: float


@dataclass(frozen=True, eq=False)
class Clip:
    """Sampled frames and their times: pixels_THWC uint8, seconds_T float64, rising.

    `stride` says that only each stride-th sampled frame was kept: 1, unless `max_frames` thinned the whole video.
    `clock` is where sampling stood after the last frame.
    """

    pixels_THWC: npt.NDArray[np.uint8]
    seconds_T: npt.NDArray[np.float64]
    stride: int = 1
    clock: Clock | None = None

    def __post_init__(self) -> None:
        pixels_THWC, seconds_T = self.pixels_THWC, self.seconds_T
        assert pixels_THWC.dtype == np.uint8, f"pixels are uint8, not {pixels_THWC.dtype}"
        assert pixels_THWC.ndim == 4, f"pixels are [T, H, W, C], not {pixels_THWC.shape}"
        assert pixels_THWC.shape[3] == 3, f"pixels have 3 channels, not {pixels_THWC.shape[3]}"
        assert seconds_T.shape == pixels_THWC.shape[:1], f"{seconds_T.shape} times for {pixels_THWC.shape} pixels"
        assert bool(np.all(np.diff(seconds_T) > 0)), f"times do not rise: {seconds_T}"

    def __len__(self) -> int:
        return len(self.seconds_T)

    def __repr__(self) -> str:
        span = f", {self.seconds_T[0]:.3f} to {self.seconds_T[-1]:.3f} s" if len(self) else ""
        return f"Clip({'x'.join(map(str, self.pixels_THWC.shape))}{span})"


def advance(clock: Clock | None, seconds: float, sampling: Sampling) -> tuple[bool, Clock]:
    """Whether the frame at `seconds` is sampled, and the clock after it. Pure: the same frames give the same answers.

    Not sampled are frames outside [start_seconds, end_seconds) and frames whose timestamp does not rise. Both ends of
    the interval forgive early frames as ticks do, so that two adjacent intervals share no frame and lose none.
    """
    if clock is None:
        origin_seconds = sampling.start_seconds if sampling.start_seconds > 0 else seconds
        clock = Clock(origin_seconds, next_tick=0, last_seconds=-math.inf)
    if seconds <= clock.last_seconds:
        return False, clock
    tick = _last_tick(seconds - clock.origin_seconds, clock, sampling)
    sampled = tick >= clock.next_tick and not is_past(seconds, sampling)
    return sampled, Clock(clock.origin_seconds, tick + 1 if sampled else clock.next_tick, seconds)


def _last_tick(elapsed_seconds: float, clock: Clock, sampling: Sampling) -> int:
    """The number of the last tick that a frame is on time for; negative before the first one."""
    if sampling.frames_per_second != "native":
        return math.floor((elapsed_seconds + EARLY_SECONDS) * sampling.frames_per_second)
    return clock.next_tick if elapsed_seconds + EARLY_SECONDS >= 0 else -1


def is_past(seconds: float, sampling: Sampling) -> bool:
    """Whether the interval ends at or before `seconds`: no later frame can be sampled."""
    return sampling.end_seconds is not None and seconds + EARLY_SECONDS >= sampling.end_seconds


def sample(
    reader: FrameSource, sampling: Sampling, *, clock: Clock | None = None, chunk_frames: int = 16
) -> Iterator[Clip]:
    """The sampled frames of a whole video, in order, in clips of at most `chunk_frames`.

    With a `clock` of an earlier pass over the same video only frames after its last one are sampled.

    With `sampling.max_frames` it is offline: nothing comes before the video has ended, and at most that many frames
    are held. Raises NothingSampled, and whatever Reader.frames raises.
    """
    assert chunk_frames > 0, f"chunk_frames is {chunk_frames}"
    ticker = _Ticker(sampling, clock)
    if sampling.max_frames is None:
        yield from _as_they_come(reader, ticker, chunk_frames)
    else:
        yield from _thinned(reader, ticker, sampling.max_frames, chunk_frames)
    if ticker.num_sampled == 0 and clock is None:
        end = "its end" if sampling.end_seconds is None else f"{sampling.end_seconds:g} s"
        last = f"the last frame looked at is at {ticker.clock.last_seconds:.3f} s" if ticker.clock else "it has none"
        raise NothingSampled(f"the video has no frame from {sampling.start_seconds:g} s to {end}: {last}")


class _Ticker:
    """The clock of one pass, in the form in which a Reader asks: what about the frame at `seconds`?"""

    def __init__(self, sampling: Sampling, clock: Clock | None) -> None:
        self._sampling = sampling
        self.clock = clock
        self.num_sampled = 0

    @property
    def not_before(self) -> float:
        """No frame before this time is sampled, nor ends the pass."""
        if self.clock is None:
            return -math.inf
        due = self.clock.last_seconds
        if self._sampling.frames_per_second != "native":
            due = self.clock.origin_seconds + self.clock.next_tick / self._sampling.frames_per_second
        end = math.inf if self._sampling.end_seconds is None else self._sampling.end_seconds
        return min(due, end) - 2 * EARLY_SECONDS  # more than frames may be early, whatever is rounded here

    def __call__(self, seconds: float) -> Verdict:
        sampled, self.clock = advance(self.clock, seconds, self._sampling)
        self.num_sampled += sampled
        if is_past(seconds, self._sampling):
            return Verdict.STOP
        return Verdict.TAKE if sampled else Verdict.SKIP


def _as_they_come(reader: FrameSource, ticker: _Ticker, chunk_frames: int) -> Iterator[Clip]:
    held: list[Frame] = []
    for frame in reader.frames(ticker):
        held.append(frame)
        if len(held) == chunk_frames:
            yield _clip(held, clock=ticker.clock)
            held = []
    if held:
        yield _clip(held, clock=ticker.clock)


def _thinned(reader: FrameSource, ticker: _Ticker, max_frames: int, chunk_frames: int) -> Iterator[Clip]:
    """Each stride-th sampled frame, for the least power of two that leaves at most `max_frames`.

    max_frames 4: holds 0 1 2 3, then 4 comes: 0 2 4 and stride 2, 0 2 4 6, then 8 comes: 0 4 8 and stride 4, ...
    """
    held: list[Frame] = []
    stride = 1

    def want(seconds: float) -> Verdict:
        verdict = ticker(seconds)
        thinned_out = verdict is Verdict.TAKE and (ticker.num_sampled - 1) % stride
        return Verdict.SKIP if thinned_out else verdict

    for frame in reader.frames(want):
        held.append(frame)
        if len(held) > max_frames:
            del held[1::2]
            stride *= 2
    for first in range(0, len(held), chunk_frames):
        yield _clip(held[first : first + chunk_frames], stride=stride)


def _clip(frames: Sequence[Frame], *, stride: int = 1, clock: Clock | None = None) -> Clip:
    pixels_THWC = np.stack([frame.pixels_HWC for frame in frames])
    return Clip(pixels_THWC, np.array([frame.seconds for frame in frames]), stride, clock)


def summarize(
    *, num_frames: int, start_seconds: float, end_seconds: float, sampling: Sampling, stride: int = 1
) -> schemas.Sampled:
    """What was looked at: how many frames (at least one), the times of the first and the last, their clips' stride."""
    assert num_frames > 0, "a video of which nothing was sampled is an error"
    frames_per_second: float | None = None
    if sampling.frames_per_second != "native":
        frames_per_second = sampling.frames_per_second / stride
    elif stride > 1:  # no longer every frame: the mean rate
        frames_per_second = (num_frames - 1) / (end_seconds - start_seconds) if num_frames > 1 else 0.0
    return schemas.Sampled(
        num_frames=num_frames,
        frames_per_second=frames_per_second,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
    )
