"""The training loop: it learns what only time can tell, the same way every time, and what ends it is a sentence."""

import re
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.process_limits import limited
from tests.toy_examples import two_orders, two_orders_config, weights_of
from training.data.example import Example, one_hot
from training.data.targets import IGNORED
from training.loop.fit import build_model, fit, fit_model
from training.loop.progress import Epoch, best_weights
from training.measure.scores import score_clips
from training.settings import FitConfig
from vidseq.config import ModelConfig
from vidseq.errors import TrainingStopped
from vidseq.model import SequenceModel

SETTINGS = FitConfig(epochs=60, batch_size=16, learning_rate=5e-3, label_smoothing=0.0)
SHORT = FitConfig(epochs=6, batch_size=8)


def accuracy(model: SequenceModel, examples: list[Example]) -> float:
    with torch.no_grad():
        called = [int(model(example.feature_TD[None])[0].action_logits_BTA[0, -1].argmax()) for example in examples]
    return sum(c == e.action_index for c, e in zip(called, examples, strict=True)) / len(examples)


def train(config: ModelConfig, settings: FitConfig, *, run_file: Path | None = None, epochs: list[Epoch] | None = None):
    seen = [] if epochs is None else epochs
    return fit(
        two_orders(128, seed=1),
        two_orders(32, seed=2),
        config=config,
        settings=settings,
        run_file=run_file,
        on_epoch=seen.append,
    )


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_a_recurrence_tells_two_orders_of_the_same_frames_apart(cell: str) -> None:
    assert accuracy(train(two_orders_config(cell), SETTINGS).model, two_orders(100, seed=3)) > 0.95


@pytest.mark.parametrize(
    "recipe",
    [
        {"long": "truncated", "chunk_frames": 4, "epochs": 30},
        {"long": "window", "chunk_frames": 8, "epochs": 10},
        {"mixup": 0.2, "average_decay": 0.95},
        {"augment_time": ("crop", "drop", "speed")},
    ],
    ids=str,
)
def test_so_does_every_recipe(recipe: dict[str, object]) -> None:
    settings = FitConfig.model_validate(SETTINGS.model_dump() | recipe)
    assert accuracy(train(two_orders_config(), settings).model, two_orders(100, seed=3)) > 0.95


@pytest.mark.parametrize("baseline", [ModelConfig.baseline, ModelConfig.frame_alone])
def test_the_baselines_cannot(baseline: Callable[[ModelConfig], ModelConfig]) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 15})
    model = train(baseline(two_orders_config()), settings).model
    assert accuracy(model, two_orders(200, seed=3)) < 0.65


def test_a_frame_alone_learns_from_every_frame_of_a_clip() -> None:
    """Only the first half of each clip shows what it is: asked at the last frame alone it would learn nothing."""
    chance = torch.Generator().manual_seed(0)
    examples = []
    for number in range(64):
        feature_TD = torch.randn(8, 4, generator=chance)
        feature_TD[:5, 0] = 4.0 if number % 2 else -4.0
        examples.append(Example(feature_TD, one_hot(number % 2, num_labels=2), torch.full((8,), IGNORED)))
    settings = SETTINGS.model_copy(update={"epochs": 15})
    arguments = {"settings": settings, "run_file": None, "on_epoch": lambda _: None}
    model = fit(examples[:48], [], config=two_orders_config().frame_alone(), **arguments).model
    scores = score_clips(model, examples[48:])
    assert [int(score.action_A.argmax()) for score in scores] == [example.action_index for example in examples[48:]]


def test_the_same_seed_gives_the_same_model() -> None:
    one, other = train(two_orders_config(), SHORT).model, train(two_orders_config(), SHORT).model
    different = train(two_orders_config(), SHORT.model_copy(update={"seed": 1})).model
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (one, other, different)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_without_validation_there_is_no_validation_loss_and_the_last_epoch_is_kept() -> None:
    epochs: list[Epoch] = []
    arguments = {"config": two_orders_config(), "settings": SHORT, "run_file": None}
    assert fit(two_orders(16, seed=1), [], **arguments, on_epoch=epochs.append).best_epoch == SHORT.epochs
    assert [epoch.validation_loss for epoch in epochs] == [None] * SHORT.epochs


def test_the_validation_loss_does_not_depend_on_the_batches() -> None:
    """One of nine clips has a label, and they differ in length: the mean of batch means would depend on both."""
    unlabelled = [Example(e.feature_TD, None, e.frame_target_T) for e in two_orders(8, seed=2)]
    epochs: list[Epoch] = []
    for batch_size in (1, 4, 9):
        # one clip to train on, so that training is the same at any batch size
        settings = FitConfig(epochs=1, batch_size=batch_size)
        validation = [*unlabelled, *two_orders(1, seed=3)]
        arguments = {"config": two_orders_config(), "settings": settings, "run_file": None}
        fit(two_orders(1, seed=1), validation, **arguments, on_epoch=epochs.append)
    losses = [epoch.validation_loss for epoch in epochs]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_what_has_no_label_changes_nothing() -> None:
    labelled = two_orders(16, seed=1)
    unlabelled = [Example(10 * torch.randn(7, 4), None, torch.full((7,), IGNORED)) for _ in range(SHORT.batch_size)]
    arguments = {"config": two_orders_config(), "settings": SHORT.model_copy(update={"epochs": 1}), "run_file": None}
    losses: list[Epoch] = []
    fit(unlabelled, labelled, **arguments, on_epoch=losses.append)
    assert losses[0].train_loss == 0.0
    assert losses[0].gradient_norm == 0.0


def test_a_running_mean_of_the_weights_is_what_is_validated_and_kept() -> None:
    """By hand, over the weights that the same run has after each of its steps: one an epoch."""
    examples = two_orders(8, seed=1)
    arguments = {"config": two_orders_config(), "run_file": None, "on_epoch": lambda _: None}
    plain = FitConfig(epochs=4, batch_size=8)
    # The schedule depends on the number of epochs: a run of fewer would not take the same steps.
    steps: list[torch.Tensor] = []
    model = build_model(examples, two_orders_config(), seed=0)

    def note(_: Epoch) -> None:
        steps.append(torch.cat([tensor.flatten() for tensor in model.state_dict().values()]).clone())

    fit_model(model, examples, [], config=two_orders_config(), settings=plain, run_file=None, on_epoch=note)
    mean = steps[0]
    for step in steps[1:]:
        mean = 0.6 * mean + 0.4 * step
    averaged = fit(examples, [], **arguments, settings=plain.model_copy(update={"average_decay": 0.6}))
    assert torch.allclose(weights_of(averaged), mean, atol=1e-6)
    assert not torch.allclose(weights_of(averaged), steps[-1], atol=1e-4)


def test_the_history_says_how_many_updates_were_clipped_and_how_fast_was_learnt() -> None:
    settings = FitConfig(epochs=4, batch_size=8, max_gradient_norm=1e-3)
    arguments = {"config": two_orders_config(), "run_file": None, "on_epoch": lambda _: None}
    strict = fit(two_orders(16, seed=1), [], **arguments, settings=settings).history
    lenient = fit(
        two_orders(16, seed=1), [], **arguments, settings=settings.model_copy(update={"max_gradient_norm": 1e3})
    ).history
    assert [epoch.clipped_share for epoch in strict] == [1.0] * 4
    assert [epoch.clipped_share for epoch in lenient] == [0.0] * 4
    assert strict[-1].learning_rate < strict[0].learning_rate <= settings.learning_rate


def spoilt_from(example: Example, *, epoch: int) -> Example:
    """A clip whose features are no numbers from this epoch on."""
    num_seen = 0

    def look(chance: np.random.Generator) -> Example:
        nonlocal num_seen
        num_seen += 1
        return replace(example, feature_TD=torch.nan * example.feature_TD) if num_seen >= epoch else example

    return replace(example, draw=look)


def test_a_loss_that_is_no_number_ends_the_run_in_a_sentence_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    examples, told, run_file = two_orders(16, seed=1), list[Epoch](), tmp_path / "run.pt"
    spoilt = [spoilt_from(examples[0], epoch=4), *examples[1:]]
    arguments = {"config": two_orders_config(), "settings": SHORT, "run_file": run_file, "on_epoch": told.append}
    with pytest.raises(TrainingStopped) as stopped:
        fit(spoilt, two_orders(8, seed=2), **arguments)
    sentence = str(stopped.value)
    assert re.match(r"in epoch 4, step [12], the loss is nan", sentence)
    assert "lower learning_rate (0.001)" in sentence
    assert f"the best weights so far, of epoch {told[-1].best_epoch}, are in {run_file}" in sentence
    assert len(told) == 3
    model = build_model(examples, two_orders_config(), seed=0)
    model.load_state_dict(best_weights(run_file))
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_memory_that_is_used_up_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    """A clip so long that its hidden states alone are more than the process may still have."""
    long = Example(torch.zeros(1, 4).expand(2**22, 4), one_hot(0, num_labels=2), torch.zeros(1).long().expand(2**22))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    arguments = {"config": two_orders_config(), "settings": SHORT, "run_file": None, "on_epoch": lambda _: None}
    with (
        limited(resource.RLIMIT_AS, pages * resource.getpagesize() + 2**28),
        pytest.raises(TrainingStopped, match=r"memory is used up in epoch 1: lower batch_size \(8\).*'truncated'"),
    ):
        fit([long], [], **arguments)


def test_training_stops_when_validation_no_longer_improves() -> None:
    epochs: list[Epoch] = []
    hopeless = [Example(e.feature_TD, 1 - e.action_target_A, 1 - e.frame_target_T) for e in two_orders(32, seed=2)]
    settings = SETTINGS.model_copy(update={"patience_epochs": 3})
    fit(
        two_orders(64, seed=1),
        hopeless,
        config=two_orders_config(),
        settings=settings,
        run_file=None,
        on_epoch=epochs.append,
    )
    assert len(epochs) < settings.epochs
    assert epochs[-1].number == epochs[-1].best_epoch + 3
