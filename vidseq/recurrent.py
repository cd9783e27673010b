"""Recurrence over frame features: features and state go in, hidden states and state come out. Knows nothing of pixels.

    feature_BTD -> LayerNorm -> projection -> [ Elman | LSTM | GRU ] x layers -> hidden_BTH

Two ways lead through the same weights: `forward` takes whole sequences with torch's kernels, `steps` takes a frame of
all streams at a time, with one matrix product a layer. They agree within 1e-5 in float32.

Shape letters: B streams, R of them running, T frames, D feature size, P projection size, L layers, H hidden size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidseq.cells import Cell, Memory
from vidseq.config import RecurrentConfig
from vidseq.errors import OfflineOnly
from vidseq.state import State

PREFIX = "recurrent"
_KERNELS: dict[str, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]] = {"elman": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """The recurrence of a `RecurrentConfig`; `output_size` is H, 2 H when bidirectional, P for cell `none`."""

    def __init__(self, config: RecurrentConfig, *, feature_size: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(feature_size)
        self.projection = nn.Linear(feature_size, config.projection_size)
        self.dropout = nn.Dropout(config.dropout)
        self.rnn: nn.RNNBase | None = None
        self.output_size = config.projection_size
        if config.cell != "none":
            self.rnn = _KERNELS[config.cell](
                config.projection_size,
                config.hidden_size,
                config.num_layers,
                batch_first=True,
                dropout=config.dropout if config.num_layers > 1 else 0.0,
                bidirectional=config.bidirectional,
            )
            self.output_size = config.hidden_size * (2 if config.bidirectional else 1)
        if config.cell == "lstm":
            _set_forget_bias(self.rnn, 1.0)

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
        memory = state.part(PREFIX)
        if self.config.bidirectional and memory:
            raise OfflineOnly(
                "a bidirectional model reads the whole video at once: it takes no state and cannot stream"
            )
        projected_BTP = self.dropout(self.projection(self.norm(feature_BTD)))
        if self.rnn is None:
            return projected_BTP, state
        hidden_BTH, memory = self._sequences(projected_BTP, memory, lengths_B)
        return self.dropout(hidden_BTH), state.replace(memory, prefix=PREFIX)

    def _sequences(
        self, projected_BTP: Tensor, memory: dict[str, Tensor], lengths_B: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.rnn is not None
        names = self._memory_names()
        # The state is kept as BLH so that streams are stacked along the first axis everywhere; torch wants LBH.
        initial = tuple(memory[name].transpose(0, 1).contiguous() for name in names) if memory else None
        given = initial[0] if initial is not None and len(initial) == 1 else initial
        if lengths_B is None or bool((lengths_B == projected_BTP.shape[1]).all()):
            hidden_BTH, final = self.rnn(projected_BTP, given)
        else:
            packed = pack_padded_sequence(projected_BTP, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
            packed_hidden, final = self.rnn(packed, given)
            hidden_BTH, _ = pad_packed_sequence(packed_hidden, batch_first=True, total_length=projected_BTP.shape[1])
        finals = final if isinstance(final, tuple) else (final,)
        return hidden_BTH, {name: last_LBH.transpose(0, 1) for name, last_LBH in zip(names, finals, strict=True)}

    def initial_state(self, batch: int) -> State:
        """Zeros for `batch` streams; no tensors where there is nothing to remember from chunk to chunk."""
        if self.rnn is None or self.config.bidirectional:
            return State()
        shape_BLH = (batch, self.config.num_layers, self.config.hidden_size)
        return State().replace(
            {name: self.norm.weight.new_zeros(shape_BLH) for name in self._memory_names()}, prefix=PREFIX
        )

    def _memory_names(self) -> tuple[str, ...]:
        return ("h", "c") if self.config.cell == "lstm" else ("h",)

    def steps(self, feature_BTD: Tensor, state: State | None, lengths: Sequence[int]) -> tuple[Tensor, State]:
        """What `forward` returns, a frame of all streams at a time. For use without gradients, in evaluation mode.

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
        state = state or State()
        hidden_BTH = self.projection(self.norm(feature_BTD))
        if self.rnn is None:
            return hidden_BTH, state
        before = state.part(PREFIX) or self.initial_state(len(feature_BTD)).part(PREFIX)
        memory = {name: tensor_BLH.clone() for name, tensor_BLH in before.items()}
        for layer in range(self.config.num_layers):
            cell = Cell.of(self.config.cell, self.rnn, layer)
            own = {name: tensor_BLH[:, layer] for name, tensor_BLH in memory.items()}
            hidden_BTH = _run(cell, hidden_BTH, own, lengths)
        return hidden_BTH, state.replace(memory, prefix=PREFIX)


def _run(cell: Cell, input_BTI: Tensor, memory: Memory, lengths: Sequence[int]) -> Tensor:
    """hidden_BTH of one layer, zero beyond each row's length; `memory` is overwritten by what comes after."""
    gates_BTG = cell.gates(input_BTI)
    hidden_BTH = gates_BTG.new_zeros(*gates_BTG.shape[:2], memory["h"].shape[1])
    for frame in range(gates_BTG.shape[1]):
        num_running = sum(length > frame for length in lengths)
        running = {name: tensor_BH[:num_running] for name, tensor_BH in memory.items()}
        after = cell.step(gates_BTG[:num_running, frame], running)
        for name, tensor_RH in after.items():
            running[name].copy_(tensor_RH)
        hidden_BTH[:num_running, frame] = after["h"]
    return hidden_BTH


def _set_forget_bias(lstm: nn.RNNBase | None, value: float) -> None:
    """An LSTM that starts by remembering learns long spans sooner (Jozefowicz 2015). torch adds two biases: use one."""
    assert lstm is not None
    size = lstm.hidden_size
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if name.startswith("bias"):
                parameter[size : 2 * size] = value if name.startswith("bias_ih") else 0.0
