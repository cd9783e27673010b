"""What every kind of layer is: features and a memory go in, hidden states and the memory after them come out.

Knows nothing of the equations, of other layers or of states.

Two ways lead through the same weights and agree within 1e-5 in float32: `forward` for whole sequences, also in
training, `steps` for a few frames of many streams without gradients. A memory is a value: nothing is kept in the layer,
none of the tensors that went in is changed, and a memory that went in may require gradients.

Shape letters: B streams, T frames, I input size, H hidden size.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Memory = dict[str, Tensor]  # of one layer, batch first; every layer says which tensors


class Layer(nn.Module, ABC):
    """One layer of a recurrence, or of a rival of recurrences."""

    def __init__(self, *, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size

    @abstractmethod
    def start(self, batch: int) -> Memory:
        """The memory of `batch` streams before their first frame; empty if the layer does not stream."""

    @abstractmethod
    def forward(self, input_BTI: Tensor, memory: Memory, lengths_B: Tensor | None) -> tuple[Tensor, Memory]:
        """Hidden states of whole sequences, and the memory after each row's own last frame.

        Args:
            input_BTI: at least one frame; rows shorter than T are padded at the end.
            memory: what the chunk before returned, or `start`.
            lengths_B: valid frames of each row, 1 to T; None says that all have T.

        Returns:
            hidden_BTH, which means nothing beyond a row's length; the memory after it.
        """

    def steps(self, input_BTI: Tensor, memory: Memory, lengths: Sequence[int]) -> tuple[Tensor, Memory]:
        """What `forward` returns, by the way that is fastest for few frames. For use without gradients.

        Args:
            lengths: valid frames of each row, longest first.
        """
        result: tuple[Tensor, Memory] = self(input_BTI, memory, lengths_tensor(lengths))
        return result

    def faded(self, memory: Memory, factor: float) -> Memory:
        """The memory after a gap in time: at 1 what it was, at 0 as good as the start, by products in between."""
        start = {name: tensor.to(memory[name].device) for name, tensor in self.start(1).items()}
        return {name: torch.lerp(start[name].expand_as(tensor), tensor, factor) for name, tensor in memory.items()}

    def recurrent_weights(self) -> dict[str, Tensor]:
        """weight_HH by gate: how one hidden state enters the next. Empty where no matrix lies on the way back."""
        return {}


class Recurrence(Layer):
    """A layer whose memory is hidden states, such as h_BH; they start at zero, or where training has put them."""

    def __init__(self, *, hidden_size: int, learned_start: bool, names: tuple[str, ...] = ("h",)) -> None:
        super().__init__(output_size=hidden_size)
        self.names = names
        for name in names:
            zeros_H = torch.zeros(hidden_size)
            if learned_start:
                self.register_parameter(f"start_{name}", nn.Parameter(zeros_H))
            else:
                self.register_buffer(f"start_{name}", zeros_H, persistent=False)

    def start(self, batch: int) -> Memory:
        return {name: getattr(self, f"start_{name}").repeat(batch, 1) for name in self.names}


def lengths_tensor(lengths: Sequence[int]) -> Tensor | None:
    """lengths_B of rows that come longest first, None where all are equal."""
    return None if lengths[0] == lengths[-1] else torch.tensor(lengths)


def last(hidden_BTH: Tensor, lengths_B: Tensor | None) -> Tensor:
    """hidden_BH of each row's last frame, a copy: a stream's memory must not keep all frames alive."""
    if lengths_B is None:
        return hidden_BTH[:, -1].clone()
    lengths_B = lengths_B.to(hidden_BTH.device)
    return hidden_BTH[torch.arange(len(lengths_B), device=hidden_BTH.device), lengths_B - 1]
