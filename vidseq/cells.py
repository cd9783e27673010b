"""One step of a recurrent cell for many streams at once. Knows nothing of layers, lengths or states.

torch's own kernels are made for whole sequences: its LSTM lays out the weights anew at every call, and that costs more
than a step. Here the input's share of the gates is one matrix product over all frames at hand, each step one more:

    gates_BTG = W x + b             all frames of all streams at once
    U h + gates_BTG[:, t]           one frame of all streams, because h comes from the frame before

Equations are torch's, with sigma for the logistic function and * elementwise:

    Elman   h' = tanh(W x + U h + b)                                            (Elman 1990)
    LSTM    i, f, o = sigma(...), g = tanh(...);  c' = f * c + i * g;  h' = o * tanh(c')   (Hochreiter 1997, Gers 2000)
    GRU     r, z = sigma(...);  n = tanh(W_n x + b_n + r * (U_n h + c_n));  h' = (1 - z) * n + z * h

The GRU is torch's: the reset gate acts after the product. Cho's (arxiv:1406.1078) acts before it, n = tanh(W_n x +
U_n (r * h)), which needs a second product; the two are not interchangeable with the same weights.

Shape letters: B streams, T frames, I input size, H hidden size, G gate outputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Memory = dict[str, Tensor]  # of one layer: h_BH, and c_BH for an LSTM


@dataclass(frozen=True, eq=False)
class Cell:
    """One layer's weights W and U, b with W, c with U; where both biases are only added, b holds their sum."""

    kind: str
    weight_GI: Tensor
    weight_GH: Tensor
    input_bias_G: Tensor
    hidden_bias_G: Tensor

    @classmethod
    def of(cls, kind: str, rnn: nn.RNNBase, layer: int) -> "Cell":
        """A layer of a torch recurrent module, in its forward direction."""
        weight_GI, weight_GH, input_bias_G, hidden_bias_G = (
            getattr(rnn, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        if kind != "gru":
            input_bias_G = input_bias_G + hidden_bias_G
        return cls(kind, weight_GI, weight_GH, input_bias_G, hidden_bias_G)

    def gates(self, input_BTI: Tensor) -> Tensor:
        """gates_BTG: what the input says, before the hidden state has spoken."""
        return functional.linear(input_BTI, self.weight_GI, self.input_bias_G)

    def step(self, gates_BG: Tensor, memory: Memory) -> Memory:
        """The memory after one frame, given the gates of its input; its `h` is the output."""
        if self.kind == "gru":
            return self._gru(gates_BG, memory["h"])
        gates_BG = torch.addmm(gates_BG, memory["h"], self.weight_GH.T)
        if self.kind == "elman":
            return {"h": torch.tanh(gates_BG)}
        input_BH, forget_BH, candidate_BH, output_BH = gates_BG.chunk(4, dim=1)
        cell_BH = torch.sigmoid(forget_BH) * memory["c"] + torch.sigmoid(input_BH) * torch.tanh(candidate_BH)
        return {"h": torch.sigmoid(output_BH) * torch.tanh(cell_BH), "c": cell_BH}

    def _gru(self, gates_BG: Tensor, hidden_BH: Tensor) -> Memory:
        reset_BH, update_BH, candidate_BH = gates_BG.chunk(3, dim=1)
        from_hidden_BG = torch.addmm(self.hidden_bias_G, hidden_BH, self.weight_GH.T)
        more_reset_BH, more_update_BH, more_candidate_BH = from_hidden_BG.chunk(3, dim=1)
        candidate_BH = torch.tanh(candidate_BH + torch.sigmoid(reset_BH + more_reset_BH) * more_candidate_BH)
        update_BH = torch.sigmoid(update_BH + more_update_BH)
        return {"h": candidate_BH + update_BH * (hidden_BH - candidate_BH)}
