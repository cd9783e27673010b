"""Chunks of many streams, advanced together by one model. Knows nothing of who waits for them, or of turns.

    pixels of all chunks -> one pass of the CNN -> encoded, longest chunk first --+
                                                                                  +-> motion, recurrence, heads -> Done
    states of all chunks -------------------------------------------> stacked ----+

Models that share an encoder share that pass: the second half is then done for each, over those chunks that want it.

Shape letters: T frames of one chunk, N frames of all chunks, B chunks, E encoded size.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vidseq.model import Scores, VideoModel
from vidseq.state import State, stack

# Up to here a loop over frames is faster than torch's kernels for sequences (LSTM, rows of unequal length), or nearly.
_STEPPED_FRAMES = 4


@dataclass(frozen=True, eq=False)
class Work:
    """A chunk of one video, at least one frame, and the state before it; None at the start of the video.

    `deadline_seconds`, on the clock of time.perf_counter: a work whose turn has not come by then is not computed.

    `head` is the model whose scores are wanted, and whose state that is; None is the one that computes. `also` are
    others that are wanted of the very same frames, with their states. All have the encoder of the one that computes.
    """

    pixels_THWC: NDArray[np.uint8]
    state: State | None
    deadline_seconds: float | None = None
    born_seconds: float = field(default_factory=time.perf_counter)
    head: "Runner | None" = None
    also: Mapping["Runner", State | None] = field(default_factory=dict)

    @classmethod
    def after(cls, done: "Done", pixels_THWC: NDArray[np.uint8], *, head: "Runner | None" = None) -> "Work":
        """The next chunk of the same video."""
        return cls(pixels_THWC, done.state, head=head, also={other: part.state for other, part in done.also.items()})

    def wanted(self, runner: "Runner") -> "dict[Runner, State | None]":
        """The state of each model that is wanted, of those that `runner` computes for."""
        return {self.head or runner: self.state, **self.also}


@dataclass(frozen=True, eq=False)
class Done:
    """Scores of the chunk's T frames and the state after it (B = 1, on the CPU), and where the milliseconds went.

    Encoding and recurrence are shared by a batch: each chunk is told its share by its number of frames. `also` is what
    came of the other models that were wanted; to encode the frames for all of them took as long as for one.
    """

    scores: Scores
    state: State
    queued_ms: float
    encode_ms: float
    recur_ms: float
    also: Mapping["Runner", "Done"] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence["Done"]) -> "Done":
        """One chunk that was computed in several turns."""
        return cls(
            scores=Scores.joined([part.scores for part in parts]),
            state=parts[-1].state,
            queued_ms=sum(part.queued_ms for part in parts),
            encode_ms=sum(part.encode_ms for part in parts),
            recur_ms=sum(part.recur_ms for part in parts),
            also={head: cls.joined([part.also[head] for part in parts]) for head in parts[0].also},
        )


Compute = Callable[[Work], "Future[Done]"]


@dataclass(frozen=True, eq=False)
class Runner:
    """A model in use: where its weights are now, and what a stream's state is at its start, on the CPU."""

    model: VideoModel
    device: torch.device
    start: State

    @classmethod
    def of(cls, model: VideoModel) -> "Runner":
        sequence = model.sequence
        return cls(model, next(sequence.parameters()).device, model.initial_state(1).to("cpu"))

    @property
    def offline(self) -> bool:
        """Whether a video has to come in one piece."""
        return self.model.sequence.recurrent.config.bidirectional

    def fits(self, state: State | None) -> bool:
        """Whether it is a state of one stream of this model: in a batch, another one would fail everybody's."""
        return state is None or _kinds(state) == _kinds(self.start)

    def recur(
        self, encoded_NE: Tensor, states: Sequence[State | None], lengths: Sequence[int]
    ) -> list[tuple[Scores, State]]:
        """Scores and the state after each of B chunks, on the CPU; their frames follow each other, longest first."""
        state = stack([state or self.start for state in states]).to(self.device)
        step = lengths[0] <= _STEPPED_FRAMES and not self.offline
        scores, state = self.model.recur(_padded(encoded_NE, lengths), state, lengths, step=step)
        scores, state = scores.to("cpu"), state.to("cpu")
        after = state.split() if state.tensors else [state] * len(lengths)
        return list(zip(scores.split(lengths), after, strict=True))

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
    """Advance B chunks together: one pass of the CNN over all their frames, one of the recurrence over their states.

    The latter once for each model that is wanted, over the chunks that want it.
    """
    begun = time.perf_counter()
    order = sorted(range(len(works)), key=lambda row: len(works[row].pixels_THWC), reverse=True)
    chunks = [works[row].pixels_THWC for row in order]
    encoded_NE = runner.model.encoder(torch.from_numpy(np.concatenate(chunks)).to(runner.device))
    encoded = runner.now_seconds()
    encode_ms = 1000 * (encoded - begun) / len(encoded_NE)
    done: list[dict[Runner, Done]] = [{} for _ in works]
    for head, states in _by_head(runner, works, order).items():
        lengths = [len(works[row].pixels_THWC) for row in states]
        answers = head.recur(_rows_of(encoded_NE, chunks, order, states), list(states.values()), lengths)
        ended = runner.now_seconds()
        recur_ms = 1000 * (ended - encoded) / sum(lengths)
        encoded = ended
        for row, length, (scores, state) in zip(states, lengths, answers, strict=True):
            done[row][head] = Done(
                scores=scores,
                state=state,
                queued_ms=1000 * (begun - works[row].born_seconds),
                encode_ms=encode_ms * length,
                recur_ms=recur_ms * length,
            )
    return [_told(parts, first=work.head or runner) for parts, work in zip(done, works, strict=True)]


def _by_head(runner: Runner, works: Sequence[Work], order: Sequence[int]) -> dict[Runner, dict[int, State | None]]:
    """Of each model, the works that want it, in order, and the states that they bring."""
    found: dict[Runner, dict[int, State | None]] = {}
    for row in order:
        for head, state in works[row].wanted(runner).items():
            found.setdefault(head, {})[row] = state
    return found


def _rows_of(
    encoded_NE: Tensor, chunks: Sequence[NDArray[np.uint8]], order: Sequence[int], wanted: Collection[int]
) -> Tensor:
    """The frames of the works that are wanted: nothing is copied where that is all of them."""
    if len(wanted) == len(order):
        return encoded_NE
    parts = encoded_NE.split([len(chunk) for chunk in chunks])
    return torch.cat([part for part, row in zip(parts, order, strict=True) if row in wanted])


def _told(parts: dict[Runner, Done], *, first: Runner) -> Done:
    done = parts.pop(first)
    return replace(done, also=parts) if parts else done


def _kinds(state: State) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in state.tensors.items()}


def _padded(encoded_NE: Tensor, lengths: Sequence[int]) -> Tensor:
    """encoded_BTE, padded to the first, which is the longest."""
    if lengths[0] == lengths[-1]:
        return encoded_NE.reshape(len(lengths), lengths[0], encoded_NE.shape[1])
    return pad_sequence(encoded_NE.split(list(lengths)), batch_first=True)
