"""The training loop: it learns what only time can tell, the same way every time, also after a kill."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.example import Example, one_hot
from training.fit import fit
from training.progress import Epoch
from training.settings import FitConfig
from training.targets import IGNORED
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig
from vidseq.errors import OptionError
from vidseq.model import SequenceModel

FORWARD, BACKWARD = 0, 1


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
        feature_TD = ramp_TD if label == FORWARD else ramp_TD.flip(0)
        examples.append(Example(feature_TD, one_hot(label, num_labels=2), torch.full((length,), label)))
    return examples


def a_config(cell: str = "gru", **heads: object) -> ModelConfig:
    labels = {"action_labels": ("up", "down"), "frame_labels": ("up", "down")}
    recurrent = {"cell": cell, "hidden_size": 16, "projection_size": 16, "dropout": 0.2}
    return ModelConfig(
        recurrent=RecurrentConfig.model_validate(recurrent), heads=HeadsConfig.model_validate(labels | heads)
    )


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
    assert accuracy(train(a_config(cell), SETTINGS).model, two_orders(100, seed=3)) > 0.95


def test_the_mean_pool_baseline_cannot() -> None:
    model = train(a_config().baseline(), SETTINGS).model
    assert accuracy(model, two_orders(200, seed=3)) < 0.65


def test_the_same_seed_gives_the_same_model() -> None:
    one, other = train(a_config(), SHORT).model, train(a_config(), SHORT).model
    different = train(a_config(), SHORT.model_copy(update={"seed": 1})).model
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (one, other, different)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


class Killed(Exception):
    pass


@pytest.mark.parametrize("at_epoch", [1, 3, 5])
def test_a_killed_run_resumes_and_ends_with_the_same_weights(tmp_path: Path, at_epoch: int) -> None:
    def kill(epoch: Epoch) -> None:
        if epoch.number == at_epoch:
            raise Killed

    data = {"train": two_orders(64, seed=1), "validation": two_orders(32, seed=2)}
    arguments = {"config": a_config(), "settings": SHORT}
    uninterrupted = fit(*data.values(), **arguments, run_file=None, on_epoch=lambda _: None)
    with pytest.raises(Killed):
        fit(*data.values(), **arguments, run_file=tmp_path / "run.pt", on_epoch=kill)
    torch.manual_seed(12345)
    found: list[int] = []
    continued = {"run_file": tmp_path / "run.pt", "on_epoch": lambda _: None, "on_resume": found.append}
    resumed = fit(*data.values(), **arguments, **continued)
    assert found == [at_epoch]
    for name, tensor in uninterrupted.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    assert resumed.best_epoch == uninterrupted.best_epoch


def test_a_run_with_other_settings_is_not_continued(tmp_path: Path) -> None:
    train(a_config(), SHORT, run_file=tmp_path / "run.pt")
    with pytest.raises(OptionError, match="other settings"):
        train(a_config("lstm"), SHORT, run_file=tmp_path / "run.pt")


def without_its_first_target(examples: list[Example]) -> list[Example]:
    return [Example(examples[0].feature_TD, None, examples[0].frame_target_T), *examples[1:]]


def moved(examples: list[Example]) -> list[Example]:
    return [Example(examples[0].feature_TD + 1, examples[0].action_target_A, examples[0].frame_target_T), *examples[1:]]


@pytest.mark.parametrize("change", [without_its_first_target, moved, lambda examples: examples[1:]])
@pytest.mark.parametrize("side", [0, 1])
def test_a_run_on_other_clips_is_not_continued(
    tmp_path: Path, change: Callable[[list[Example]], list[Example]], side: int
) -> None:
    data = [two_orders(8, seed=1), two_orders(8, seed=2)]
    arguments = {"config": a_config(), "settings": SHORT, "run_file": tmp_path / "run.pt", "on_epoch": lambda _: None}
    fit(*data, **arguments)
    data[side] = change(data[side])
    with pytest.raises(OptionError, match="other clips"):
        fit(*data, **arguments)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_run_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "run.pt"
    train(a_config(), SHORT, run_file=path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(OptionError, match=r"run\.pt is damaged: remove it to start again"):
        train(a_config(), SHORT, run_file=path)


def test_a_file_that_is_no_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(OptionError, match=r"run\.pt is damaged"):
        train(a_config(), SHORT, run_file=path)


def test_without_validation_there_is_no_validation_loss_and_the_last_epoch_is_kept() -> None:
    epochs: list[Epoch] = []
    arguments = {"config": a_config(), "settings": SHORT, "run_file": None}
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
        arguments = {"config": a_config(), "settings": settings, "run_file": None}
        fit(two_orders(1, seed=1), validation, **arguments, on_epoch=epochs.append)
    losses = [epoch.validation_loss for epoch in epochs]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_what_has_no_label_changes_nothing() -> None:
    labelled = two_orders(16, seed=1)
    unlabelled = [Example(10 * torch.randn(7, 4), None, torch.full((7,), IGNORED)) for _ in range(SHORT.batch_size)]
    arguments = {"config": a_config(), "settings": SHORT.model_copy(update={"epochs": 1}), "run_file": None}
    losses: list[Epoch] = []
    fit(unlabelled, labelled, **arguments, on_epoch=losses.append)
    assert losses[0].train_loss == 0.0
    assert losses[0].gradient_norm == 0.0


def test_training_stops_when_validation_no_longer_improves() -> None:
    epochs: list[Epoch] = []
    hopeless = [Example(e.feature_TD, 1 - e.action_target_A, 1 - e.frame_target_T) for e in two_orders(32, seed=2)]
    settings = SETTINGS.model_copy(update={"patience_epochs": 3})
    fit(two_orders(64, seed=1), hopeless, config=a_config(), settings=settings, run_file=None, on_epoch=epochs.append)
    assert len(epochs) < settings.epochs
    assert epochs[-1].number == epochs[-1].best_epoch + 3
