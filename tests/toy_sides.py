"""Clips to learn from and to validate on, as Ray's workers make them: in a module that they can import by name."""

import torch

from tests.toy_examples import two_orders
from training.data.example import Example, one_hot
from training.data.frame_augment import FrameAugment
from training.data.targets import IGNORED
from training.data.views import of_pixels

Sides = tuple[list[Example], list[Example]]


def features() -> Sides:
    return two_orders(24, seed=1), two_orders(8, seed=2)


def pixels() -> Sides:
    """Four clips of noise: two bright, two dark."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for number in range(4):
        clip_THWC = torch.randint(0, 100, (5, 32, 32, 3), generator=generator, dtype=torch.uint8) + 100 * (number % 2)
        target = Example(torch.zeros(5, 1), one_hot(number % 2, num_labels=3), torch.full((5,), IGNORED))
        examples.append(of_pixels(target, clip_THWC, augment=FrameAugment(("crop",)), clip_frames=4))
    return examples, examples


def no_sides(error: Exception) -> Sides:
    raise error
