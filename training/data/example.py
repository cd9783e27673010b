"""One clip as the training loop sees it: what goes in and what should come out. Knows nothing of clips or of models.

Shape letters: T frames, D feature size, A action labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.data.targets import IGNORED


@dataclass(frozen=True, eq=False)
class Example:
    """Features of a clip's sampled frames and their targets.

    `action_target_A`, float32, is 1 for each action that the clip shows and 0 for the others: one of them, or any
    number where a model says several; None where nobody has said. `frame_target_T`, int64, are label indices of the
    frames themselves, `IGNORED` where there is none: with a lookahead the loop delays them.

    `draw` is another way to see the whole clip, drawn anew each time that it is learnt from: see training.data.views.
    `reorder` makes the features of frames that are shown in another order, from their indices order_T; None where each
    feature is that of one frame, so that picking them is enough.
    """

    feature_TD: Tensor
    action_target_A: Tensor | None
    frame_target_T: Tensor
    reorder: Callable[[Tensor], Tensor] | None = None
    draw: Callable[[np.random.Generator], "Example"] | None = None

    @property
    def num_frames(self) -> int:
        return len(self.feature_TD)

    @property
    def action_index(self) -> int:
        """The one action of a clip that has one; `IGNORED` without a label."""
        return IGNORED if self.action_target_A is None else int(self.action_target_A.argmax())

    def drawn(self, chance: np.random.Generator) -> "Example":
        """The clip as it is seen this time."""
        return self if self.draw is None else self.draw(chance)

    def unlabelled(self) -> "Example":
        """The clip, of which nothing is asked."""
        return Example(self.feature_TD, None, torch.full_like(self.frame_target_T, IGNORED), self.reorder)

    def cut(self, start: int, stop: int) -> "Example":
        """The frames from `start` up to `stop`, without a copy."""
        frames = slice(start, stop)
        return Example(
            self.feature_TD[frames],
            self.action_target_A,
            self.frame_target_T[frames],
            lambda order_T: self._reordered(order_T + start),
        )

    def rearranged(self, order_T: Tensor) -> "Example":
        """These frames, in this order, some perhaps twice; frame targets follow."""
        return Example(
            self._reordered(order_T),
            self.action_target_A,
            self.frame_target_T[order_T],
            lambda again_T: self._reordered(order_T[again_T]),
        )

    def _reordered(self, order_T: Tensor) -> Tensor:
        return self.feature_TD[order_T] if self.reorder is None else self.reorder(order_T)


def one_hot(index: int, *, num_labels: int) -> Tensor:
    """The target of a clip that shows this action alone, float32[A]; it gives `index` back as `action_index`."""
    target_A = torch.zeros(num_labels)
    target_A[index] = 1.0
    return target_A
