"""Long sequences in chunks: the same forward pass, gradients that end at the cut and nowhere else, a state of its own.

Shape letters: B rows, T frames, D feature size.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.toy_examples import toy_config, toy_examples
from training.data.example import Example
from training.data.targets import IGNORED
from training.loop.batches import Part, Row
from training.loop.chunks import Reading
from training.loop.fit import fit, read_chunk
from training.loop.losses import Losses
from training.loop.progress import Epoch
from training.settings import FitConfig
from vidseq.config import RecurrentConfig
from vidseq.errors import OptionError
from vidseq.model import SequenceModel

CELLS = ["gru", "lstm", "mingru", "attention"]


def a_model(cell: str) -> SequenceModel:
    torch.manual_seed(0)
    return SequenceModel(toy_config(cell, lookahead_seconds=0.25), feature_size=4)


def chunk_losses(model: SequenceModel, examples: Sequence[Example], chunk_frames: int) -> list[Tensor]:
    """The loss of each chunk, one after the other, as `fit` takes them."""
    settings = FitConfig(long="truncated", chunk_frames=chunk_frames)
    losses, reading = Losses.learning(examples, model.config, settings), Reading.learning(model.config, settings)
    found, state = [], None
    for chunk in reading.chunks([Row((Part(example),)) for example in examples]):
        scores, state = read_chunk(model, chunk, state)
        found.append(losses.weighted(*losses(scores, chunk)))
    return found


def with_gradients(length: int) -> Example:
    (example,) = toy_examples([length])
    return Example(example.feature_TD.clone().requires_grad_(), example.action_target_A, example.frame_target_T)


@pytest.mark.parametrize("cell", CELLS)
def test_chunks_say_what_one_pass_says(cell: str) -> None:
    """Rows of unequal lengths: those that have ended are out of the later chunks."""
    model, examples = a_model(cell).eval(), toy_examples([11, 3, 7, 8])
    settings = FitConfig(long="truncated", chunk_frames=4)
    rows: list[list[Tensor]] = [[] for _ in examples]
    state = None
    for chunk in Reading.measuring(model.config, settings).chunks([Row((Part(example),)) for example in examples]):
        scores, state = read_chunk(model, chunk, state)
        for row, length in enumerate(chunk.lengths_B.tolist()):
            rows[row].append(scores.action_logits_BTA[row, :length])
    for row, example in zip(rows, sorted(examples, key=lambda example: -example.num_frames), strict=True):
        whole = model(example.feature_TD[None])[0].action_logits_BTA[0]
        assert torch.allclose(torch.cat(row), whole, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("chunk_frames", [9, 20])
def test_a_chunk_as_long_as_the_video_gives_the_gradients_of_full_backpropagation(cell: str, chunk_frames: int) -> None:
    found = []
    for size in (chunk_frames, 1000):
        model, example = a_model(cell), with_gradients(9)
        (loss,) = chunk_losses(model, [example], size)
        loss.backward()
        found.append([example.feature_TD.grad, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("cell", CELLS)
def test_a_shorter_chunk_gives_no_gradient_at_all_to_what_came_before_the_cut(cell: str) -> None:
    model, example = a_model(cell), with_gradients(9)
    *_, last = chunk_losses(model, [example], 4)
    last.backward()
    assert not example.feature_TD.grad[:8].any()
    assert example.feature_TD.grad[8].any()


def test_without_a_cut_the_last_frame_does_teach_about_the_first() -> None:
    """What makes the test above say something."""
    model, example = a_model("gru"), with_gradients(9)
    model(example.feature_TD[None])[0].frame_logits_BTL[0, 8].sum().backward()
    assert example.feature_TD.grad[0].any()


@pytest.mark.parametrize("chunk_frames", [3, 50])
def test_padding_changes_no_gradient(chunk_frames: int) -> None:
    """A short clip beside a long one of which nothing is known gets the gradients that it gets alone."""
    found = []
    (long,) = toy_examples([12], seed=1)
    unlabelled = Example(long.feature_TD, None, torch.full((12,), IGNORED))
    for beside in ([], [unlabelled]):
        model, example = a_model("gru"), with_gradients(5)
        sum(chunk_losses(model, [example, *beside], chunk_frames)).backward()
        found.append(example.feature_TD.grad)
    assert torch.allclose(*found, atol=1e-7)


@pytest.mark.parametrize("long", ["truncated", "window"])
def test_no_state_crosses_from_one_video_to_the_next(long: str) -> None:
    """Whatever a video shows of which nothing is to be learnt, what is learnt from another one stays the same."""
    settings = FitConfig.model_validate(
        {"epochs": 3, "batch_size": 1, "long": long, "chunk_frames": 4, "max_gradient_norm": 1e9}
    )
    examples = toy_examples([10, 9, 7])
    weights, epochs = [], list[Epoch]()
    for scale in (1.0, 100.0):
        strange = Example(scale * examples[0].feature_TD, None, torch.full((10,), IGNORED))
        arguments = {"config": toy_config(), "settings": settings, "run_file": None, "on_epoch": epochs.append}
        fitted = fit([strange, *examples[1:]], [strange, examples[1]], **arguments)
        weights.append(torch.cat([parameter.flatten() for parameter in fitted.model.parameters()]))
    assert torch.equal(*weights)
    assert [epoch.validation_loss for epoch in epochs[:3]] == [epoch.validation_loss for epoch in epochs[3:]]


@pytest.mark.parametrize("long", ["truncated", "window"])
def test_a_bidirectional_model_cannot_carry_a_state(long: str) -> None:
    recurrent = RecurrentConfig(hidden_size=8, projection_size=8, bidirectional=True)
    config = toy_config().model_copy(update={"recurrent": recurrent})
    settings = FitConfig.model_validate({"long": long})
    arguments = {"config": config, "settings": settings, "run_file": None, "on_epoch": lambda _: None}
    with pytest.raises(OptionError, match=f"long '{long}'.*bidirectional"):
        fit(toy_examples([3]), [], **arguments)
