"""Clips shown in another way each time: a part of them, other speeds, lost frames. Knows nothing of pixels.

    crop      a stretch of half the clip or more, from anywhere
    drop      each frame is lost with a chance of one in ten
    speed     three quarters to four thirds as fast, by picking frames again or leaving some out
    reverse   backwards, every other time: for labels that mean the same both ways, and only when asked for

Labels of frames follow their frames. What a feature depends on decides what it costs: a crop is a slice; the others ask
the example for the features of the new order, because one that says what changed since the frame before is another one
after another frame.
"""

import math
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from training.data.example import Example
from training.settings import TimeChange

MIN_CROP_SHARE = 0.5
DROP_SHARE = 0.1
MAX_SPEED = 4 / 3
REVERSE_SHARE = 0.5


def augmented(example: Example, changes: Collection[TimeChange], *, chance: np.random.Generator) -> Example:
    """The clip with these changes, of sizes drawn from `chance`; of at least one frame."""
    if "crop" in changes:
        example = _cropped(example, chance)
    if not {"drop", "speed", "reverse"}.intersection(changes):
        return example
    order_T = torch.arange(example.num_frames)
    if "drop" in changes:
        order_T = _dropped(order_T, chance)
    if "speed" in changes:
        order_T = _at_another_speed(order_T, chance)
    if "reverse" in changes and chance.random() < REVERSE_SHARE:
        order_T = order_T.flip(0)
    return example.rearranged(order_T)


def _cropped(example: Example, chance: np.random.Generator) -> Example:
    shortest = math.ceil(MIN_CROP_SHARE * example.num_frames)
    num_frames = int(chance.integers(shortest, example.num_frames, endpoint=True))
    start = int(chance.integers(0, example.num_frames - num_frames, endpoint=True))
    return example.cut(start, start + num_frames)


def _dropped(order_T: Tensor, chance: np.random.Generator) -> Tensor:
    kept_T = chance.random(len(order_T)) >= DROP_SHARE
    return order_T[torch.from_numpy(kept_T)] if kept_T.any() else order_T


def _at_another_speed(order_T: Tensor, chance: np.random.Generator) -> Tensor:
    speed = MAX_SPEED ** chance.uniform(-1, 1)
    num_frames = max(1, round(len(order_T) / speed))
    middle_T = (torch.arange(num_frames) + 0.5) * (len(order_T) / num_frames)
    return order_T[middle_T.long()]
