"""Bytes in, timed frames out: the one place that decodes. Knows nothing of sampling rates, models or tensors.

    source -> sniffed, opened, gated -> grab every frame -> want(seconds)? -> retrieve, resize once -> Frame

Shape letters: H height, W width, C channels (red, green, blue).
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from vidseq import schemas
from vidseq.config import Limits, Picture
from vidseq.container import Source, open_source
from vidseq.decoder import Decoder, Header, Pixels, codec_of
from vidseq.errors import NoVideoStream, UndecodableVideo, VideoError
from vidseq.incoming import Incoming, Opened, look_at
from vidseq.mp4 import Index
from vidseq.sandbox.box import Sandbox
from vidseq.sandbox.boxed import BoxedDecoder
from vidseq.tally import Declared, ShareSeen, Tally

LONGEST_PLAUSIBLE_SECONDS = 31 * 24 * 3600.0  # longer than this is nonsense in a header


class Verdict(Enum):
    """What to do with the frame that has just been decoded."""

    TAKE = "take"
    SKIP = "skip"
    STOP = "stop"


@runtime_checkable
class Foreseeing(Protocol):
    """A `want` that knows more: of a frame before `not_before` seconds it says SKIP, and need not be asked at once."""

    def __call__(self, seconds: float) -> Verdict: ...

    @property
    def not_before(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of the model's size, pixels_HWC [size, size, 3] uint8, and its own timestamp in the video."""

    pixels_HWC: Pixels
    seconds: float

    def __repr__(self) -> str:
        return f"Frame({'x'.join(map(str, self.pixels_HWC.shape))} at {self.seconds:.3f} s)"


class Reader:
    """A video, open for one pass.

        with Reader(source, picture=picture) as reader:
            for frame in reader.frames(want): ...
            reader.report()

    The source is a path, bytes, a binary file, or an Incoming whose bytes are still arriving: frames and timestamps
    are the same. Memory does not grow with the length of the video, and nothing is left behind: no file, no
    descriptor, no decoder. With a `sandbox` it is decoded in a confined process, else in this one. `check` is called
    before each frame is looked at, in a sandbox four times a second while none is due: what it raises ends the pass.

    Entering raises SourceNotFound, EmptyVideo, TooManyBytes, UnsupportedContainer, NoVideoStream, UndecodableVideo,
    UnsupportedCodec, TooManyPixels, all before the first frame is decoded. With an Incoming it blocks until so much
    has arrived that the decoder can begin. A sandbox adds, here and later, DecoderCrashed, OutOfMemory, TooSlow, and
    SandboxError, which is not about the video.
    """

    def __init__(
        self,
        source: Source | Incoming,
        *,
        picture: Picture,
        limits: Limits = Limits(),
        sandbox: Sandbox | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._source = source
        self._picture = picture
        self._limits = limits
        self._sandbox = sandbox
        self._check = check
        self._fd = -1
        self._decoder: Decoder | BoxedDecoder | None = None
        self._complaints: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        try:
            opened = self._open()
            if opened.encrypted:  # a decoder may make pictures of the noise
                raise UndecodableVideo("the video is encrypted")
            self._decoder = self._new_decoder(arriving=opened.arriving)
            self._check_incoming()
            if not self._decoder.opened:
                raise _why_not_opened(opened.index)
            if not opened.whole_head:  # the decoder may have read more of it than we, and that it is encrypted
                raise UndecodableVideo(
                    "the header is damaged, or not there where it should be: what it says is not known"
                )
            self._container = opened.container
            self._declared = _declared(self._decoder.header(), opened)
            self._tally = Tally(self._declared, self._limits)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Opened:
        if isinstance(self._source, Incoming):
            opened = self._source.open()
            self._fd = opened.fd
            return opened
        self._fd = open_source(self._source, max_bytes=self._limits.max_bytes)
        return look_at(self._fd)

    def _new_decoder(self, *, arriving: bool) -> Decoder | BoxedDecoder:
        if self._sandbox is None:
            return Decoder(self._fd, arriving=arriving)
        return self._sandbox.decoder(self._fd, arriving=arriving, picture=self._picture, limits=self._limits)

    def _check_incoming(self) -> None:
        if isinstance(self._source, Incoming):
            self._source.check()

    def close(self) -> None:
        if self._decoder is not None:
            self._complaints = self._decoder.warnings
            self._decoder.close()
            self._decoder = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def frames(self, want: Callable[[float], Verdict]) -> Iterator[Frame]:
        """Decodes every frame, asks `want(seconds)` about each, and converts and resizes only those to be taken.

        Raises TooManyFrames, TooManySeconds, TooManyDecodedBytes, and UndecodableVideo if there is no frame at all;
        of an Incoming also TooManyBytes, and UndecodableVideo once it was aborted.
        """
        for pixels_HWC, seconds in self._decoded(want, self._picture):
            yield Frame(pixels_HWC, seconds)

    def pictures(self, want: Callable[[float], Verdict]) -> Iterator[tuple[Pixels, float]]:
        """As `frames`, but whole: upright, [H, W, C] with C blue, green, red; and the timestamp of each."""
        return self._decoded(want, None)

    def _decoded(self, want: Callable[[float], Verdict], picture: Picture | None) -> Iterator[tuple[Pixels, float]]:
        """The frames that are wanted, fitted to `picture`; with None, whole."""
        assert self._decoder is not None, "a Reader is used within its with block"
        assert self._tally.num_frames == 0, "a Reader reads once"
        foreseeing = want if isinstance(want, Foreseeing) else None
        while run := self._decoder.grab(picture, _not_before(foreseeing)):
            if self._check is not None:
                self._check()
            self._check_incoming()
            if self._tally.num_frames == 0:
                self._tally.lead_seconds = self._decoder.lead_seconds or 0.0
            for seconds in run:
                self._tally.count(seconds)
                verdict = want(seconds)
                assert verdict is Verdict.SKIP or seconds == run[-1], f"{seconds} s was to be skipped, and is wanted"
            if verdict is Verdict.STOP:
                self._tally.stopped = True
                return
            if verdict is Verdict.TAKE:
                yield self._decoder.picture(picture, _not_before(foreseeing)), seconds
        self._check_incoming()
        self._tally.ended = True
        if self._tally.num_frames == 0:
            raise UndecodableVideo(
                f"no frame of the {self._declared.codec} video could be decoded: it is damaged, cut short or encrypted"
            )

    def stop(self) -> None:
        """What was asked for has been seen: nothing is missing, however far ahead was decoded by then."""
        self._tally.stopped = True

    @property
    def seen_until(self) -> float | None:
        """When the last decoded frame ends, if it is shown for as long as the others were on average."""
        return self._tally.seen_until

    def refuse_truncated(self, *, start_seconds: float, end_seconds: float | None) -> None:
        """To be asked once frames() has ended and before anything is said of the whole of [start_seconds, end_seconds).

        What a header declares of a live stream (an Incoming) is not held against it.

        Raises:
            TruncatedVideo: less than `min_share_seen` (see Limits) of the time declared there could be decoded.
        """
        if not isinstance(self._source, Incoming):
            share = self.share_seen(start_seconds=start_seconds, end_seconds=end_seconds)
            if share is not None:
                share.refuse_below(self._limits.min_share_seen)

    def share_seen(self, *, start_seconds: float = 0.0, end_seconds: float | None = None) -> ShareSeen | None:
        """How much of [start_seconds, end_seconds) frames() has seen; None for all of it, as far as is known."""
        return self._tally.share_seen(start_seconds=start_seconds, end_seconds=end_seconds)

    def report(self) -> schemas.VideoReport:
        """What the file declares and what was found; before frames() has ended, what was found so far."""
        return schemas.VideoReport(
            width=self._declared.width,
            height=self._declared.height,
            codec=self._declared.codec,
            container=self._container,
            duration_seconds=self._declared.duration_seconds,
            frames_declared=self._declared.num_frames,
            frames_decoded=self._tally.num_frames,
            complete=self._tally.complete,
            warnings=self._tally.warnings + (self._complaints if self._decoder is None else self._decoder.warnings),
        )


def _not_before(want: Foreseeing | None) -> float | None:
    return None if want is None else want.not_before


def _declared(header: Header, opened: Opened) -> Declared:
    """Of header fields, which may be anything, those that make sense. Raises UnsupportedCodec."""
    codec = codec_of(header.four_letters)
    counted_seconds = _plausible(header.num_frames / header.frames_per_second if header.frames_per_second else 0.0)
    # OpenCV guesses the rate where frames come irregularly, so an MP4's own duration goes before count / rate.
    shown_seconds = _plausible(opened.index.duration_seconds) if opened.index is not None else None
    if opened.arriving and opened.index is not None and shown_seconds is None:
        counted_seconds = None  # the index of a fragmented MP4 is empty: what was counted is the first fragments
    return Declared(
        width=int(header.width),
        height=int(header.height),
        codec=codec,
        duration_seconds=shown_seconds or counted_seconds,
        num_frames=int(header.num_frames) if counted_seconds else None,
    )


def _plausible(seconds: float) -> float | None:
    return seconds if 0 < seconds <= LONGEST_PLAUSIBLE_SECONDS else None


def _why_not_opened(index: Index | None) -> VideoError:
    if index is None:
        return NoVideoStream("no video was found in the file: it holds only sound, is cut short or is damaged")
    if not index.found:
        return UndecodableVideo("the file has no index (moov): it is cut short, or damaged before it")
    if b"vide" not in index.handlers:
        return NoVideoStream("the file holds no video" + (", only sound" if b"soun" in index.handlers else ""))
    return UndecodableVideo("the video track cannot be opened: its codec is unknown, or the index is damaged")
