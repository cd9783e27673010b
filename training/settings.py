"""How a sequence model is trained: every number of the loop, with its range. Knows nothing of torch."""

from typing import Annotated, Literal

from pydantic import Field

from vidseq.config import Config, PositiveInt, Share

TimeChange = Literal["crop", "drop", "speed", "reverse"]
ClassBalance = Literal["none", "weights", "sampling", "logits"]
Long = Literal["whole", "truncated", "window"]


class FitConfig(Config):
    """Learning rate rises over `warmup_share` of the steps, then falls as a cosine.

    `class_balance`, for labels of which there are few, found on the clips that are learnt from:
        weights   the loss of a label counts as much more as it is rarer
        sampling  clips are drawn so that each action comes as often as the others
        logits    logits are shifted by the logarithm of each label's share, in the loss alone (arxiv:2007.07314)

    `mixup` lays two clips over each other, frame by frame, in shares drawn from Beta(mixup, mixup) (arxiv:1710.09412).
    `average_decay` keeps a running mean of the weights, and that is the model: 0.99 looks back some 100 steps.
    `augment_time` shows a clip in another way each time: see training.augment.

    `long`, for sequences of any length:
        whole      each clip in one piece; memory grows with the longest clip of a batch
        truncated  `chunk_frames` at a time, a step after each; the state is carried on, the gradient is cut
        window     stretches of `chunk_frames` that begin without a state, and the loss of their last frame alone;
                   afterwards the state is carried through whole videos (MiniROAD, An et al., ICCV 2023)
    """

    epochs: PositiveInt = 60
    batch_size: PositiveInt = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_share: Share = 0.1
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    class_balance: ClassBalance = "none"
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    augment_time: tuple[TimeChange, ...] = ()
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    long: Long = "whole"
    chunk_frames: PositiveInt = 128
    frame_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    patience_epochs: PositiveInt = 20
    seed: Annotated[int, Field(ge=0)] = 0
