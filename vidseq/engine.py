"""One model loop for many callers: whatever is ready rides in one batch. Knows nothing of files, HTTP or Ray.

    caller 1  chunk, state --+                +-- CNN over all frames at once --+   +--> scores, state
    caller 2  chunk, state --+--> one batch --+                                 +---+
    caller 3  chunk, state --+                +-- recurrence, stacked states ---+   +--> scores, state

No caller's state stays here: it comes in with each chunk and leaves with the scores.

Shape letters: T frames of one chunk, N frames of all chunks, B chunks, D feature size.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vidseq.model import Scores, VideoModel
from vidseq.recurrent import Packed
from vidseq.state import State, stack


@dataclass(frozen=True, eq=False)
class Work:
    """A chunk of one video and the state before it; None at the start of the video."""

    pixels_THWC: NDArray[np.uint8]
    state: State | None
    born_seconds: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, eq=False)
class Done:
    """Scores of the chunk's T frames and the state after it (B = 1, on the CPU), and where the milliseconds went.

    Encoding and recurrence are shared by a batch: each chunk is told its share by its number of frames.
    """

    scores: Scores
    state: State
    queued_ms: float
    encode_ms: float
    recur_ms: float


Compute = Callable[[Work], "Future[Done]"]


@dataclass(frozen=True, eq=False)
class Runner:
    """A model in use: where its weights are now, and those of its recurrence once more, packed for single frames.

    A snapshot: it follows neither later training nor a move to another device. `packed` is None where there is no step.
    """

    model: VideoModel
    packed: Packed | None
    device: torch.device

    @classmethod
    def of(cls, model: VideoModel) -> "Runner":
        recurrent = model.sequence.recurrent
        packed = None if recurrent.config.bidirectional else recurrent.pack()
        return cls(model, packed, recurrent.norm.weight.device)

    def recur(self, feature_BTD: Tensor, state: State, lengths: Sequence[int]) -> tuple[Scores, State]:
        """Scores and the state after each row. Live streams, one frame each, spare torch's repacking of weights."""
        if self.packed is not None and all(length == 1 for length in lengths):
            return self.model.sequence.step(feature_BTD[:, 0], state, packed=self.packed)
        scores, state = self.model.sequence(feature_BTD, state, torch.tensor(lengths))
        return scores, state

    def now_seconds(self) -> float:
        """The time once the device has done what it was asked: CUDA answers before it has computed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def direct(model: VideoModel) -> Compute:
    """Compute in the caller's own thread, one chunk at a time."""
    runner = Runner.of(model)

    def compute(work: Work) -> "Future[Done]":
        future: Future[Done] = Future()
        future.set_result(run_batch(runner, [work])[0])
        return future

    return compute


@torch.inference_mode()
def run_batch(runner: Runner, works: Sequence[Work]) -> list[Done]:
    """Advance B chunks together: one pass of the CNN over all their frames, one of the recurrence over their states."""
    model, device = runner.model, runner.device
    begun = time.perf_counter()
    lengths = [len(work.pixels_THWC) for work in works]
    pixels_NHWC = torch.from_numpy(np.concatenate([work.pixels_THWC for work in works])).to(device)
    feature_ND = model.encoder(pixels_NHWC)
    encoded = runner.now_seconds()
    feature_BTD = pad_sequence(list(feature_ND.split(lengths)), batch_first=True)
    state = stack([(work.state or model.sequence.initial_state(1)).to(device) for work in works])
    scores, state = runner.recur(feature_BTD, state, lengths)
    scores, state = scores.to("cpu"), state.to("cpu")
    ended = runner.now_seconds()
    states = state.split() if state.tensors else [state] * len(works)
    encode_ms, recur_ms = 1000 * (encoded - begun), 1000 * (ended - encoded)
    return [
        Done(
            scores=scores.row(row, num_frames=length),
            state=states[row],
            queued_ms=1000 * (begun - work.born_seconds),
            encode_ms=encode_ms * length / len(pixels_NHWC),
            recur_ms=recur_ms * length / len(pixels_NHWC),
        )
        for row, (work, length) in enumerate(zip(works, lengths, strict=True))
    ]


class Engine:
    """A thread that owns a model and batches what its callers submit; use it as a context manager.

    Args:
        model: on its device; used by this thread alone from now on.
        max_batch_frames: frames in one batch; a single larger chunk still goes, alone.
        max_waiting: chunks that may wait; `submit` blocks beyond that, so that callers slow down to the model's pace.
    """

    def __init__(self, model: VideoModel, *, max_batch_frames: int = 64, max_waiting: int = 256) -> None:
        self._runner = Runner.of(model)
        self._max_batch_frames = max_batch_frames
        self._waiting: queue.Queue[tuple[Work, Future[Done]] | None] = queue.Queue(max_waiting)
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="vidseq-engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, work: Work) -> "Future[Done]":
        """Put a chunk in the line; the future holds its scores and its new state."""
        assert not self._closed, "an engine that was closed takes no more work"
        future: Future[Done] = Future()
        self._waiting.put((work, future))
        return future

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join()

    def _loop(self) -> None:
        left_over = None
        while (first := left_over or self._waiting.get()) is not None:
            batch, left_over, last = self._gather(first)
            self._serve(batch)
            if last:
                return

    def _gather(
        self, first: tuple[Work, "Future[Done]"]
    ) -> tuple[list[tuple[Work, "Future[Done]"]], tuple[Work, "Future[Done]"] | None, bool]:
        """Whatever is ready now and fits; the first that does not fit; whether the line has been closed."""
        batch, num_frames = [first], len(first[0].pixels_THWC)
        while True:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return batch, None, False
            if item is None:
                return batch, None, True
            num_frames += len(item[0].pixels_THWC)
            if num_frames > self._max_batch_frames:
                return batch, item, False
            batch.append(item)

    def _serve(self, batch: list[tuple[Work, "Future[Done]"]]) -> None:
        batch = [(work, future) for work, future in batch if future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            results = run_batch(self._runner, [work for work, _ in batch])
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), done in zip(batch, results, strict=True):
            future.set_result(done)
