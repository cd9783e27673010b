"""Two layers of one kind, one for each direction of time. Knows nothing of their equations: any recurrence will do.

Shape letters: B clips, T frames, I input size, H hidden size of each.
"""

import torch
from torch import Tensor

from vidseq.cells.layer import Layer, Memory, Recurrence


class BothWays(Layer):
    """What both say of a frame, side by side: one has seen all up to it, one all from it on. It cannot stream."""

    def __init__(self, forwards: Recurrence, backwards: Recurrence) -> None:
        super().__init__(output_size=forwards.output_size + backwards.output_size)
        self.forwards = forwards
        self.backwards = backwards

    def start(self, batch: int) -> Memory:
        """Nothing is remembered from one video to the next, and there is only one chunk of each."""
        return {}

    def forward(self, input_BTI: Tensor, memory: Memory, lengths_B: Tensor | None) -> tuple[Tensor, Memory]:
        assert not memory, "a bidirectional layer was given a memory"
        batch = len(input_BTI)
        # Padding lies behind each row's frames in both directions, and what is remembered after it is not used.
        forwards_BTH, _ = self.forwards(input_BTI, self.forwards.start(batch), None)
        backwards_BTH, _ = self.backwards(_reversed(input_BTI, lengths_B), self.backwards.start(batch), None)
        return torch.cat([forwards_BTH, _reversed(backwards_BTH, lengths_B)], dim=2), {}

    def recurrent_weights(self) -> dict[str, Tensor]:
        return {
            f"{direction} {gate}": weight_HH
            for direction, layer in (("forwards", self.forwards), ("backwards", self.backwards))
            for gate, weight_HH in layer.recurrent_weights().items()
        }


def _reversed(input_BTI: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Each row's valid frames from the last to the first; what pads them stays behind them."""
    if lengths_B is None:
        return input_BTI.flip(1)
    frame_T = torch.arange(input_BTI.shape[1], device=input_BTI.device)
    from_end_BT = lengths_B.to(input_BTI.device)[:, None] - 1 - frame_T
    order_BT = torch.where(from_end_BT >= 0, from_end_BT, frame_T)
    return input_BTI[torch.arange(len(input_BTI), device=input_BTI.device)[:, None], order_BT]
