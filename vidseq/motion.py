"""What changed since the frame before, as features beside those of the frame itself. Knows nothing of pixels or CNNs.

Each frame comes encoded as one row: its pooled feature, and its maps (where in the picture what was seen), reduced so
that a stream can afford to remember the row of its last frame:

    encoded_E = [ pooled_F | map_CGG | map_CGG ]              C channels over a grid of G x G positions
    d_CGG     = map_CGG - map_CGG of the frame before         0 at the first frame, and then the flag is 0

    mean      the mean of |d| over positions                  how much each channel changed
    max       its maximum over positions                      how much where it changed most
    weighted  the map's mean over positions, each with weight sum_C d^2: what is seen where something moves

    feature_D = [ pooled_F | difference of pooled_F | of each map: mean, max, weighted | flag ]

`signed` keeps d where `absolute` takes |d|: the maximum is then the value that lies farthest from 0; `both` has both.
Differences of features instead of pixels, for a recurrent network on surveillance clips: arxiv:1709.06531.

Shape letters: B streams, T frames, E encoded size, F pooled size, M map size (C x G x G), C channels, G grid, D feature
size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseq.config import MotionConfig
from vidseq.state import State

PREFIX = "motion"
# A weight for every position, so that the mean of a map in which nothing moves is the plain one.
_REST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Motion:
    """From the encoded frames of streams to their features, frame after frame; it has no weights.

    Args:
        config: which differences.
        pooled_size: F.
        channels: C of each map, in the order of `config.maps`.
    """

    config: MotionConfig
    pooled_size: int
    channels: tuple[int, ...]

    @property
    def map_sizes(self) -> tuple[int, ...]:
        """M of each map."""
        return tuple(channels * self.config.grid**2 for channels in self.channels)

    @property
    def encoded_size(self) -> int:
        return self.pooled_size + sum(self.map_sizes)

    @property
    def feature_size(self) -> int:
        signs = 2 if self.config.sign == "both" else 1
        of_pooled = signs * self.pooled_size if self.config.pooled else 0
        a_channel = sum(1 if name == "weighted" else signs for name in self.config.over)
        return self.pooled_size + of_pooled + a_channel * sum(self.channels) + 1

    def start(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """What `batch` streams remember before their first frame. Half precision: see `Encoder`."""
        remembered_size = self.encoded_size if self.config.pooled else sum(self.map_sizes)
        return {
            "previous": like.new_zeros(batch, remembered_size, dtype=torch.float16),
            "seen": like.new_zeros(batch, dtype=torch.uint8),
        }

    def faded(self, memory: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
        """After a gap in time: a frame is compared with the last one before it, unless all shall be forgotten."""
        return memory if factor else {name: torch.zeros_like(tensor) for name, tensor in memory.items()}

    def __call__(
        self, encoded_BTE: Tensor, state: State | None = None, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, State]:
        """feature_BTD, and the state after each row's own last frame.

        Args:
            encoded_BTE: rows shorter than T are padded at the end with anything.
            state: None at the start of the videos.
            lengths: valid frames of each row; None says that all have T.
        """
        state = state or State()
        memory = state.part(PREFIX) or self.start(len(encoded_BTE), encoded_BTE)
        size = memory["previous"].shape[1]
        own_BTM = encoded_BTE[:, :, -size:]
        before_BTM = torch.cat([memory["previous"].to(own_BTM)[:, None], own_BTM[:, :-1]], dim=1)
        seen_BT = torch.ones_like(encoded_BTE[:, :, 0])
        seen_BT[:, 0] = memory["seen"].to(encoded_BTE)
        change_BTM = (own_BTM - before_BTM) * seen_BT[:, :, None]
        feature_BTD = torch.cat([self._features(encoded_BTE, change_BTM), seen_BT[:, :, None]], dim=2)
        return feature_BTD, state.replace(_after(own_BTM, lengths), prefix=PREFIX)

    def _features(self, encoded_BTE: Tensor, change_BTM: Tensor) -> Tensor:
        pooled_BTF = encoded_BTE[:, :, : self.pooled_size]
        parts = [pooled_BTF]
        if self.config.pooled:
            parts += _signed(change_BTM[:, :, : self.pooled_size], self.config.sign)
        sizes = self.map_sizes
        maps = encoded_BTE[:, :, self.pooled_size :].split(sizes, dim=2)
        changes = change_BTM[:, :, change_BTM.shape[2] - sum(sizes) :].split(sizes, dim=2)
        for map_BTM, of_map_BTM, channels in zip(maps, changes, self.channels, strict=True):
            shape = (channels, self.config.grid**2)
            parts += self._of_map(map_BTM.unflatten(2, shape), of_map_BTM.unflatten(2, shape))
        return torch.cat(parts, dim=2)

    def _of_map(self, map_BTCP: Tensor, change_BTCP: Tensor) -> list[Tensor]:
        """The summaries over positions P that `config.over` names."""
        sign, parts = self.config.sign, []
        if "mean" in self.config.over:
            parts += [change_BTCP.mean(dim=3)] * (sign != "absolute") + [change_BTCP.abs().mean(dim=3)] * (
                sign != "signed"
            )
        if "max" in self.config.over:
            farthest_BTC = change_BTCP.gather(3, change_BTCP.abs().argmax(dim=3, keepdim=True)).squeeze(3)
            parts += _signed(farthest_BTC, sign)
        if "weighted" in self.config.over:
            weight_BTP = change_BTCP.square().sum(dim=2) + _REST_WEIGHT
            weight_BTP = weight_BTP / weight_BTP.sum(dim=2, keepdim=True)
            parts.append((map_BTCP * weight_BTP[:, :, None]).sum(dim=3))
        return parts


def _signed(change: Tensor, sign: str) -> list[Tensor]:
    return [change] * (sign != "absolute") + [change.abs()] * (sign != "signed")


def _after(own_BTM: Tensor, lengths: Sequence[int] | None) -> dict[str, Tensor]:
    """What is remembered of each row's last frame."""
    rows = range(len(own_BTM))
    last = [-1] * len(own_BTM) if lengths is None else [length - 1 for length in lengths]
    previous_BM = own_BTM[list(rows), last].half()
    return {"previous": previous_BM, "seen": torch.ones(len(own_BTM), dtype=torch.uint8, device=own_BTM.device)}
