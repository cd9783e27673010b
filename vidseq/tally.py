"""What one pass over a video has seen: its counts, its limits, and whether it was the whole. Knows nothing of OpenCV.

Declared values are header fields, and honest files are wrong in them too: a fragmented MP4 declares 32 frames and has
30. So counts are reported, limits are held against what was really decoded, and `complete` is a matter of time.
"""

import math
from dataclasses import dataclass

from vidseq.config import Limits
from vidseq.errors import TooManyDecodedBytes, TooManyFrames, TooManyPixels, TooManySeconds, TruncatedVideo

_TOLERATED_SHARE = 0.05
# Some containers declare the longer of picture and sound; sound may end a few of its own frames after the picture.
_TOLERATED_SECONDS = 0.1


@dataclass(frozen=True)
class Declared:
    """What a file says of itself. It sizes nothing and bounds nothing. None stands for nonsense or nothing."""

    width: int
    height: int
    codec: str
    duration_seconds: float | None
    num_frames: int | None


@dataclass(frozen=True)
class ShareSeen:
    """So much of the time that a file declares could be decoded."""

    seen_seconds: float
    declared_seconds: float

    def refuse_below(self, min_share: float) -> None:
        """
        Raises:
            TruncatedVideo: that is too little for a label.
        """
        if self.seen_seconds < min_share * self.declared_seconds:
            raise TruncatedVideo(
                seen_seconds=self.seen_seconds, declared_seconds=self.declared_seconds, min_share=min_share
            )


class Tally:
    """Counts the frames of one pass and holds them to the limits."""

    def __init__(self, declared: Declared, limits: Limits) -> None:
        """Raises TooManyPixels."""
        self._declared = declared
        self._limits = limits
        self._pixels_a_frame = declared.width * declared.height
        if self._pixels_a_frame > limits.max_pixels:
            raise TooManyPixels(self._pixels_a_frame, limits.max_pixels)
        self.num_frames = 0
        self.num_rising = 0
        self.ended = False  # the decoder has no more
        self.stopped = False  # the caller wants no more
        self.lead_seconds = 0.0  # from the zero of the file's clock to the first frame
        self._first_seconds = 0.0
        self._last_seconds = -math.inf

    def count(self, seconds: float) -> None:
        """One more decoded frame. Raises TooManyFrames, TooManySeconds, TooManyDecodedBytes."""
        if self.num_frames == 0:
            self._first_seconds = seconds
        self.num_frames += 1
        if seconds > self._last_seconds:
            self._last_seconds = seconds
            self.num_rising += 1
        elapsed_seconds = seconds - self._first_seconds
        decoded_bytes = self.num_frames * self._pixels_a_frame * 3
        if self.num_frames > self._limits.max_frames:
            raise TooManyFrames(self.num_frames, self._limits.max_frames)
        if elapsed_seconds > self._limits.max_seconds:
            raise TooManySeconds(elapsed_seconds, self._limits.max_seconds)
        if decoded_bytes > self._limits.max_decoded_bytes:
            raise TooManyDecodedBytes(decoded_bytes, self._limits.max_decoded_bytes)

    @property
    def seen_until(self) -> float | None:
        """When the last frame ends, shown for as long as the others were on average; None for fewer than two."""
        if self.num_rising < 2:
            return None
        return self._last_seconds + (self._last_seconds - self._first_seconds) / (self.num_rising - 1)

    @property
    def seen_seconds(self) -> float:
        """The same, with what is declared of a frame's length in place of what nobody has seen."""
        if self.seen_until is not None:
            return self.seen_until
        frame_seconds = 0.0
        if self._declared.duration_seconds and self._declared.num_frames:
            frame_seconds = self._declared.duration_seconds / self._declared.num_frames
        return max(0.0, self._last_seconds) + frame_seconds

    @property
    def complete(self) -> bool:
        """Whether as much was decoded as is declared (or asked for); False before the pass has ended."""
        if self.stopped or not self.ended:
            return self.stopped
        duration_seconds, num_frames = self._seconds_to_see, self._declared.num_frames
        if duration_seconds is None or num_frames is None:
            return True
        tolerated_seconds = max(_TOLERATED_SHARE * duration_seconds, _TOLERATED_SECONDS)
        # A last frame that is shown for minutes (slides, a screen) leaves time missing, but no frame.
        return self.num_frames >= num_frames or self.seen_seconds >= duration_seconds - tolerated_seconds

    @property
    def _seconds_to_see(self) -> float | None:
        """What is declared of the time since the first frame; None where nothing is.

        Matroska and MP4 count from the zero of their clock: a part of a recording may begin hours after it.
        """
        duration_seconds = self._declared.duration_seconds
        if duration_seconds is None or self.lead_seconds >= duration_seconds:
            return duration_seconds
        return duration_seconds - self.lead_seconds

    def share_seen(self, *, start_seconds: float = 0.0, end_seconds: float | None = None) -> "ShareSeen | None":
        """After a pass over [start_seconds, end_seconds): how much was seen. None: all of it, as far as is known."""
        assert self.ended or self.stopped, "how much there is to be seen is known at the end of the pass"
        to_see = self._seconds_to_see
        if self.complete or to_see is None:
            return None
        last_seconds = to_see if end_seconds is None else min(to_see, end_seconds)
        seen_seconds = max(0.0, min(self.seen_seconds, last_seconds) - start_seconds)
        return ShareSeen(seen_seconds=seen_seconds, declared_seconds=last_seconds - start_seconds)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for a person."""
        found = []
        if self.ended and not self.complete:
            seen, declared = f"{self.seen_seconds:.2f} s", f"{self._seconds_to_see:.2f} s"
            found.append(
                f"{seen} of the declared {declared} could be decoded: the file is damaged, cut short or edited"
            )
        if num_without := self.num_frames - self.num_rising:
            found.append(f"{num_without} of {self.num_frames} frames have no time of their own and are not sampled")
        return tuple(found)
