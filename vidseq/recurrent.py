"""Layers over frame features: features and state go in, hidden states and state come out. Knows nothing of pixels.

    feature_BTD -> normalisation -> projection -> [ layer, linked with its input ] x layers -> hidden_BTH

Two ways lead through the same weights: `forward` takes whole sequences, `steps` a few frames of many streams. They
agree within 1e-5 in float32. The memory of layer 0 lies in the state under recurrent.0, and so on.

Shape letters: B streams, T frames, N frames of any clips, D feature size, P projection size, H hidden size.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vidseq.cells import Layer, Link, Memory, build_layer
from vidseq.cells.layer import lengths_tensor
from vidseq.config import RecurrentConfig
from vidseq.errors import OfflineOnly
from vidseq.state import State

PREFIX = "recurrent"


class Recurrent(nn.Module):
    """The layers of a `RecurrentConfig`; `output_size` is H, 2 H when bidirectional, P for cell `none`.

    Dropout falls on what is projected and on what each layer says, not on what a residual or a highway carries past it.
    """

    def __init__(self, config: RecurrentConfig, *, feature_size: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(feature_size) if config.normalisation == "layer" else Standardise(feature_size)
        self.projection = nn.Linear(feature_size, config.projection_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers, self.links = nn.ModuleList(), nn.ModuleList()
        self.output_size = config.projection_size
        for number in range(0 if config.cell == "none" else config.num_layers):
            input_size = self.output_size
            layer = build_layer(config, number=number, input_size=input_size)
            self.output_size = layer.output_size
            self.layers.append(layer)
            self.links.append(Link(config.between_layers, input_size=input_size, output_size=layer.output_size))

    def forward(
        self, feature_BTD: Tensor, state: State | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Hidden states of whole sequences, and the state after each sequence's own last frame.

        Args:
            feature_BTD: frame features; rows shorter than T are padded at the end with anything.
            state: what an earlier chunk of the same B streams returned; None at the start of the videos.
            lengths_B: valid frames of each row, at least 1 each; None says that all have T.

        Returns:
            hidden_BTH, zero beyond each row's length; the new state.

        Raises:
            OfflineOnly: a bidirectional model was given a state.
        """
        state = state or State()
        if self.config.bidirectional and state.part(PREFIX):
            raise OfflineOnly(
                "a bidirectional model reads the whole video at once: it takes no state and cannot stream"
            )
        if lengths_B is not None and bool((lengths_B == feature_BTD.shape[1]).all()):
            lengths_B = None
        hidden_BTH, state = self._through(
            feature_BTD, state, lambda layer, input_BTI, memory: layer(input_BTI, memory, lengths_B)
        )
        return _masked(hidden_BTH, lengths_B), state

    def steps(self, feature_BTD: Tensor, state: State | None, lengths: Sequence[int]) -> tuple[Tensor, State]:
        """What `forward` returns, by the way for few frames. For use without gradients, in evaluation mode.

        Args:
            feature_BTD: frame features, padded at the end with anything.
            state: as in `forward`.
            lengths: valid frames of each of the B rows, longest first: the rows that still run are always the first.

        Raises:
            OfflineOnly: a bidirectional model cannot step.
        """
        assert list(lengths) == sorted(lengths, reverse=True), f"rows are not in order, longest first: {lengths}"
        if self.config.bidirectional:
            raise OfflineOnly("a bidirectional model reads the whole video at once: it cannot step")
        hidden_BTH, state = self._through(
            feature_BTD, state or State(), lambda layer, input_BTI, memory: layer.steps(input_BTI, memory, lengths)
        )
        return _masked(hidden_BTH, lengths_tensor(lengths)), state

    def _through(
        self, feature_BTD: Tensor, state: State, advance: Callable[[Layer, Tensor, Memory], tuple[Tensor, Memory]]
    ) -> tuple[Tensor, State]:
        """All layers, one after the other, each advanced in the way that is wanted."""
        hidden_BTH = self.dropout(self.projection(self.norm(feature_BTD)))
        for number, (layer, link) in enumerate(zip(self._layers(), self.links, strict=True)):
            prefix = f"{PREFIX}.{number}"
            memory = state.part(prefix) or layer.start(len(hidden_BTH))
            output_BTH, memory = advance(layer, hidden_BTH, memory)
            hidden_BTH = link(hidden_BTH, self.dropout(output_BTH))
            state = state.replace(memory, prefix=prefix)
        return hidden_BTH, state

    @torch.no_grad()
    def initial_state(self, batch: int) -> State:
        """What None stands for, written out; no tensors where there is nothing to remember from chunk to chunk."""
        state = State()
        for number, layer in enumerate(self._layers()):
            state = state.replace(layer.start(batch), prefix=f"{PREFIX}.{number}")
        return state

    @torch.no_grad()
    def faded(self, state: State, factor: float) -> State:
        """The state after a gap in time: at 1 what it was, at 0 as good as the start; nothing where nothing is."""
        for number, layer in enumerate(self._layers()):
            prefix = f"{PREFIX}.{number}"
            if memory := state.part(prefix):
                state = state.replace(layer.faded(memory, factor), prefix=prefix)
        return state

    def recurrent_weights(self) -> list[dict[str, Tensor]]:
        """weight_HH of each layer by gate; empty for a layer that has no matrix on the way back in time."""
        return [layer.recurrent_weights() for layer in self._layers()]

    def learn_normalisation(self, features: Iterable[Tensor]) -> None:
        """Take each feature's mean and standard deviation from the training clips, before training.

        Args:
            features: feature_ND of each clip, or of each part of one: they are read one after the other.
        """
        assert isinstance(self.norm, Standardise), "normalisation 'layer' has nothing to learn from all clips"
        self.norm.learn(features)

    def _layers(self) -> Iterable[Layer]:
        return cast("Iterable[Layer]", self.layers)


class Standardise(nn.Module):
    """Each feature less its mean, over its standard deviation; both are buffers, and 0 and 1 until they are learnt."""

    mean_D: Tensor
    std_D: Tensor

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(feature_size))
        self.register_buffer("std_D", torch.ones(feature_size))

    def forward(self, feature_BTD: Tensor) -> Tensor:
        return (feature_BTD - self.mean_D) / self.std_D

    def learn(self, features: Iterable[Tensor]) -> None:
        """In one pass, in float64, so that sums of squares keep their digits. A feature that never changes keeps 1."""
        num_frames = 0
        sum_D, squares_D = torch.zeros_like(self.mean_D).double(), torch.zeros_like(self.mean_D).double()
        for feature in features:
            feature_ND = feature.to(sum_D).reshape(-1, len(sum_D))
            num_frames += len(feature_ND)
            sum_D += feature_ND.sum(dim=0)
            squares_D += feature_ND.square().sum(dim=0)
        assert num_frames, "there are no frames to learn a normalisation from"
        mean_D = sum_D / num_frames
        std_D = (squares_D / num_frames - mean_D.square()).clamp(min=0).sqrt()
        self.mean_D.copy_(mean_D)
        self.std_D.copy_(torch.where(std_D > 1e-6 * (1 + mean_D.abs()), std_D, 1.0))


def _masked(hidden_BTH: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Zero beyond each row's length."""
    if lengths_B is None:
        return hidden_BTH
    frame_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
    padding_BT = frame_T >= lengths_B.to(hidden_BTH.device)[:, None]
    return hidden_BTH.masked_fill(padding_BT[:, :, None], 0.0)
