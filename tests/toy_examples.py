"""Clips as the training loop sees them, of random features: enough for what does not depend on what they show."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.data.example import Example, one_hot
from training.loop.fit import Fitted
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig
from vidseq.model import SequenceModel

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


def two_orders(count: int, *, seed: int) -> list[Example]:
    """The same frames in two orders; each frame is labelled by whether the feature has risen since the one before."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for index in range(count):
        length = int(torch.randint(6, 12, (1,), generator=generator))
        ramp_TD = torch.linspace(-1, 1, length)[:, None] * torch.ones(length, 4)
        ramp_TD = ramp_TD + 0.05 * torch.randn(length, 4, generator=generator)
        ramp_TD[:, 2:] = 1.0  # LayerNorm would otherwise leave only signs
        label = index % 2
        feature_TD = ramp_TD if label == 0 else ramp_TD.flip(0)
        examples.append(Example(feature_TD, one_hot(label, num_labels=2), torch.full((length,), label)))
    return examples


def two_orders_config(cell: str = "gru", **heads: object) -> ModelConfig:
    labels = {"action_labels": ("up", "down"), "frame_labels": ("up", "down")}
    recurrent = {"cell": cell, "hidden_size": 16, "projection_size": 16, "dropout": 0.2}
    return ModelConfig(
        recurrent=RecurrentConfig.model_validate(recurrent), heads=HeadsConfig.model_validate(labels | heads)
    )


def weights_of(fitted: Fitted[SequenceModel]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in fitted.model.state_dict().values()])
