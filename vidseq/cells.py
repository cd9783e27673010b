"""One step of a recurrent cell for many streams at once, as a single matrix product. Knows nothing of sequences.

torch's own kernels are fast over whole sequences and slow for one step (they repack their weights at every call). For
one step the weights of input and hidden state are put side by side once, and a step is one product over `[x, h]`:

    [x, h] @ [[W_ih^T], [W_hh^T]] + (b_ih + b_hh)  ->  gates

Equations are torch's, with sigma for the logistic function and * elementwise:

    Elman   h' = tanh(W x + U h + b)                                            (Elman 1990)
    LSTM    i, f, o = sigma(...), g = tanh(...);  c' = f * c + i * g;  h' = o * tanh(c')   (Hochreiter 1997, Gers 2000)
    GRU     r, z = sigma(...);  n = tanh(W_n x + b_n + r * (U_n h + c_n));  h' = (1 - z) * n + z * h

The GRU is torch's: the reset gate acts after the product. Cho's (arxiv:1406.1078) acts before it, n = tanh(W_n x +
U_n (r * h)), which needs a second product; the two are not interchangeable with the same weights.

Shape letters: B streams, I input size, H hidden size, G gate outputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

Memory = dict[str, Tensor]  # of one layer: h_BH, and c_BH for an LSTM


@dataclass(frozen=True, eq=False)
class PackedCell:
    """One layer's weights, ready for single steps. A snapshot: it does not follow later training."""

    kind: str
    weight_XG: Tensor  # X = I + H
    bias_G: Tensor

    def step(self, input_BI: Tensor, memory: Memory) -> Memory:
        """The memory after one step; its `h` is the output."""
        gates_BG = torch.addmm(self.bias_G, torch.cat([input_BI, memory["h"]], dim=1), self.weight_XG)
        if self.kind == "elman":
            return {"h": torch.tanh(gates_BG)}
        return _lstm(gates_BG, memory["c"]) if self.kind == "lstm" else _gru(gates_BG, memory["h"])


def _lstm(gates_BG: Tensor, cell_BH: Tensor) -> Memory:
    input_BH, forget_BH, candidate_BH, output_BH = gates_BG.chunk(4, dim=1)
    cell_BH = torch.sigmoid(forget_BH) * cell_BH + torch.sigmoid(input_BH) * torch.tanh(candidate_BH)
    return {"h": torch.sigmoid(output_BH) * torch.tanh(cell_BH), "c": cell_BH}


def _gru(gates_BG: Tensor, hidden_BH: Tensor) -> Memory:
    reset_BH, update_BH, from_input_BH, from_hidden_BH = gates_BG.chunk(4, dim=1)
    candidate_BH = torch.tanh(from_input_BH + torch.sigmoid(reset_BH) * from_hidden_BH)
    update_BH = torch.sigmoid(update_BH)
    return {"h": candidate_BH + update_BH * (hidden_BH - candidate_BH)}


def pack_cell(kind: str, rnn: nn.RNNBase, layer: int) -> PackedCell:
    """The weights of one layer of a torch recurrent module, side by side for single steps."""
    weight_GI, weight_GH, bias_ih_G, bias_hh_G = (
        getattr(rnn, f"{name}_l{layer}").detach() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    if kind != "gru":
        return PackedCell(kind, torch.cat([weight_GI, weight_GH], dim=1).T.contiguous(), bias_ih_G + bias_hh_G)
    # The GRU's candidate keeps input and hidden parts apart, because the reset gate scales only the latter:
    #              reset   update   from_input   from_hidden
    #     x        W_r     W_z      W_n          0
    #     h        U_r     U_z      0            U_n
    hidden_size = rnn.hidden_size
    gates = 2 * hidden_size
    weight_XG = weight_GI.new_zeros(weight_GI.shape[1] + hidden_size, 4 * hidden_size)
    weight_XG[:-hidden_size, : gates + hidden_size] = weight_GI.T
    weight_XG[-hidden_size:, :gates] = weight_GH[:gates].T
    weight_XG[-hidden_size:, gates + hidden_size :] = weight_GH[gates:].T
    bias_G = torch.cat([bias_ih_G[:gates] + bias_hh_G[:gates], bias_ih_G[gates:], bias_hh_G[gates:]])
    return PackedCell(kind, weight_XG, bias_G)
