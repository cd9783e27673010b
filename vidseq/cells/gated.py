"""Gated recurrences that torch has no kernel for: Cho's GRU, MUT1, MUT2, MUT3. Knows nothing of other layers or states.

All four let a reset gate act on the hidden state before its product, and an update gate choose between what was and
what is new. With sigma for the logistic function, * elementwise, W for weights of the input and U of the hidden state:

    Cho    r = sigma(W x + U h + b)    z = sigma(W x + U h + b)         n = tanh(W x + U (r * h) + b)
    MUT1   r = sigma(W x + U h + b)    z = sigma(W x + b)               n = tanh(tanh(x) + U (r * h) + b)
    MUT2   r = sigma(  x + U h + b)    z = sigma(W x + U h + b)         n = tanh(W x + U (r * h) + b)
    MUT3   r = sigma(W x + U h + b)    z = sigma(W x + U tanh(h) + b)   n = tanh(W x + U (r * h) + b)

    Cho    h' = z * h + (1 - z) * n                                     (arxiv:1406.1078, equations 5 to 8)
    MUT    h' = z * n + (1 - z) * h                                     (Jozefowicz 2015, section 3.3)

Every W, U and b is another one. Cho leaves biases out to save space; they are here. MUT1 and MUT2 add the bare input
to something of the hidden state's size: where the sizes differ, it goes through a matrix without a bias first.

Shape letters: B streams, T frames, I input size, H hidden size.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from vidseq.cells.layer import Memory, Recurrence, last


class Gated(Recurrence):
    """The loop over frames. What the input says to r, z and n is computed for all frames at once, before it."""

    def __init__(self, *, hidden_size: int, learned_start: bool) -> None:
        super().__init__(hidden_size=hidden_size, learned_start=learned_start)
        self.reset = nn.Linear(hidden_size, hidden_size, bias=False)
        self.candidate = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, input_BTI: Tensor, memory: Memory, lengths_B: Tensor | None) -> tuple[Tensor, Memory]:
        from_input = (gate_TBH.unbind() for gate_TBH in self.gates(input_BTI.transpose(0, 1)))
        hidden_BH, hidden = memory["h"], []
        for gate_BH in zip(*from_input, strict=True):
            hidden_BH = self.step(hidden_BH, *gate_BH)
            hidden.append(hidden_BH)
        hidden_BTH = torch.stack(hidden, dim=1)
        return hidden_BTH, {"h": last(hidden_BTH, lengths_B)}

    @abstractmethod
    def gates(self, input_TBI: Tensor) -> tuple[Tensor, ...]:
        """What the input says to r, z and n, each TBH."""

    @abstractmethod
    def step(self, hidden_BH: Tensor, reset_BH: Tensor, update_BH: Tensor, candidate_BH: Tensor) -> Tensor:
        """h' from h and what the input of one frame says to r, z and n."""

    def new(self, hidden_BH: Tensor, reset_BH: Tensor, candidate_BH: Tensor) -> Tensor:
        """n, in which all four agree."""
        reset_BH = torch.sigmoid(reset_BH + self.reset(hidden_BH))
        return torch.tanh(candidate_BH + self.candidate(reset_BH * hidden_BH))

    def recurrent_weights(self) -> dict[str, Tensor]:
        return {
            gate: self.get_parameter(f"{gate}.weight")
            for gate in ("reset", "update", "candidate")
            if hasattr(self, gate)
        }


class Cho(Gated):
    """The GRU as it was published."""

    def __init__(self, input_size: int, hidden_size: int, *, learned_start: bool) -> None:
        super().__init__(hidden_size=hidden_size, learned_start=learned_start)
        self.from_input = nn.Linear(input_size, 3 * hidden_size)
        self.update = nn.Linear(hidden_size, hidden_size, bias=False)

    def gates(self, input_TBI: Tensor) -> tuple[Tensor, ...]:
        from_input_TBG: Tensor = self.from_input(input_TBI)
        return from_input_TBG.chunk(3, dim=2)

    def step(self, hidden_BH: Tensor, reset_BH: Tensor, update_BH: Tensor, candidate_BH: Tensor) -> Tensor:
        update_BH = torch.sigmoid(update_BH + self.update(hidden_BH))
        return torch.lerp(self.new(hidden_BH, reset_BH, candidate_BH), hidden_BH, update_BH)


class Mut1(Gated):
    """The update gate never sees the hidden state."""

    def __init__(self, input_size: int, hidden_size: int, *, learned_start: bool) -> None:
        super().__init__(hidden_size=hidden_size, learned_start=learned_start)
        self.from_input = nn.Linear(input_size, 2 * hidden_size)
        self.bare_input = _of_size(input_size, hidden_size)
        self.candidate_bias_H = nn.Parameter(torch.zeros(hidden_size))

    def gates(self, input_TBI: Tensor) -> tuple[Tensor, ...]:
        reset_TBH, update_TBH = self.from_input(input_TBI).chunk(2, dim=2)
        return reset_TBH, torch.sigmoid(update_TBH), torch.tanh(self.bare_input(input_TBI)) + self.candidate_bias_H

    def step(self, hidden_BH: Tensor, reset_BH: Tensor, update_BH: Tensor, candidate_BH: Tensor) -> Tensor:
        return torch.lerp(hidden_BH, self.new(hidden_BH, reset_BH, candidate_BH), update_BH)


class Mut2(Gated):
    """The reset gate sees the bare input."""

    def __init__(self, input_size: int, hidden_size: int, *, learned_start: bool) -> None:
        super().__init__(hidden_size=hidden_size, learned_start=learned_start)
        self.from_input = nn.Linear(input_size, 2 * hidden_size)
        self.bare_input = _of_size(input_size, hidden_size)
        self.reset_bias_H = nn.Parameter(torch.zeros(hidden_size))
        self.update = nn.Linear(hidden_size, hidden_size, bias=False)

    def gates(self, input_TBI: Tensor) -> tuple[Tensor, ...]:
        return self.bare_input(input_TBI) + self.reset_bias_H, *self.from_input(input_TBI).chunk(2, dim=2)

    def step(self, hidden_BH: Tensor, reset_BH: Tensor, update_BH: Tensor, candidate_BH: Tensor) -> Tensor:
        update_BH = torch.sigmoid(update_BH + self.update(hidden_BH))
        return torch.lerp(hidden_BH, self.new(hidden_BH, reset_BH, candidate_BH), update_BH)


class Mut3(Gated):
    """The update gate sees the hidden state through a tanh."""

    def __init__(self, input_size: int, hidden_size: int, *, learned_start: bool) -> None:
        super().__init__(hidden_size=hidden_size, learned_start=learned_start)
        self.from_input = nn.Linear(input_size, 3 * hidden_size)
        self.update = nn.Linear(hidden_size, hidden_size, bias=False)

    def gates(self, input_TBI: Tensor) -> tuple[Tensor, ...]:
        from_input_TBG: Tensor = self.from_input(input_TBI)
        return from_input_TBG.chunk(3, dim=2)

    def step(self, hidden_BH: Tensor, reset_BH: Tensor, update_BH: Tensor, candidate_BH: Tensor) -> Tensor:
        update_BH = torch.sigmoid(update_BH + self.update(torch.tanh(hidden_BH)))
        return torch.lerp(hidden_BH, self.new(hidden_BH, reset_BH, candidate_BH), update_BH)


def _of_size(input_size: int, hidden_size: int) -> nn.Module:
    """The input itself, where it can be added to a hidden state."""
    return nn.Identity() if input_size == hidden_size else nn.Linear(input_size, hidden_size, bias=False)
