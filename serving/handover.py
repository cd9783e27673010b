"""A video is decoded in a thread while its labels are made in the loop. Knows neither HTTP nor models nor decoders.

    thread   decode  ->  frame  frame  frame ...     never more than MAX_AHEAD_FRAMES wait
    loop                    take: all that wait, as one clip  ->  push_clip  ->  Applied, Applied, ..., Final

No label waits for frames that have yet to come: what has come while the model was busy makes the next clip.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from serving.parts import Frames, PushObserver, Seen
from vidseq.messages import Applied, Final
from vidseq.schemas import VideoReport

if TYPE_CHECKING:  # with it comes OpenCV
    from vidseq.sampling import Clip

CHUNK_FRAMES = 16
MAX_AHEAD_FRAMES = 2 * CHUNK_FRAMES


class Decoding:
    """One video on its way from the thread that calls `run` to the loop in which this was made."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Seen | Exception] = deque()
        self._came = asyncio.Event()
        self._room = threading.Semaphore(MAX_AHEAD_FRAMES)
        self._stopped = False

    def run(self) -> None:
        """Decode until the end, or until `stop`; blocks. What is wrong with the video is raised by `take`."""
        try:
            with closing(self._frames):
                for seen in self._frames:
                    self._room.acquire()
                    if self._stopped:
                        return
                    self._loop.call_soon_threadsafe(self._arrive, seen)
        except Exception as error:
            if not self._stopped:
                self._loop.call_soon_threadsafe(self._arrive, error)

    def stop(self) -> None:
        """Nobody takes any more. A thread that waits for bytes of an Incoming is woken by its `abort`."""
        self._stopped = True
        self._room.release()

    async def take(self) -> Seen:
        """All frames that wait, up to CHUNK_FRAMES, as one clip; after the last the end, which has none.

        Errors: those of `decode`.
        """
        while not self._waiting:
            self._came.clear()
            await self._came.wait()
        head = self._waiting.popleft()
        if isinstance(head, Exception):
            raise head
        following: list[Seen] = []
        while head.clip is not None and len(following) < CHUNK_FRAMES - 1 and (one := self._following()) is not None:
            following.append(one)
        self._room.release(1 + len(following))
        return head.joined(following)

    def _following(self) -> Seen | None:
        """The next frame, if it is already here."""
        following = self._waiting[0] if self._waiting else None
        if following is None or isinstance(following, Exception) or following.clip is None:
            return None
        self._waiting.popleft()
        return following

    def _arrive(self, seen: Seen | Exception) -> None:
        self._waiting.append(seen)
        self._came.set()


class Labels(Protocol):
    """What turns clips into labels: a Stream of serving.parts, or less."""

    async def push_clip(self, clip: "Clip", *, video: VideoReport) -> Applied: ...
    async def end(self, *, video: VideoReport, seen_until: float | None) -> Final: ...


async def labelled(decoding: Decoding, labels: Labels, *, observe: PushObserver) -> AsyncIterator[Applied | Final]:
    """What is to be said of the video, clip by clip, and in the end.

    Errors: those of the decoder and of `labels`.
    """
    while (seen := await decoding.take()).clip is not None:
        applied = await labels.push_clip(seen.clip, video=seen.video)
        observe(applied, seconds=time.perf_counter() - seen.born_seconds)
        yield applied
    yield await labels.end(video=seen.video, seen_until=seen.seen_until)
