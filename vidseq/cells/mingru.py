"""minGRU, whose gates never see the hidden state, so that all frames are computed at once. Knows nothing of states.

    z = sigma(W x + b)    n = W x + b    h' = (1 - z) * h + z * n                 (arxiv:2410.01201, in linear space)

Given z and n of all frames this is h' = decay * h + drive, and two frames in a row are one of the same form:

    decay_1 * (decay_0 * h + drive_0) + drive_1  =  (decay_1 decay_0) * h + (decay_1 drive_0 + drive_1)

So pairs of frames are joined until one is left, and the answers are handed back down (Blelloch 1990):

    frames        0     1     2     3     4     5     6     7
    joined            0-1         2-3         4-5         6-7         half as many, and so on: 2 T products in all
    known then        h_1         h_3         h_5         h_7         from the half
    the others  h_0         h_2         h_4         h_6               each one step from the one before it

Shape letters: B streams, T frames, I input size, H hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vidseq.cells.layer import Memory, Recurrence, last, lengths_tensor


class MinGru(Recurrence):
    """A GRU cut down to what a parallel scan can compute."""

    def __init__(self, input_size: int, hidden_size: int, *, learned_start: bool) -> None:
        super().__init__(hidden_size=hidden_size, learned_start=learned_start)
        self.from_input = nn.Linear(input_size, 2 * hidden_size)

    def forward(self, input_BTI: Tensor, memory: Memory, lengths_B: Tensor | None) -> tuple[Tensor, Memory]:
        hidden_TBH: Tensor = ParallelScan.apply(*self.decay_and_drive(input_BTI), memory["h"])
        hidden_BTH = hidden_TBH.transpose(0, 1)
        return hidden_BTH, {"h": last(hidden_BTH, lengths_B)}

    def steps(self, input_BTI: Tensor, memory: Memory, lengths: Sequence[int]) -> tuple[Tensor, Memory]:
        hidden_BTH = loop(*self.decay_and_drive(input_BTI), memory["h"]).transpose(0, 1)
        return hidden_BTH, {"h": last(hidden_BTH, lengths_tensor(lengths))}

    def decay_and_drive(self, input_BTI: Tensor) -> tuple[Tensor, Tensor]:
        """1 - z and z * n of all frames, each TBH."""
        update_TBH, new_TBH = self.from_input(input_BTI.transpose(0, 1)).chunk(2, dim=2)
        update_TBH = torch.sigmoid(update_TBH)
        return 1 - update_TBH, update_TBH * new_TBH


def loop(decay_TBH: Tensor, drive_TBH: Tensor, hidden_BH: Tensor) -> Tensor:
    """hidden_TBH of h' = decay * h + drive, one frame after the other, from h before the first."""
    hidden = []
    for decay_BH, drive_BH in zip(decay_TBH.unbind(), drive_TBH.unbind(), strict=True):
        hidden_BH = torch.addcmul(drive_BH, decay_BH, hidden_BH)
        hidden.append(hidden_BH)
    return torch.stack(hidden)


def scan(decay_TBH: Tensor, drive_TBH: Tensor, hidden_BH: Tensor) -> Tensor:
    """What `loop` returns, in 2 log2(T) steps over all frames that are left: the drawing above, without gradients."""
    if len(decay_TBH) == 1:
        return torch.addcmul(drive_TBH, decay_TBH, hidden_BH)
    num_pairs = len(decay_TBH) // 2
    earlier, later = slice(0, 2 * num_pairs, 2), slice(1, 2 * num_pairs, 2)
    known_TBH = scan(
        decay_TBH[later] * decay_TBH[earlier],
        torch.addcmul(drive_TBH[later], decay_TBH[later], drive_TBH[earlier]),
        hidden_BH,
    )
    before_TBH = torch.cat([hidden_BH[None], known_TBH])[: len(decay_TBH) - num_pairs]
    hidden_TBH = torch.empty_like(drive_TBH)
    hidden_TBH[1::2] = known_TBH
    hidden_TBH[::2] = torch.addcmul(drive_TBH[::2], decay_TBH[::2], before_TBH)
    return hidden_TBH


class ParallelScan(torch.autograd.Function):
    """`scan` with its gradient, which is a scan too, from the last frame to the first.

    With g_t the gradient of the loss with respect to drive_t, and what each hidden state does later counted in:

        g_t = decay_(t+1) * g_(t+1) + dloss/dh_t        dloss/ddecay_t = g_t * h_(t-1)
    """

    @staticmethod
    def forward(ctx: Any, decay_TBH: Tensor, drive_TBH: Tensor, hidden_BH: Tensor) -> Tensor:
        hidden_TBH = scan(decay_TBH, drive_TBH, hidden_BH)
        ctx.save_for_backward(decay_TBH, hidden_BH, hidden_TBH)
        return hidden_TBH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay_TBH, hidden_BH, hidden_TBH = ctx.saved_tensors
        none_BH = torch.zeros_like(hidden_BH)
        backwards_TBH = torch.cat([none_BH[None], decay_TBH[1:].flip(0)])
        drive_gradient_TBH = scan(backwards_TBH, gradient_TBH.flip(0), none_BH).flip(0)
        before_TBH = torch.cat([hidden_BH[None], hidden_TBH[:-1]])
        return drive_gradient_TBH * before_TBH, drive_gradient_TBH, drive_gradient_TBH[0] * decay_TBH[0]
