"""What the doors ask of the parts behind them, which label videos and keep streams. Knows none of these parts."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from vidseq.config import Sampling
from vidseq.container import Source
from vidseq.incoming import Incoming
from vidseq.messages import Applied, Final, Notice, Open, Ready, ServiceMessage, Standing, StreamOptions
from vidseq.schemas import ModelInfo, Prediction, VideoReport

if TYPE_CHECKING:  # with them come OpenCV and numpy, which the doors do without
    from vidseq.early import EarlyExit
    from vidseq.sampling import Clip, Clock


class Classify(Protocol):
    """What labels a video. It blocks and is called in threads, up to `max_concurrent` at once.

    `video` is a sealed memfd at its start; it is closed when the call ends. `model` is None or one of the names
    that `models` told. `stop` is set when nobody waits for the answer any more: look at it now and then, for a place
    is held until the call ends.

    Errors: the VideoErrors and OptionError of vidseq.errors are the caller's, all else is a 500.
    """

    def __call__(
        self,
        video: BinaryIO,
        *,
        start_seconds: float,
        end_seconds: float | None,
        top_k: int,
        model: str | None,
        early_exit: EarlyExit | None,
        stop: threading.Event,
    ) -> Prediction: ...


class ClassifyEach(Protocol):
    """The same with several models, each of which is named: what each says, in that order. It does not exit early."""

    def __call__(
        self,
        video: BinaryIO,
        *,
        start_seconds: float,
        end_seconds: float | None,
        top_k: int,
        models: Sequence[str],
        stop: threading.Event,
    ) -> Sequence[Prediction]: ...


class Seen(Protocol):
    """A clip, and the report so far; after the last one no clip, and when the last frame ended.

    `born_seconds` is when it was decoded, by time.perf_counter; `joined` is one clip of this and what follows it.
    """

    @property
    def clip(self) -> Clip | None: ...
    @property
    def video(self) -> VideoReport: ...
    @property
    def seen_until(self) -> float | None: ...
    @property
    def born_seconds(self) -> float: ...

    def joined(self, following: Sequence[Seen]) -> Seen: ...


Frames = Generator[Seen, None, None]


class Decode(Protocol):
    """The sampled frames of a video, after those that `clock` has seen. It blocks and is iterated in a thread.

    Errors: the VideoErrors of vidseq.errors.
    """

    def __call__(self, video: Source | Incoming, *, sampling: Sampling, clock: Clock | None) -> Frames: ...


class Stream(Protocol):
    """One stream, as one connection has it: see serving.sessions. `missed` is what its client has not heard yet."""

    ready: Ready
    missed: tuple[ServiceMessage, ...]
    options: StreamOptions

    @property
    def sampling(self) -> Sampling: ...
    @property
    def clock(self) -> Clock | None: ...
    @property
    def seen_until(self) -> float | None: ...

    async def push(self, push: bytes, *, born_seconds: float) -> Applied: ...
    async def push_clip(self, clip: Clip, *, video: VideoReport) -> Applied: ...
    async def skip(self, dropped: Sequence[tuple[bytes, Notice]]) -> tuple[Applied, ...]: ...
    async def end(self, *, video: VideoReport | None, seen_until: float | None) -> Final: ...


class Live(Protocol):
    """Streams that nobody keeps: a session goes in and comes out (Any: its type is the part's own)."""

    def start(self) -> Any: ...
    def sampling(self, options: StreamOptions) -> Sampling: ...

    async def push_clip(
        self, session: Any, clip: Clip, *, video: VideoReport, options: StreamOptions
    ) -> tuple[Applied, Any]: ...

    def end(
        self, session: Any, *, options: StreamOptions, video: VideoReport | None, seen_until: float | None
    ) -> Final: ...


class PushLimits(Protocol):
    @property
    def max_push_bytes(self) -> int: ...


class Sessions(Protocol):
    """Streams of one model that go on whatever happens to a connection: see serving.sessions.

    Errors: the SessionErrors and OptionErrors of vidseq.errors.
    """

    @property
    def info(self) -> ModelInfo: ...
    @property
    def live(self) -> Live: ...
    @property
    def settings(self) -> PushLimits: ...

    async def open(self, asked: Open, *, owner: str) -> Stream: ...
    async def put(self, session_id: str, *, sequence: int, push: bytes, owner: str) -> Applied: ...
    async def standing(self, session_id: str, *, owner: str) -> Standing: ...
    async def end(self, session_id: str, *, owner: str) -> Final: ...
    async def forget(self, session_id: str, *, owner: str) -> None: ...
    async def forget_all(self, *, owner: str) -> int: ...


class PushObserver(Protocol):
    """Told of every push that was answered, `seconds` after it had come: the seam for counters and histograms."""

    def __call__(self, applied: Applied, *, seconds: float) -> None: ...


def unobserved(applied: Applied, *, seconds: float) -> None:
    """The PushObserver of whom nothing is asked."""
