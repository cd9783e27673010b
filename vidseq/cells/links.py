"""What connects a layer's output with its input, so that deep stacks can be trained. Knows nothing of time.

    plain       y = h
    residual    y = h + x                                            (arxiv:1512.03385)
    highway     y = T * h + (1 - T) * x,   T = sigma(W x + b)        (Srivastava 2015, arxiv:1505.00387)

Where x and h differ in size, x goes through a matrix first.

Shape letters: B streams, T frames, I size of a layer's input, H of its output.
"""

import torch
from torch import Tensor, nn

from vidseq.config import BetweenLayers

CARRY_BIAS = -1.0  # of a highway's gate: it starts by carrying most of x, as its authors advise


class Link(nn.Module):
    """y_BTH from x_BTI, the input of a layer, and h_BTH, its output. The plain kind has no weights."""

    def __init__(self, kind: BetweenLayers, *, input_size: int, output_size: int) -> None:
        super().__init__()
        self.carried: nn.Module | None = None
        self.gate: nn.Linear | None = None
        if kind != "plain":
            same = input_size == output_size
            self.carried = nn.Identity() if same else nn.Linear(input_size, output_size, bias=False)
        if kind == "highway":
            self.gate = nn.Linear(input_size, output_size)
            nn.init.constant_(self.gate.bias, CARRY_BIAS)

    def forward(self, input_BTI: Tensor, hidden_BTH: Tensor) -> Tensor:
        if self.carried is None:
            return hidden_BTH
        carried_BTH: Tensor = self.carried(input_BTI)
        if self.gate is None:
            return hidden_BTH + carried_BTH
        return torch.lerp(carried_BTH, hidden_BTH, torch.sigmoid(self.gate(input_BTI)))
