"""The model: pixels and state go in, scores and state come out. Knows nothing of files, of time or of training.

    pixels_THWC -> encoder -> encoded_BTE -> motion -> feature_BTD -> recurrent -> hidden_BTH -> heads -> Scores

Every forward method takes the state of an earlier chunk and returns the next; in evaluation mode and float32 any
chunking of a video gives the one-shot answer within 1e-5. A bidirectional model takes a video in one piece only.

Shape letters: B streams, T frames, E encoded size, D feature size, H hidden size, A action labels, L frame labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vidseq.config import ModelConfig
from vidseq.encoder import Encoder
from vidseq.errors import OptionError
from vidseq.heads import ActionHead, FrameHead
from vidseq.motion import PREFIX as MOTION
from vidseq.motion import Motion
from vidseq.naming import probabilities
from vidseq.recurrent import Recurrent
from vidseq.state import MAX_STATE_BYTES, State

_RESERVED_BYTES = 4 * 1024  # of a written state: the tensors' names, and what labelling remembers


@dataclass(frozen=True, eq=False)
class Scores:
    """Logits of B streams over T frames, None without that head; the action at [:, t] is the answer after frame t.

    With `several` each action has a probability of its own, else they share one.
    """

    action_logits_BTA: Tensor | None
    frame_logits_BTL: Tensor | None
    several: bool = False

    def split(self, lengths: Sequence[int]) -> list["Scores"]:
        """B scores of one stream each, views without the padding: `lengths` are the frames of each row."""
        actions, frames = _rows(self.action_logits_BTA, lengths), _rows(self.frame_logits_BTL, lengths)
        return [Scores(action, frame, self.several) for action, frame in zip(actions, frames, strict=True)]

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """The scores of the same streams, one chunk after the other."""
        actions = [part.action_logits_BTA for part in parts if part.action_logits_BTA is not None]
        frames = [part.frame_logits_BTL for part in parts if part.frame_logits_BTL is not None]
        return cls(
            torch.cat(actions, dim=1) if actions else None,
            torch.cat(frames, dim=1) if frames else None,
            any(part.several for part in parts),
        )

    def to(self, device: str) -> "Scores":
        action, frame = self.action_logits_BTA, self.frame_logits_BTL
        return replace(
            self,
            action_logits_BTA=None if action is None else action.to(device),
            frame_logits_BTL=None if frame is None else frame.to(device),
        )

    def action_probabilities_BTA(self, temperature_T: Tensor | None = None) -> Tensor | None:
        """None for `temperature_T` leaves the logits as they are: see `vidseq.naming`."""
        if self.action_logits_BTA is None:
            return None
        return probabilities(self.action_logits_BTA, several=self.several, temperature_T=temperature_T)

    def frame_probabilities_BTL(self) -> Tensor | None:
        return None if self.frame_logits_BTL is None else self.frame_logits_BTL.softmax(dim=-1)


class SequenceModel(nn.Module):
    """Everything after the encoder: what is trained, small, on cached features."""

    def __init__(self, config: ModelConfig, *, feature_size: int) -> None:
        super().__init__()
        self.config = config
        self.recurrent = Recurrent(config.recurrent, feature_size=feature_size)
        hidden_size = self.recurrent.output_size
        heads = config.heads
        self.action_head: ActionHead | None = None
        self.frame_head: FrameHead | None = None
        if heads.action_labels:
            half_life_frames = _half_life_frames(config)
            self.action_head = ActionHead(heads, hidden_size=hidden_size, half_life_frames=half_life_frames)
        if heads.frame_labels:
            self.frame_head = FrameHead(heads, hidden_size=hidden_size)

    def forward(
        self, feature_BTD: Tensor, state: State | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Scores, State]:
        """Scores of every frame and the state after each row's own last frame.

        Args:
            feature_BTD: features of B streams, padded at the end to the longest.
            state: None at the start of the videos, else what the chunk before returned.
            lengths_B: valid frames of each row, 1 to T; None says that all have T.

        Raises:
            OfflineOnly: a bidirectional model was given a state.
        """
        if feature_BTD.shape[1] == 0:
            return self._no_scores(feature_BTD), state or State()
        hidden_BTH, state = self.recurrent(feature_BTD, state, lengths_B)
        return self._read(hidden_BTH, state, lengths_B)

    def initial_state(self, batch: int) -> State:
        """The state of `batch` streams that have not begun: what None stands for, with its tensors written out."""
        state, head = self.recurrent.initial_state(batch), self.action_head
        if head is None:
            return state
        return state.replace(head.start(batch, like=next(self.parameters())), prefix=head.prefix)

    def steps(self, feature_BTD: Tensor, state: State | None, lengths: Sequence[int]) -> tuple[Scores, State]:
        """What `forward` says, a frame at a time: the way for few frames of many streams. See `Recurrent.steps`."""
        hidden_BTH, state = self.recurrent.steps(feature_BTD, state, lengths)
        equal = lengths[0] == lengths[-1]
        return self._read(hidden_BTH, state, None if equal else torch.tensor(lengths))

    def decayed(self, state: State, factor: float) -> State:
        """The memory of the same streams after a gap in time, in which all that was seen has faded.

        The recurrent layers' memory is drawn towards its start, and the weight that earlier frames have in the running
        mean of the action is multiplied by `factor`: what comes next counts for more. 1 is the identity; after 0 the
        streams go on as from their start. Two gaps in a row fade by the product of their factors.

        Args:
            state: of any number of streams, on any device.
            factor: from 0 to 1, such as 0.5 ** (gap_seconds / half_life_seconds).
        """
        assert 0.0 <= factor <= 1.0, f"a memory fades by a factor from 0 to 1, not {factor}"
        state = self.recurrent.faded(state, factor)
        head = self.action_head
        if head is None:
            return state
        return state.replace(head.faded(state.part(head.prefix), factor), prefix=head.prefix)

    def _read(self, hidden_BTH: Tensor, state: State, lengths_B: Tensor | None) -> tuple[Scores, State]:
        action_logits_BTA = None
        if self.action_head is not None:
            action_logits_BTA, state = self.action_head(hidden_BTH, state, lengths_B)
        frame_logits_BTL = None if self.frame_head is None else self.frame_head(hidden_BTH)
        return Scores(action_logits_BTA, frame_logits_BTL, self.config.heads.several), state

    def _no_scores(self, feature_BTD: Tensor) -> Scores:
        shape = feature_BTD.shape[:2]
        heads = self.config.heads
        return Scores(
            feature_BTD.new_zeros(*shape, len(heads.action_labels)) if self.action_head is not None else None,
            feature_BTD.new_zeros(*shape, len(heads.frame_labels)) if self.frame_head is not None else None,
            heads.several,
        )


def check_state_size(config: ModelConfig, motion: Motion | None = None) -> None:
    """That what a stream remembers will fit into a state; to be asked before a model is trained.

    Models that need the whole video at once remember nothing from push to push, so nothing is asked of them.

    Raises:
        OptionError: it is larger than a state may be.
    """
    if config.recurrent.bidirectional or config.sampling.max_frames is not None:
        return
    with torch.device("meta"):  # shapes without numbers: the features' size does not matter
        state = SequenceModel(config, feature_size=1).initial_state(1)
        if motion is not None:
            state = state.replace(motion.start(1, like=torch.zeros(1)), prefix=MOTION)
        num_bytes = state.num_bytes
    if num_bytes > (limit := MAX_STATE_BYTES - _RESERVED_BYTES):
        raise OptionError(
            f"a stream of this model would remember {num_bytes:,} bytes, and at most {limit:,} are allowed: "
            "choose a smaller hidden_size, num_layers or window_frames; of motion, fewer maps or channels"
        )


class VideoModel(nn.Module):
    """The whole model: an encoder and a sequence model on its features. Its state is that of both."""

    def __init__(self, encoder: Encoder, sequence: SequenceModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.sequence = sequence

    @classmethod
    def build(cls, config: ModelConfig) -> "VideoModel":
        """A model of this configuration with random weights, in evaluation mode."""
        encoder = Encoder(config.encoder)
        return cls(encoder, SequenceModel(config, feature_size=encoder.feature_size)).eval()

    def forward(self, pixels_THWC: Tensor, state: State | None = None) -> tuple[Scores, State]:
        """One chunk of one stream: scores of its T frames (B = 1) and the state after it."""
        feature_BTD, state = self.encoder.features(self.encoder(pixels_THWC)[None], state)
        scores, state = self.sequence(feature_BTD, state)
        return scores, state

    def recur(
        self, encoded_BTE: Tensor, state: State | None, lengths: Sequence[int], *, step: bool
    ) -> tuple[Scores, State]:
        """What is left to do once frames are encoded, for chunks of B streams, longest first.

        Args:
            encoded_BTE: padded at the end to the longest.
            lengths: valid frames of each row.
            step: a frame at a time, the faster way for few frames; see `Recurrent.steps`.
        """
        feature_BTD, state = self.encoder.features(encoded_BTE, state, lengths)
        if step:
            return self.sequence.steps(feature_BTD, state, lengths)
        scores, state = self.sequence(feature_BTD, state, torch.tensor(lengths))
        return scores, state

    def initial_state(self, batch: int) -> State:
        """The state of `batch` streams that have not begun: what None stands for, with its tensors written out."""
        state, motion = self.sequence.initial_state(batch), self.encoder.motion
        if motion is None:
            return state
        return state.replace(motion.start(batch, like=self.encoder.pixel_mean), prefix=MOTION)

    def decayed(self, state: State, factor: float) -> State:
        """The memory of the same streams after a gap in time; see `SequenceModel.decayed` and `Motion.faded`."""
        state, motion = self.sequence.decayed(state, factor), self.encoder.motion
        return state if motion is None else state.replace(motion.faded(state.part(MOTION), factor), prefix=MOTION)


def _rows(logits_BTL: Tensor | None, lengths: Sequence[int]) -> Sequence[Tensor | None]:
    if logits_BTL is None:
        return [None] * len(lengths)
    longest = logits_BTL.shape[1]
    rows = zip(logits_BTL.unsqueeze(1).unbind(), lengths, strict=True)
    return [row if length == longest else row[:, :length] for row, length in rows]


def _half_life_frames(config: ModelConfig) -> float | None:
    if config.heads.half_life_seconds is None:
        return None
    if config.sampling.frames_per_second == "native":
        raise OptionError("half_life_seconds needs a sampling rate in frames per second, not 'native'")
    return config.heads.half_life_seconds * config.sampling.frames_per_second
