"""A batch as the model reads it: padded chunks in turn, with what each frame should say and how much that counts.

    rows, the longest first      chunk 0   chunk 1   chunk 2
        aaaaaaaaaaaaaaaaaaaaa    aaaaaaaa  aaaaaaaa  aaaaa...      the rows that still run are always the first, so the
        bbbbbbbbbbbb             bbbbbbbb  bbbb....                state of a chunk's rows is the head of the state
        cccccc                   cccccc..                          before, and a row that has ended is heard no more

Only one chunk is in memory at a time. Knows nothing of models.

Shape letters: B rows, T frames of a chunk, D feature size, A action labels, L frame labels, K either.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from training.data.targets import IGNORED, delayed
from training.loop.batches import Part, Row
from training.settings import FitConfig
from vidseq.config import ModelConfig


@dataclass(frozen=True, eq=False)
class Chunk:
    """Targets are probabilities; a weight of 0 means that nothing is to be said there, or that nobody knows what."""

    feature_BTD: Tensor
    lengths_B: Tensor
    action_target_BTA: Tensor
    action_weight_BT: Tensor
    frame_target_BTL: Tensor
    frame_weight_BT: Tensor

    def to(self, device: torch.device) -> "Chunk":
        return Chunk(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class Reading:
    """How rows become chunks, and where their answers are asked for.

    Args:
        chunk_frames: at most so many frames at a time; None reads rows in one piece.
        action_at: a clip's action is asked for at its last frame, at the last frame of each of its chunks, or at every
            frame, together as much as once.
        last_frame_only: frame labels are asked for at the last frame of each row.
    """

    num_actions: int
    num_frame_labels: int
    lookahead_frames: int
    chunk_frames: int | None
    action_at: Literal["end", "each chunk", "every frame"]
    last_frame_only: bool = False

    @classmethod
    def measuring(cls, config: ModelConfig, settings: FitConfig) -> "Reading":
        """Of clips that are not learnt from: each as a stream of it would be labelled."""
        return cls(
            len(config.heads.action_labels),
            len(config.heads.frame_labels),
            config.lookahead_frames,
            chunk_frames=None if settings.long == "whole" else settings.chunk_frames,
            action_at="every frame" if config.forgets_at_once else "end",
        )

    @classmethod
    def learning(cls, config: ModelConfig, settings: FitConfig) -> "Reading":
        """Rows of `learning_batches`: windows are read in one piece, and only their ends are asked for."""
        return replace(
            cls.measuring(config, settings),
            chunk_frames=settings.chunk_frames if settings.long == "truncated" else None,
            action_at="every frame" if config.forgets_at_once and settings.long != "window" else "each chunk",
            last_frame_only=settings.long == "window",
        )

    def chunks(self, rows: Sequence[Row]) -> Iterator[Chunk]:
        """The rows from their first frames to their last, the longest row first."""
        rows = sorted(rows, key=lambda row: -row.num_frames)
        longest = rows[0].num_frames
        step = self.chunk_frames or longest
        for start in range(0, longest, step):
            running = [row for row in rows if row.num_frames > start]
            yield self._chunk(running, start, start + step)

    def _chunk(self, rows: Sequence[Row], start: int, stop: int) -> Chunk:
        columns = zip(*(self._row(row, start, min(stop, row.num_frames)) for row in rows), strict=True)
        padded = [pad_sequence(list(column), batch_first=True) for column in columns]
        lengths_B = torch.tensor([min(stop, row.num_frames) - start for row in rows])
        return Chunk(padded[0], lengths_B, *padded[1:])

    def _row(self, row: Row, start: int, stop: int) -> tuple[Tensor, ...]:
        """Features, action targets and weights, frame targets and weights of frames `start` up to `stop` of a row."""
        features, actions, frames = [], [], []
        for part in row.parts:
            features.append(_of_part(part, part.example.feature_TD, start, stop))
            actions.append(self._action(part, start, stop, num_frames=row.num_frames))
            frames.append(self._frames(part, start, stop, num_frames=row.num_frames))
        shares = [part.share for part in row.parts]
        return _sum(features, shares), *_mean(actions, shares), *_mean(frames, shares)

    def _action(self, part: Part, start: int, stop: int, *, num_frames: int) -> tuple[Tensor, Tensor]:
        weight_T, target_A = torch.zeros(stop - start), part.example.action_target_A
        if target_A is None or not self.num_actions:
            target_A = torch.zeros(self.num_actions)
        elif self.action_at == "every frame":
            weight_T[:] = 1 / num_frames
        elif self.action_at == "each chunk" or stop == num_frames:
            weight_T[-1] = 1.0
        return target_A.expand(stop - start, -1), weight_T

    def _frames(self, part: Part, start: int, stop: int, *, num_frames: int) -> tuple[Tensor, Tensor]:
        if not self.num_frame_labels:
            return torch.zeros(stop - start, 0), torch.zeros(stop - start)
        target_T = delayed(part.example.frame_target_T, lookahead_frames=self.lookahead_frames)
        target_T = _of_part(part, target_T, start, stop)
        weight_T = (target_T != IGNORED).float()
        if self.last_frame_only:
            weight_T[: max(0, min(stop, num_frames - 1) - start)] = 0.0
        target_TL = functional.one_hot(target_T.clamp(min=0), self.num_frame_labels).float()
        return target_TL, weight_T


def _of_part(part: Part, tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[part.first + start : part.first + stop]


def _sum(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """One clip is passed on as it is, whatever its type."""
    if len(tensors) == 1:
        return tensors[0]
    return sum((share * tensor for share, tensor in zip(shares, tensors, strict=True)), torch.zeros(()))


def _mean(labelled: Sequence[tuple[Tensor, Tensor]], shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Targets and weights of what is laid over each other: each clip has its share, if it has a label at all."""
    weight_T = _sum([weight_T for _, weight_T in labelled], shares)
    mass_TK = _sum([target_TK * weight_T[:, None] for target_TK, weight_T in labelled], shares)
    return mass_TK / weight_T.clamp(min=1e-12)[:, None], weight_T
