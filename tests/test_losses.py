"""The losses of both heads, against torch's own on what has a label, and against hand-made ones where torch has none.

Shape letters: B rows, T frames, A action labels, N frames of all rows.
"""

import pytest
import torch
from torch.nn import functional

from tests.toy_examples import toy_config, toy_examples
from training.data.example import Example
from training.loop.batches import Part, Row
from training.loop.chunks import Chunk, Reading
from training.loop.losses import Losses
from training.settings import FitConfig
from vidseq.config import ModelConfig
from vidseq.model import Scores, SequenceModel

EXAMPLES = toy_examples([7, 3, 5, 4], seed=3)


def scored(examples: list[Example], config: ModelConfig) -> tuple[Scores, Chunk]:
    torch.manual_seed(0)
    model = SequenceModel(config, feature_size=4).eval()
    (chunk,) = Reading.learning(config, FitConfig()).chunks([Row((Part(example),)) for example in examples])
    with torch.no_grad():
        return model(chunk.feature_BTD, None, chunk.lengths_B)[0], chunk


def alone(examples: list[Example], config: ModelConfig) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Action logits at the end, and frame logits, of each clip by itself."""
    found = [scored([example], config)[0] for example in examples]
    return [(scores.action_logits_BTA[0, -1], scores.frame_logits_BTL[0]) for scores in found]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_a_batch_costs_what_its_clips_cost_alone(label_smoothing: float) -> None:
    settings = FitConfig(label_smoothing=label_smoothing)
    loss_2, count_2 = Losses.learning(EXAMPLES, toy_config(), settings)(*scored(EXAMPLES, toy_config()))
    by_hand = [
        (
            functional.cross_entropy(action_A, example.action_target_A, label_smoothing=label_smoothing),
            functional.cross_entropy(
                frame_TL, example.frame_target_T, label_smoothing=label_smoothing, reduction="sum"
            ),
        )
        for example, (action_A, frame_TL) in zip(EXAMPLES, alone(EXAMPLES, toy_config()), strict=True)
    ]
    assert count_2.tolist() == [4, 19]
    assert loss_2.tolist() == pytest.approx([sum(map(float, losses)) for losses in zip(*by_hand, strict=True)], 1e-5)


def test_class_weights_multiply_the_loss_of_their_labels() -> None:
    settings = FitConfig(label_smoothing=0.0, class_balance="weights")
    config = toy_config(frame_labels=())
    loss_2, _ = Losses.learning(EXAMPLES, config, settings)(*scored(EXAMPLES, config))
    logits_BA = torch.stack([scored([example], config)[0].action_logits_BTA[0, -1] for example in EXAMPLES])
    loss_B = functional.cross_entropy(logits_BA, torch.tensor([0, 1, 2, 0]), reduction="none")
    assert float(loss_2[0]) == pytest.approx(float(loss_B @ torch.tensor([2 / 3, 4 / 3, 4 / 3, 2 / 3])), 1e-5)


def test_logits_are_adjusted_by_the_labels_shares() -> None:
    settings = FitConfig(label_smoothing=0.0, class_balance="logits")
    config = toy_config(frame_labels=())
    loss_2, _ = Losses.learning(EXAMPLES, config, settings)(*scored(EXAMPLES, config))
    logits_BA = torch.stack([scored([example], config)[0].action_logits_BTA[0, -1] for example in EXAMPLES])
    adjusted_BA = logits_BA + torch.tensor([0.5, 0.25, 0.25]).log()
    assert float(loss_2[0]) == pytest.approx(
        float(functional.cross_entropy(adjusted_BA, torch.tensor([0, 1, 2, 0]), reduction="sum")), 1e-5
    )


def test_several_actions_are_a_question_each() -> None:
    config = toy_config(several=True, frame_labels=())
    many = [Example(EXAMPLES[0].feature_TD, torch.tensor(target), EXAMPLES[0].frame_target_T) for target in TARGETS]
    loss_2, count_2 = Losses.learning(many, config, FitConfig(label_smoothing=0.0))(*scored(many, config))
    logits_BA = torch.stack([scored([example], config)[0].action_logits_BTA[0, -1] for example in many])
    expected = functional.binary_cross_entropy_with_logits(logits_BA, torch.tensor(TARGETS), reduction="none")
    assert float(loss_2[0]) == pytest.approx(float(expected.mean(dim=1).sum()), 1e-5)
    assert count_2[0] == 3, "a clip of which nothing is true has been labelled too"


TARGETS = [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_drawing_evenly_is_measured_with_even_weights() -> None:
    settings = FitConfig(class_balance="sampling")
    learning = Losses.learning(EXAMPLES, toy_config(), settings)
    measuring = Losses.measuring(EXAMPLES, toy_config(), settings)
    assert learning.action.weight_K is None and measuring.action.weight_K is not None
    assert measuring.action.weight_K.tolist() == pytest.approx([2 / 3, 4 / 3, 4 / 3])


def test_nothing_to_learn_costs_nothing() -> None:
    config = toy_config(frame_labels=())
    unlabelled = [Example(example.feature_TD, None, example.frame_target_T) for example in EXAMPLES]
    losses = Losses.learning(unlabelled, config, FitConfig(class_balance="weights"))
    assert losses.weighted(*losses(*scored(unlabelled, config))) == 0
