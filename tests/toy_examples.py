"""Clips as the training loop sees them, of random features: enough for what does not depend on what they show."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.example import Example, one_hot
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig

ACTIONS = ("a", "b", "c")
FRAMES = ("x", "y")
FEATURE_SIZE = 4


def toy_examples(lengths: Sequence[int], *, seed: int = 0) -> list[Example]:
    """One clip for each length; actions take turns, frame labels are drawn by lot."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Example(
            torch.randn(length, FEATURE_SIZE, generator=generator),
            one_hot(number % len(ACTIONS), num_labels=len(ACTIONS)),
            torch.randint(len(FRAMES), (length,), generator=generator),
        )
        for number, length in enumerate(lengths)
    ]


def numbered(length: int, *, action: int | None = 0) -> Example:
    """A clip whose frame `n` has feature `n`, and label `n`, so that a test can read which frames it got."""
    frame_T = torch.arange(length)
    target_A = None if action is None else one_hot(action, num_labels=len(ACTIONS))
    return Example(frame_T[:, None].float(), target_A, frame_T)


def frames_of(example: Example) -> list[int]:
    """Which frames of a `numbered` clip these are; features and labels must agree."""
    shown_T: Tensor = example.feature_TD[:, 0].long()
    assert shown_T.tolist() == example.frame_target_T.tolist()
    return shown_T.tolist()


def toy_config(cell: str = "gru", *, several: bool = False, **heads: object) -> ModelConfig:
    labels = {"action_labels": ACTIONS, "frame_labels": FRAMES, "several": several}
    recurrent = {"cell": cell, "projection_size": 8, "hidden_size": 8, "dropout": 0.0}
    return ModelConfig(
        recurrent=RecurrentConfig.model_validate(recurrent), heads=HeadsConfig.model_validate(labels | heads)
    )
