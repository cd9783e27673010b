"""What the loop makes small: cross-entropies of both heads, each over what has been labelled. Knows nothing of clips.

Shape letters: B rows, T frames, K labels of a head, N of the B x T frames at which a label counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.data.example import Example
from training.loop.balance import Balance, action_balance, frame_balance
from training.loop.chunks import Chunk
from training.settings import FitConfig
from vidseq.config import ModelConfig
from vidseq.model import Scores


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of a model's heads; `several` actions may be true of one clip."""

    several: bool
    label_smoothing: float
    frame_loss_weight: float
    action: Balance
    frame: Balance

    @classmethod
    def learning(cls, examples: Sequence[Example], config: ModelConfig, settings: FitConfig) -> "Losses":
        """Balanced as `settings` say, by the labels of the clips that are learnt from."""
        several, num_labels = config.heads.several, len(config.heads.frame_labels)
        way = "none" if settings.class_balance == "sampling" else settings.class_balance
        return cls(
            several,
            settings.label_smoothing,
            settings.frame_loss_weight,
            action=action_balance(examples, several=several, way=way),
            frame=frame_balance(examples, num_labels=num_labels, way=way) if num_labels else Balance(),
        )

    @classmethod
    def measuring(cls, examples: Sequence[Example], config: ModelConfig, settings: FitConfig) -> "Losses":
        """On clips not learnt from: what `learning` asks for. What was drawn evenly there is weighted evenly here."""
        losses = cls.learning(examples, config, settings)
        if settings.class_balance != "sampling":
            return losses
        action = action_balance(examples, several=losses.several, way="weights")
        return cls(losses.several, losses.label_smoothing, losses.frame_loss_weight, action, losses.frame)

    def __call__(self, scores: Scores, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Of the action head and the frame head: the summed loss, and over how many labels it is summed.

        What has no label counts for nothing; so does a head that the model does not have.
        """
        nothing = chunk.action_weight_BT.new_zeros(())
        action = frame = (nothing, nothing)
        if scores.action_logits_BTA is not None:
            action = self._summed(
                scores.action_logits_BTA, chunk.action_target_BTA, chunk.action_weight_BT, self.action, self.several
            )
        if scores.frame_logits_BTL is not None:
            frame = self._summed(
                scores.frame_logits_BTL, chunk.frame_target_BTL, chunk.frame_weight_BT, self.frame, several=False
            )
        return torch.stack([action[0], frame[0]]), torch.stack([action[1], frame[1]])

    def weighted(self, loss_2: Tensor, count_2: Tensor) -> Tensor:
        """One number to minimise, from what a call gives of a chunk, or the sum of many."""
        mean_2 = loss_2 / torch.where(count_2 > 0, count_2, 1.0)
        return mean_2[0] + self.frame_loss_weight * mean_2[1]

    def _summed(
        self, logits_BTK: Tensor, target_BTK: Tensor, weight_BT: Tensor, balance: Balance, several: bool
    ) -> tuple[Tensor, Tensor]:
        known_BT = weight_BT > 0
        logits_NK, target_NK, weight_N = logits_BTK[known_BT], target_BTK[known_BT], weight_BT[known_BT]
        if balance.shift_K is not None:
            logits_NK = logits_NK + balance.shift_K.to(logits_NK)
        weight_K = None if balance.weight_K is None else balance.weight_K.to(logits_NK)
        if several:
            smooth_NK = target_NK * (1 - self.label_smoothing) + self.label_smoothing / 2
            loss_N = functional.binary_cross_entropy_with_logits(
                logits_NK, smooth_NK, pos_weight=weight_K, reduction="none"
            ).mean(dim=1)
        else:
            loss_N = functional.cross_entropy(
                logits_NK, target_NK, weight=weight_K, label_smoothing=self.label_smoothing, reduction="none"
            )
        return (weight_N * loss_N).sum(), weight_N.sum()
