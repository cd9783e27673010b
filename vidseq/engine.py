"""One model loop for many callers: whatever is ready rides in one batch. Knows nothing of files, HTTP or Ray.

    caller 1  chunk, state --+                +-- CNN over all frames at once --+   +--> scores, state
    caller 2  chunk, state --+--> one batch --+                                 +---+
    caller 3  chunk, state --+                +-- recurrence, stacked states ---+   +--> scores, state

Callers take turns: a chunk of many frames gives a few to a batch and goes to the back of the line with the rest.

    the line  a a a a a a a a, b b, c           turns of 2, batches of 4
    batches   a a b b | c a a | a a | a a

No caller's state stays here: it comes in with each chunk and leaves with the scores. Nor does a head: a chunk may bring
other models than the engine's, if they share its encoder, and then all that is in a batch still shares the CNN.

Shape letters: T frames of one chunk, H height, W width, C colour.
"""

import asyncio
import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from vidseq.errors import DeadlinePassed
from vidseq.model import VideoModel
from vidseq.runner import Compute, Done, Runner, Work, direct, run_batch

__all__ = ["Compute", "Done", "Engine", "Runner", "Work", "direct", "run_batch"]

# What a caller may have of a batch while others wait: what the encoder computes at once on a CPU, a chunk on a GPU.
TURN_FRAMES = {"cpu": 4, "cuda": 16}
PARTING_SECONDS = 5.0  # for the batch that is being computed when the process ends


class _Place:
    """A work's place in the line: how much of it has been done, what came of that, and who waits for it."""

    def __init__(self, work: Work) -> None:
        self.future: Future[Done] = Future()
        self._rest = work
        self._parts: list[Done] = []
        self._left = False

    @property
    def num_frames(self) -> int:
        """Still to be computed."""
        return len(self._rest.pixels_THWC)

    def whole(self, runner: Runner) -> bool:
        """Whether it has to come in one piece."""
        return any(head.offline for head in self._rest.wanted(runner))

    def may_begin(self) -> bool:
        """Whether it is still wanted, now that its turn has come. The rest of a work that has begun has no deadline."""
        deadline_seconds = self._rest.deadline_seconds
        late_seconds = 0.0 if deadline_seconds is None else time.perf_counter() - deadline_seconds
        if self.future.cancelled():
            self._leave()
        elif late_seconds > 0:
            self.fail(DeadlinePassed(f"its turn came {late_seconds:.3f} s after its deadline"))
        return not self._left

    def turn(self, num_frames: int) -> Work:
        """Its next frames."""
        return replace(self._rest, pixels_THWC=self._rest.pixels_THWC[:num_frames])

    def add(self, done: Done, num_frames: int) -> None:
        """They have been computed; with the last of them the caller gets the answer, else the rest waits again."""
        self._parts.append(done)
        self._rest = Work.after(done, self._rest.pixels_THWC[num_frames:], head=self._rest.head)
        if not self.num_frames and self._leave():
            self.future.set_result(Done.joined(self._parts) if len(self._parts) > 1 else done)

    def fail(self, error: Exception) -> None:
        if self._leave():
            self.future.set_exception(error)

    def _leave(self) -> bool:
        """Whether the caller is still to be answered. Once, and from then on nobody can cancel it."""
        first, self._left = not self._left, True
        return first and self.future.set_running_or_notify_cancel()


_running: dict[threading.Thread, "weakref.ref[Engine]"] = {}  # and, until the next one begins, some that have ended


@atexit.register
def _retire_all() -> None:
    """A thread that is at a tensor when Python takes its threads down ends the process: C++ cannot be unwound so."""
    for reference in list(_running.values()):
        if (engine := reference()) is not None:
            engine.retire()
    for thread in list(_running):
        thread.join(PARTING_SECONDS)


class Engine:
    """A thread that owns a model and batches what its callers submit; use it as a context manager.

    Args:
        model: on its device; used by this thread alone from now on.
        max_batch_frames: frames in one batch; a bidirectional model's video is not cut, and may be more.
        turn_frames: frames of one work in a batch; None for what suits the device (TURN_FRAMES).
        max_waiting: works that may wait before `submit` holds its callers back, to the model's pace.
        observe: is told of each batch, in the engine's thread: the number of works and of their frames in it.

    `runner` is the model as a work names it that wants it beside others.
    """

    def __init__(
        self,
        model: VideoModel,
        *,
        max_batch_frames: int = 64,
        turn_frames: int | None = None,
        max_waiting: int = 256,
        observe: Callable[[int, int], None] = lambda num_works, num_frames: None,
    ) -> None:
        self.runner = Runner.of(model)
        self._max_batch_frames = max_batch_frames
        turn_frames = turn_frames or TURN_FRAMES.get(self.runner.device.type, TURN_FRAMES["cuda"])
        self._turn_frames = min(turn_frames, max_batch_frames)
        self._max_waiting = max_waiting
        self._observe = observe
        self._line: deque[_Place] = deque()
        self._waited_since: float | None = None  # by time.monotonic: by somebody, without a batch that ended since
        self._num_batched = 0  # frames of the batch that is being computed
        self._closed = False
        self._changed = threading.Condition()  # guards the line and whether it is closed
        for ended in [thread for thread in _running if not thread.is_alive()]:
            _running.pop(ended, None)
        self._thread = threading.Thread(target=self._loop, name="vidseq-engine", daemon=True)
        self._thread.start()
        _running[self._thread] = weakref.ref(self)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; it ends when the engine is closed, or with an error that is not an Exception."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Works in the line, that which is being computed left out."""
        return len(self._line)

    @property
    def stalled_seconds(self) -> float:
        """For how long no batch has ended although somebody waits; 0 while nobody does.

        As if the batch were a full one: one with more frames, which only a bidirectional model's video makes, may take
        longer.
        """
        waited_since, num_batched = self._waited_since, self._num_batched
        if waited_since is None:
            return 0.0
        return (time.monotonic() - waited_since) * min(1.0, self._max_batch_frames / max(num_batched, 1))

    def submit(self, work: Work) -> "Future[Done]":
        """Put a work in the line; the future holds its scores and its new state. For threads: blocks while it is full.

        The future raises DeadlinePassed, or what the model raised for its batch; cancelling it takes the work out.
        """
        place = self._put(work)
        with self._changed:
            self._changed.wait_for(lambda: place.future.done() or len(self._line) <= self._max_waiting)
        return place.future

    async def advance(self, work: Work) -> Done:
        """The same for an event loop, which is never held up: a task that waits for its work is held back enough.

        Raises:
            DeadlinePassed: its turn came too late.
        """
        return await asyncio.wrap_future(self._put(work).future)

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        self.retire()
        self._thread.join()

    def retire(self) -> None:
        """The same without waiting for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, work: Work) -> _Place:
        """Checks it first: in a batch, one caller's mistake would be everybody's."""
        size, pixels_THWC = self.runner.model.sequence.config.picture.size, work.pixels_THWC
        fits = pixels_THWC.dtype == np.uint8 and pixels_THWC.shape[1:] == (size, size, 3) and len(pixels_THWC)
        assert fits, (
            f"pixels are {pixels_THWC.dtype} {pixels_THWC.shape}, this model's are uint8 (T, {size}, {size}, 3)"
        )
        for head, state in work.wanted(self.runner).items():
            assert head.model.encoder is self.runner.model.encoder, "a head of another encoder than this engine's"
            assert head.fits(state), f"a state of other tensors than this model's: {state}"
        place = _Place(work)
        with self._changed:
            assert not self._closed, "an engine that was closed, or has died, takes no more work"
            self._line.append(place)
            if self._waited_since is None:
                self._waited_since = time.monotonic()
            self._changed.notify_all()
        return place

    def _loop(self) -> None:
        batch: list[_Place] = []
        try:
            while batch := self._gather():
                self._serve(batch)
                with self._changed:
                    self._waited_since = time.monotonic() if self._line else None
        except BaseException as error:
            with self._changed:
                self._closed = True
                batch += self._line
                self._line.clear()
            for place in batch:
                place.fail(AssertionError(f"the engine's thread has died: {error!r}"))
            with self._changed:
                self._changed.notify_all()
            raise

    def _gather(self) -> list[_Place]:
        """Those whose turn it is; nobody once the engine is closed and all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._line or self._closed)
            batch: list[_Place] = []
            room = self._max_batch_frames
            while self._line and (self._turn(self._line[0]) <= room or not batch):
                batch.append(self._line.popleft())
                room -= self._turn(batch[-1])
            self._changed.notify_all()
            return batch

    def _turn(self, place: _Place) -> int:
        """How many of its frames ride in the next batch."""
        return place.num_frames if place.whole(self.runner) else min(place.num_frames, self._turn_frames)

    def _serve(self, batch: list[_Place]) -> None:
        turns = [(place, self._turn(place)) for place in batch if place.may_begin()]
        if not turns:
            return
        self._num_batched = sum(num_frames for _, num_frames in turns)
        try:
            self._observe(len(turns), self._num_batched)
            results = run_batch(self.runner, [place.turn(num_frames) for place, num_frames in turns])
        except Exception as error:
            for place, _ in turns:
                place.fail(error)
            return
        finally:
            self._num_batched, self._waited_since = 0, None
        for (place, num_frames), done in zip(turns, results, strict=True):
            place.add(done, num_frames)
        with self._changed:
            self._line.extend(place for place, _ in turns if place.num_frames)
