"""Rivals of recurrences that see a window of the past: convolution and attention. Knows nothing of other layers.

Their memory is the last inputs, as many as the window reaches back; what has left it is forgotten for good:

    conv        kernel 3, dilation d        t-2d . . . t-d . . . t             2 d inputs are kept
    attention   window of W frames          t-W+1 . . . . . . .  t             W - 1 inputs are kept

A convolution here is a linear layer on three frames side by side (arxiv:1803.01271 has the causal, dilated kind).

Shape letters: B streams, T frames, U frames with those that were kept, W window, S frames of a block, N blocks,
I input size, H hidden size, K attention heads, C channels of one, U frames that a block sees.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidseq.cells.layer import Layer, Memory
from vidseq.config import ATTENTION_HEADS


class Conv(Layer):
    """h_t = relu(W_2 x_(t-2d) + W_1 x_(t-d) + W_0 x_t + b); frames before the first are zero.

    Memory: inputs_BUI, the last 2 d.
    """

    def __init__(self, input_size: int, hidden_size: int, *, dilation: int) -> None:
        super().__init__(output_size=hidden_size)
        self.input_size = input_size
        self.dilation = dilation
        self.taps = nn.Linear(3 * input_size, hidden_size)

    def start(self, batch: int) -> Memory:
        return {"inputs": self.taps.weight.new_zeros(batch, 2 * self.dilation, self.input_size)}

    def forward(self, input_BTI: Tensor, memory: Memory, lengths_B: Tensor | None) -> tuple[Tensor, Memory]:
        inputs_BUI = torch.cat([memory["inputs"], input_BTI], dim=1)
        frames = input_BTI.shape[1]
        shifted = [inputs_BUI[:, back : back + frames] for back in (0, self.dilation, 2 * self.dilation)]
        hidden_BTH = torch.relu(self.taps(torch.cat(shifted, dim=2)))
        return hidden_BTH, {"inputs": _kept(inputs_BUI, 2 * self.dilation, lengths_B)}


class Attention(Layer):
    """h_t = relu(W x_t + b + V sum_j a_tj v_j), with a_tj the softmax of q_t . k_j / sqrt(C) + bias of t - j.

    q, k and v are linear in x and split into four heads. Each head has one learned bias a distance, as in
    arxiv:1910.10683, so that a key does not depend on where its frame stands.

    Memory: inputs_BUI, the last W - 1, and weight_BU: 1 for a frame that was, 0 for one before the first; between
    gaps of time it fades, and a frame then takes part in the softmax by its weight.
    """

    def __init__(self, input_size: int, hidden_size: int, *, window_frames: int) -> None:
        super().__init__(output_size=hidden_size)
        self.input_size = input_size
        self.window_frames = window_frames
        self.own = nn.Linear(input_size, hidden_size)
        self.query = nn.Linear(input_size, hidden_size, bias=False)
        self.key_value = nn.Linear(input_size, 2 * hidden_size, bias=False)
        self.attended = nn.Linear(hidden_size, hidden_size, bias=False)
        self.bias_KW = nn.Parameter(torch.zeros(ATTENTION_HEADS, window_frames))  # [:, w] of the frame w back

    def start(self, batch: int) -> Memory:
        zeros_BU = self.bias_KW.new_zeros(batch, self.window_frames - 1)
        return {"inputs": zeros_BU[:, :, None].repeat(1, 1, self.input_size), "weight": zeros_BU}

    def faded(self, memory: Memory, factor: float) -> Memory:
        """Earlier frames count less beside those to come; what they showed stays as it was."""
        return {**memory, "weight": factor * memory["weight"]}

    def forward(self, input_BTI: Tensor, memory: Memory, lengths_B: Tensor | None) -> tuple[Tensor, Memory]:
        inputs_BUI = torch.cat([memory["inputs"], input_BTI], dim=1)
        weight_BU = torch.cat([memory["weight"], input_BTI.new_ones(input_BTI.shape[:2])], dim=1)
        attended_BTH = self._attend(input_BTI, inputs_BUI, weight_BU)
        hidden_BTH = torch.relu(self.own(input_BTI) + self.attended(attended_BTH))
        kept_frames = self.window_frames - 1
        return hidden_BTH, {
            "inputs": _kept(inputs_BUI, kept_frames, lengths_B),
            "weight": _kept(weight_BU, kept_frames, lengths_B),
        }

    def _attend(self, input_BTI: Tensor, inputs_BUI: Tensor, weight_BU: Tensor) -> Tensor:
        """In blocks of S frames, each beside the S + W - 1 that it sees: memory grows with T, not with its square."""
        frames = input_BTI.shape[1]
        block = min(frames, self.window_frames)
        missing = -frames % block
        query_BTH = functional.pad(self.query(input_BTI), (0, 0, 0, missing))
        key_value_BUH = functional.pad(self.key_value(inputs_BUI), (0, 0, 0, missing))
        weight_BU = functional.pad(weight_BU, (0, missing), value=1.0)
        seen = block + self.window_frames - 1
        query_BNKSC = query_BTH.unflatten(2, (ATTENTION_HEADS, -1)).unflatten(1, (-1, block)).transpose(2, 3)
        windows_BNKCU = key_value_BUH.unfold(1, seen, block).unflatten(2, (2 * ATTENTION_HEADS, -1))
        key_BNKUC, value_BNKUC = windows_BNKCU.transpose(3, 4).chunk(2, dim=2)
        log_weight_BNU = weight_BU.log().unfold(1, seen, block)
        mask_BNKSU = self._band_KSU(block, seen) + log_weight_BNU[:, :, None, None]
        attended_BNKSC = functional.scaled_dot_product_attention(
            query_BNKSC, key_BNKUC, value_BNKUC, attn_mask=mask_BNKSU
        )
        return attended_BNKSC.transpose(2, 3).flatten(3).flatten(1, 2)[:, :frames]

    def _band_KSU(self, block: int, seen: int) -> Tensor:
        """The bias of each distance; -inf for frames that are still to come, or have left the window."""
        frame_S = torch.arange(block, device=self.bias_KW.device) + self.window_frames - 1
        back_SU = frame_S[:, None] - torch.arange(seen, device=self.bias_KW.device)
        outside_SU = (back_SU < 0) | (back_SU >= self.window_frames)
        return self.bias_KW[:, back_SU.clamp(0, self.window_frames - 1)].masked_fill(outside_SU, -math.inf)


def _kept(inputs_BU: Tensor, num_kept: int, lengths_B: Tensor | None) -> Tensor:
    """A copy of the last `num_kept` up to each row's last frame; as many, that were kept, lie before the first."""
    if lengths_B is None:
        return inputs_BU[:, inputs_BU.shape[1] - num_kept :].clone()
    lengths_B = lengths_B.to(inputs_BU.device)
    rows_B1 = torch.arange(len(lengths_B), device=inputs_BU.device)[:, None]
    return inputs_BU[rows_B1, lengths_B[:, None] + torch.arange(num_kept, device=inputs_BU.device)]
