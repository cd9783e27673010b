"""What the hidden states say: one action for the clip so far, and a label for every frame. Knows nothing of pixels.

The action is read from a running weighted mean of the hidden states, so that a stream has a current action at every
frame and the answer for a whole clip is the one at its last frame:

    mean_t = (carry * weight_0 * mean_0 + sum_i W[t, i] * hidden_i) / (carry * weight_0 + sum_i W[t, i])

    readout      W[t, i], i <= t               carry
    last         1 if i == t else 0            0
    mean         decay ** (t - i)              decay ** (t + 1)           decay is 1 unless a half-life is given
    attention    exp(a_i - m_t)                exp(m_0 - m_t)             m_t the largest a so far (online softmax,
                                                                          arxiv:1805.02867)

`statistics` is read from the mean of the hidden states and of their squares, weighted as in `mean`: from their mean and
their standard deviation, which says how much a hidden unit moved (statistics pooling, Snyder 2017).

Shape letters: B streams, T frames, H hidden size, A action labels, L frame labels.
"""

import math

import torch
from torch import Tensor, nn

from vidseq.config import HeadsConfig
from vidseq.state import State

# Under the root of a standard deviation: near 0 its slope is so steep that the rounding of a chunk would show.
_LEAST_VARIANCE = 1e-3
_BLOCK_FRAMES = 64  # W is T x T: long sequences are read block by block, carrying the running mean


class ActionHead(nn.Module):
    """Many to one: logits of the action after every frame; its running mean lives in the state under `prefix`.

    The prefix names the readout, so that what one readout wrote is never taken for another's.
    """

    def __init__(self, config: HeadsConfig, *, hidden_size: int, half_life_frames: float | None) -> None:
        super().__init__()
        self.readout = config.readout
        self.prefix = f"action.{config.readout}"
        self.decay = 1.0 if half_life_frames is None else 0.5 ** (1 / half_life_frames)
        self.query = nn.Linear(hidden_size, 1, bias=False) if config.readout == "attention" else None
        # what is averaged over time; `statistics` gives the linear layer as many numbers, too
        self.averaged_size = hidden_size * (2 if config.readout == "statistics" else 1)
        self.linear = nn.Linear(self.averaged_size, len(config.action_labels))

    def forward(
        self, hidden_BTH: Tensor, state: State | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """action_logits_BTA, where [:, t] is the answer after frame t, and the state after each row's last frame.

        Logits beyond a row's length mean nothing.
        """
        state = state or State()
        if self.readout == "statistics":
            hidden_BTH = torch.cat([hidden_BTH, hidden_BTH.square()], dim=2)
        running = state.part(self.prefix) or self.start(len(hidden_BTH), hidden_BTH)
        if lengths_B is not None:
            lengths_B = lengths_B.to(hidden_BTH.device)
        means_BTH: list[Tensor] = []
        for start in range(0, hidden_BTH.shape[1], _BLOCK_FRAMES):
            block_BTH = hidden_BTH[:, start : start + _BLOCK_FRAMES]
            left_B = None if lengths_B is None else (lengths_B - start).clamp(0, block_BTH.shape[1])
            mean_BTH, running = self._block(block_BTH, running, left_B)
            means_BTH.append(mean_BTH)
        mean_BTH = torch.cat(means_BTH, dim=1)
        if self.readout == "statistics":
            mean_BTH, of_squares_BTH = mean_BTH.chunk(2, dim=2)
            deviation_BTH = (of_squares_BTH - mean_BTH.square()).clamp(min=_LEAST_VARIANCE).sqrt()
            mean_BTH = torch.cat([mean_BTH, deviation_BTH], dim=2)
        return self.linear(mean_BTH), state.replace(running, prefix=self.prefix)

    def start(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """The running values of `batch` streams before their first frame, with the type and device of `like`."""
        return {
            "mean": like.new_zeros(batch, self.averaged_size),
            "weight": like.new_zeros(batch),
            "largest": like.new_full((batch,), -math.inf if self.query is not None else 0.0),
        }

    def faded(self, running: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
        """The running values when all earlier frames count only `factor` times as much beside those to come.

        Attention's weight is in units of exp(largest): there the unit shrinks, so that 0 leaves -inf, as at the start,
        and no later frame underflows beside what has been forgotten.
        """
        if not running or self.query is None:
            return {name: factor * value if name == "weight" else value for name, value in running.items()}
        return {**running, "largest": running["largest"] + (math.log(factor) if factor else -math.inf)}

    def _block(
        self, hidden_BTH: Tensor, running: dict[str, Tensor], lengths_B: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The formula at the top of this file for one block of frames."""
        weights_BTT, carry_BT, largest_BT = self._weights(hidden_BTH, running["largest"])
        carried_BT = carry_BT * running["weight"][:, None]
        total_BT = carried_BT + weights_BTT.sum(dim=2)
        sum_BTH = carried_BT[:, :, None] * running["mean"][:, None] + weights_BTT @ hidden_BTH
        mean_BTH = sum_BTH / total_BT[:, :, None]
        after = {"mean": mean_BTH, "weight": total_BT, "largest": largest_BT}
        if lengths_B is None:
            return mean_BTH, {name: value[:, -1] for name, value in after.items()}
        rows_B, last_B = torch.arange(len(lengths_B), device=lengths_B.device), (lengths_B - 1).clamp(min=0)
        ended_B = lengths_B == 0
        kept = {name: value[rows_B, last_B] for name, value in after.items()}
        return mean_BTH, {
            name: torch.where(ended_B.view(-1, *[1] * (value.dim() - 1)), running[name], value)
            for name, value in kept.items()
        }

    def _weights(self, hidden_BTH: Tensor, largest_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """W_BTT, carry_BT and the largest attention logit so far, by readout."""
        batch, frames, _ = hidden_BTH.shape
        ones_TT = hidden_BTH.new_ones(frames, frames)
        zeros_BT = hidden_BTH.new_zeros(batch, frames)
        if self.readout == "last":
            return torch.eye(frames).to(hidden_BTH).expand(batch, -1, -1), zeros_BT, zeros_BT
        if self.query is not None:
            logit_BT = self.query(hidden_BTH).squeeze(2) / math.sqrt(hidden_BTH.shape[2])
            largest_BT = torch.cummax(torch.cat([largest_B[:, None], logit_BT], dim=1), dim=1).values[:, 1:]
            weights_BTT = torch.exp(logit_BT[:, None, :] - largest_BT[:, :, None]).tril()
            return weights_BTT, torch.exp(largest_B[:, None] - largest_BT), largest_BT
        age_TT = torch.arange(frames)[:, None] - torch.arange(frames)[None, :]
        weights_TT = torch.pow(self.decay * ones_TT, age_TT.clamp(min=0).to(hidden_BTH)).tril()
        carry_T = self.decay ** torch.arange(1, frames + 1).to(hidden_BTH)
        return weights_TT.expand(batch, -1, -1), carry_T.expand(batch, -1), zeros_BT


class FrameHead(nn.Module):
    """Many to many: logits of every frame's label. It remembers nothing."""

    def __init__(self, config: HeadsConfig, *, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, len(config.frame_labels))

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        frame_logits_BTL: Tensor = self.linear(hidden_BTH)
        return frame_logits_BTL
