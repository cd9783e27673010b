"""The recurrences that torch has kernels for: Elman, LSTM, GRU. Knows nothing of other layers or of states.

torch's kernels are made for whole sequences: its LSTM lays out the weights anew at every call, and that costs more
than a step. So `steps` has a loop of its own. The input's share of the gates is one matrix product over all frames at
hand, each step one more:

    gates_BTG = W x + b             all frames of all streams at once
    U h + gates_BTG[:, t]           one frame of all streams, because h comes from the frame before

Equations are torch's, with sigma for the logistic function and * elementwise. Its GRU lets the reset gate act after
the product; Cho's, where it acts before, is another cell (`gated.Cho`) with weights of its own.

Shape letters: B streams, R of them running, T frames, I input size, H hidden size, G gate outputs.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidseq.cells.layer import Memory, Recurrence, last


class Kernel(Recurrence):
    """A layer of torch's for sequences, and the same equations for steps. W is weight_ih, U weight_hh."""

    def __init__(
        self,
        kernel: nn.RNNBase,
        *,
        learned_start: bool,
        gates: tuple[str, ...],
        names: tuple[str, ...] = ("h",),
    ) -> None:
        super().__init__(hidden_size=kernel.hidden_size, learned_start=learned_start, names=names)
        self.kernel = kernel
        self.gates = gates

    def forward(self, input_BTI: Tensor, memory: Memory, lengths_B: Tensor | None) -> tuple[Tensor, Memory]:
        hidden_BTH, _ = self.kernel(input_BTI, memory["h"][None].contiguous())
        return hidden_BTH, {"h": last(hidden_BTH, lengths_B)}

    def steps(self, input_BTI: Tensor, memory: Memory, lengths: Sequence[int]) -> tuple[Tensor, Memory]:
        memory = {name: tensor_BH.clone() for name, tensor_BH in memory.items()}
        gates_BTG = functional.linear(input_BTI, self.weight_GI, self.input_bias_G())
        hidden_BTH = gates_BTG.new_zeros(*gates_BTG.shape[:2], self.output_size)
        for frame in range(gates_BTG.shape[1]):
            num_running = sum(length > frame for length in lengths)  # they are the first
            running = {name: tensor_BH[:num_running] for name, tensor_BH in memory.items()}
            after = self.step(gates_BTG[:num_running, frame], running)
            for name, tensor_RH in after.items():
                running[name].copy_(tensor_RH)
            hidden_BTH[:num_running, frame] = after["h"]
        return hidden_BTH, memory

    @abstractmethod
    def step(self, gates_BG: Tensor, memory: Memory) -> Memory:
        """The memory after one frame, given what its input says to the gates; its `h` is the output."""

    def recurrent_weights(self) -> dict[str, Tensor]:
        return dict(zip(self.gates, self.weight_GH.chunk(len(self.gates)), strict=True))

    def input_bias_G(self) -> Tensor:
        """What is added to W x: both biases of torch, where both are only added."""
        return self.kernel.get_parameter("bias_ih_l0") + self.kernel.get_parameter("bias_hh_l0")

    @property
    def weight_GI(self) -> Tensor:
        return self.kernel.get_parameter("weight_ih_l0")

    @property
    def weight_GH(self) -> Tensor:
        return self.kernel.get_parameter("weight_hh_l0")


class Elman(Kernel):
    """h' = tanh(W x + U h + b)    (Elman 1990)"""

    def __init__(self, input_size: int, hidden_size: int, *, learned_start: bool) -> None:
        kernel = nn.RNN(input_size, hidden_size, batch_first=True)
        super().__init__(kernel, learned_start=learned_start, gates=("candidate",))

    def step(self, gates_BG: Tensor, memory: Memory) -> Memory:
        return {"h": torch.tanh(torch.addmm(gates_BG, memory["h"], self.weight_GH.T))}


class Lstm(Kernel):
    """i, f, o = sigma(W x + U h + b)    g = tanh(W x + U h + b)    c' = f * c + i * g    h' = o * tanh(c')

    (Hochreiter 1997, with the forget gate of Gers 2000.) One that starts by remembering learns long spans sooner
    (Jozefowicz 2015), so f's bias begins at 1. torch adds two biases; one of them is enough.
    """

    def __init__(self, input_size: int, hidden_size: int, *, learned_start: bool) -> None:
        kernel = nn.LSTM(input_size, hidden_size, batch_first=True)
        gates = ("input", "forget", "candidate", "output")
        super().__init__(kernel, learned_start=learned_start, gates=gates, names=("h", "c"))
        for name, value in (("bias_ih_l0", 1.0), ("bias_hh_l0", 0.0)):
            nn.init.constant_(kernel.get_parameter(name)[hidden_size : 2 * hidden_size], value)

    def forward(self, input_BTI: Tensor, memory: Memory, lengths_B: Tensor | None) -> tuple[Tensor, Memory]:
        """Rows of unequal length are packed, which is slower: c at a row's last frame is known in no other way."""
        before = (memory["h"][None].contiguous(), memory["c"][None].contiguous())
        if lengths_B is None:
            hidden_BTH, (final_1BH, cell_1BH) = self.kernel(input_BTI, before)
        else:
            packed = pack_padded_sequence(input_BTI, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
            packed_hidden, (final_1BH, cell_1BH) = self.kernel(packed, before)
            hidden_BTH, _ = pad_packed_sequence(packed_hidden, batch_first=True, total_length=input_BTI.shape[1])
        return hidden_BTH, {"h": final_1BH[0], "c": cell_1BH[0]}

    def step(self, gates_BG: Tensor, memory: Memory) -> Memory:
        gates_BG = torch.addmm(gates_BG, memory["h"], self.weight_GH.T)
        input_BH, forget_BH, candidate_BH, output_BH = gates_BG.chunk(4, dim=1)
        cell_BH = torch.sigmoid(forget_BH) * memory["c"] + torch.sigmoid(input_BH) * torch.tanh(candidate_BH)
        return {"h": torch.sigmoid(output_BH) * torch.tanh(cell_BH), "c": cell_BH}


class Gru(Kernel):
    """r, z = sigma(W x + U h + b)    n = tanh(W x + b + r * (U h + c))    h' = (1 - z) * n + z * h

    The gates of arxiv:1406.1078, with the reset after the product as torch and cuDNN have it.
    """

    def __init__(self, input_size: int, hidden_size: int, *, learned_start: bool) -> None:
        kernel = nn.GRU(input_size, hidden_size, batch_first=True)
        super().__init__(kernel, learned_start=learned_start, gates=("reset", "update", "candidate"))

    def input_bias_G(self) -> Tensor:
        """Without c, which the reset gate must reach."""
        return self.kernel.get_parameter("bias_ih_l0")

    def step(self, gates_BG: Tensor, memory: Memory) -> Memory:
        hidden_BH = memory["h"]
        reset_BH, update_BH, candidate_BH = gates_BG.chunk(3, dim=1)
        from_hidden_BG = torch.addmm(self.kernel.get_parameter("bias_hh_l0"), hidden_BH, self.weight_GH.T)
        more_reset_BH, more_update_BH, more_candidate_BH = from_hidden_BG.chunk(3, dim=1)
        candidate_BH = torch.tanh(candidate_BH + torch.sigmoid(reset_BH + more_reset_BH) * more_candidate_BH)
        update_BH = torch.sigmoid(update_BH + more_update_BH)
        return {"h": candidate_BH + update_BH * (hidden_BH - candidate_BH)}
