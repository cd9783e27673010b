"""A run that is killed anywhere goes on as if nothing had been; a file that is not its own is refused by name."""

import resource
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.process_limits import limited
from tests.toy_examples import two_orders, two_orders_config, weights_of
from training.data.example import Example
from training.loop.fit import Fitted, fit
from training.loop.progress import Epoch
from training.settings import FitConfig
from vidseq.errors import OptionError, TrainingStopped
from vidseq.model import SequenceModel

SHORT = FitConfig(epochs=6, batch_size=8)


def train(cell: str = "gru", *, run_file: Path) -> Fitted[SequenceModel]:
    return fit(
        two_orders(32, seed=1),
        two_orders(8, seed=2),
        config=two_orders_config(cell),
        settings=SHORT,
        run_file=run_file,
        on_epoch=lambda _: None,
    )


class Killed(Exception):
    pass


RECIPES = {
    "plain": {},
    "mixed and averaged": {"mixup": 0.4, "average_decay": 0.8},
    "drawn evenly, changed in time": {"class_balance": "sampling", "augment_time": ("crop", "speed", "reverse")},
    "chunks": {"long": "truncated", "chunk_frames": 4},
    "windows": {"long": "window", "chunk_frames": 4, "mixup": 0.4},
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("at_clip", [30, 150], ids=lambda clip: f"at clip {clip}")
def test_a_run_that_is_killed_anywhere_resumes_and_ends_with_the_same_weights(
    tmp_path: Path, recipe: str, at_clip: int
) -> None:
    """Killed as it looks at a clip, so inside an epoch; chance has gone elsewhere before it is resumed."""
    num_seen = 0
    settings = FitConfig.model_validate({"epochs": 5, "batch_size": 8, **RECIPES[recipe]})
    arguments = {"config": two_orders_config(), "settings": settings, "on_epoch": lambda _: None}
    examples, validation = two_orders(32, seed=1), two_orders(8, seed=2)
    run_file = tmp_path / "run.pt"

    def killing(example: Example) -> Example:
        def look(chance: np.random.Generator) -> Example:
            nonlocal num_seen
            num_seen += 1
            if num_seen == at_clip:
                raise Killed
            return example

        return replace(example, draw=look)

    uninterrupted = fit(examples, validation, **arguments, run_file=None)
    with pytest.raises(Killed):
        fit([killing(example) for example in examples], validation, **arguments, run_file=run_file)
    torch.manual_seed(12345)
    resumed = fit(examples, validation, **arguments, run_file=run_file)
    assert torch.equal(weights_of(resumed), weights_of(uninterrupted))
    assert resumed.history == uninterrupted.history
    assert resumed.best_epoch == uninterrupted.best_epoch


def test_a_resumed_run_tells_how_many_epochs_were_found(tmp_path: Path) -> None:
    def kill(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise Killed

    arguments = {"config": two_orders_config(), "settings": SHORT, "run_file": tmp_path / "run.pt"}
    with pytest.raises(Killed):
        fit(two_orders(8, seed=1), [], **arguments, on_epoch=kill)
    found: list[int] = []
    told: list[Epoch] = []
    fitted = fit(two_orders(8, seed=1), [], **arguments, on_epoch=told.append, on_resume=found.append)
    assert found == [3]
    assert [epoch.number for epoch in told] == [4, 5, 6]
    assert [epoch.number for epoch in fitted.history] == [1, 2, 3, 4, 5, 6]


def test_where_nothing_more_can_be_written_the_epoch_before_is_kept_and_the_run_goes_on_later(tmp_path: Path) -> None:
    """The limit on the size of files stands for a full disk: both refuse the write."""
    run_file, examples = tmp_path / "run.pt", two_orders(16, seed=1)
    arguments = {"config": two_orders_config(), "settings": SHORT, "run_file": run_file}
    with ExitStack() as limits:

        def fill(epoch: Epoch) -> None:
            if epoch.number == 2:
                limits.enter_context(limited(resource.RLIMIT_FSIZE, 4096))

        with pytest.raises(TrainingStopped, match=r"epoch 3 cannot be saved: File too large: .*goes on after epoch 2"):
            fit(examples, [], **arguments, on_epoch=fill)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    resumed = fit(examples, [], **arguments, on_epoch=lambda _: None)
    uninterrupted = fit(examples, [], **{**arguments, "run_file": None}, on_epoch=lambda _: None)
    assert torch.equal(weights_of(resumed), weights_of(uninterrupted))


def test_a_run_with_other_settings_is_not_continued(tmp_path: Path) -> None:
    train(run_file=tmp_path / "run.pt")
    with pytest.raises(OptionError, match="other settings"):
        train("lstm", run_file=tmp_path / "run.pt")


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
    arguments = {
        "config": two_orders_config(),
        "settings": SHORT,
        "run_file": tmp_path / "run.pt",
        "on_epoch": lambda _: None,
    }
    fit(*data, **arguments)
    data[side] = change(data[side])
    with pytest.raises(OptionError, match="other clips"):
        fit(*data, **arguments)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_run_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "run.pt"
    train(run_file=path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(OptionError, match=r"run\.pt is damaged: remove it to start again"):
        train(run_file=path)


def test_a_file_that_is_no_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(OptionError, match=r"run\.pt is damaged"):
        train(run_file=path)
