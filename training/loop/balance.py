"""Labels of which there are few: what their rarity changes in the loss, or in what is drawn. Knows nothing of models.

Shape letters: N clips, K labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.example import Example
from training.data.targets import IGNORED
from vidseq.errors import OptionError

Way = Literal["none", "weights", "logits"]


@dataclass(frozen=True, eq=False)
class Balance:
    """For one head, in its loss: the weight of each label, and what is added to its logit; None changes nothing.

    Where several labels may be true, the weight is that of "true" against "not true" of the same label.
    """

    weight_K: Tensor | None = None
    shift_K: Tensor | None = None

    @classmethod
    def of(cls, count_K: Tensor, *, num: int, several: bool, way: Way) -> "Balance":
        """From how often each label is true among `num` that have been labelled.

        The weights of all that is labelled have a mean of 1, so that the loss keeps its scale. A label that never
        occurs has weight 1, and the share of half an example.
        """
        if way == "none" or not num:
            return cls()
        seen_K, count_K = count_K > 0, count_K.clamp(min=0.5)
        rest_K = (num - count_K).clamp(min=0.5)
        if way == "weights":
            weight_K = rest_K / count_K if several else num / (seen_K.sum() * count_K)
            return cls(weight_K=torch.where(seen_K, weight_K, 1.0))
        return cls(shift_K=torch.log(count_K / rest_K) if several else torch.log(count_K / num))


def action_balance(examples: Sequence[Example], *, several: bool, way: Way) -> Balance:
    """Of the action head: each clip that has been labelled counts once."""
    targets = [example.action_target_A for example in examples if example.action_target_A is not None]
    if not targets:
        return Balance()
    return Balance.of(torch.stack(targets).sum(dim=0), num=len(targets), several=several, way=way)


def frame_balance(examples: Sequence[Example], *, num_labels: int, way: Way) -> Balance:
    """Of the frame head: each frame that has a label counts once."""
    target_N = torch.cat([example.frame_target_T[example.frame_target_T != IGNORED] for example in examples])
    count_K = torch.bincount(target_N, minlength=num_labels).float()
    return Balance.of(count_K, num=len(target_N), several=False, way=way)


def drawing_shares(action_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """With which probability each clip is drawn, so that each action comes as often as the others.

    Clips without an action are drawn as often as without balance.

    Raises:
        OptionError: no clip has an action.
    """
    known_N = action_N != IGNORED
    if not known_N.any():
        raise OptionError(
            "class_balance 'sampling' draws clips by their action, and no clip has one: choose 'weights' or 'logits'"
        )
    count_K = np.bincount(action_N[known_N])
    num_actions = np.count_nonzero(count_K)
    share_N: NDArray[np.float64] = np.full(len(action_N), 1 / len(action_N))
    share_N[known_N] = known_N.mean() / num_actions / count_K[action_N[known_N]]
    return share_N
