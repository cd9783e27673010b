"""Training on real Ray Train workers: the same model as by one process, its progress told, its errors one sentence."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from serving.local_ray import local_ray
from tests.running import Listener, descendants, listeners
from tests.toy_examples import two_orders_config
from tests.toy_models import toy_config, toy_model
from tests.toy_sides import Sides, features, no_sides, pixels
from tests.toy_videos import write_clip
from training.loop.fit import Fitted, build_model, fit_model
from training.loop.joint import JointModel
from training.loop.progress import Epoch
from training.loop.unfreeze import parameter_groups, unfreeze
from training.settings import FitConfig, UnfreezeConfig
from vidseq.config import ModelConfig
from vidseq.errors import OptionError, TrainingStopped
from vidseq.model import SequenceModel

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SETTINGS = FitConfig(epochs=3, batch_size=8, learning_rate=1e-2)


@pytest.fixture(scope="module", autouse=True)
def two_cores() -> Iterator[None]:
    with local_ray(num_cpus=2):
        yield


def steady_config() -> ModelConfig:
    """Without dropout, which draws for each worker's rows."""
    config = two_orders_config()
    return config.model_copy(update={"recurrent": config.recurrent.model_copy(update={"dropout": 0.0})})


def untrained() -> SequenceModel:
    return build_model(features()[0], steady_config(), seed=0)


def by_workers(
    sides: Callable[[], Sides], model: nn.Module, *, config: ModelConfig, num_workers: int = 2, **more: object
) -> Fitted[nn.Module]:
    from training.loop.distributed import fit_together  # imports Ray, which must not be before `two_cores`

    arguments = {"settings": SETTINGS, "run_file": None, "on_epoch": lambda epoch: None} | more
    return fit_together(model, sides, num_workers=num_workers, device="cpu", config=config, **arguments)


def test_two_workers_come_to_the_model_that_one_process_comes_to(tmp_path: Path) -> None:
    """Whether the workers agree with each other is asserted by each run itself."""
    told: list[Epoch] = []
    run_file = tmp_path / "run" / "run.pt"
    together = by_workers(features, untrained(), config=steady_config(), run_file=run_file, on_epoch=told.append)
    train, validation = features()
    alone = fit_model(
        untrained(),
        train,
        validation,
        config=steady_config(),
        settings=SETTINGS,
        run_file=None,
        on_epoch=lambda _: None,
    )
    assert (together.best_epoch, together.history) == (alone.best_epoch, tuple(told))
    assert [epoch.train_loss for epoch in told] == pytest.approx([e.train_loss for e in alone.history], abs=1e-5)
    for name, tensor in alone.model.state_dict().items():
        torch.testing.assert_close(together.model.state_dict()[name], tensor, atol=1e-5, rtol=0, msg=name)
    assert run_file.is_file()


def test_the_cnn_is_trained_by_two_workers_too() -> None:
    config, how = toy_config(), UnfreezeConfig(blocks=2, learning_rate=1e-3)
    toy = toy_model(config)
    model = JointModel(toy.encoder, toy.sequence)
    unfreeze(model.encoder, how)
    before: dict[str, Tensor] = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    groups = [*parameter_groups(model.encoder, how), {"params": list(model.sequence.parameters())}]
    fitted = by_workers(pixels, model, config=config, groups=groups)
    moved = {n for n, t in fitted.model.encoder.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {name for name, p in model.encoder.named_parameters() if p.requires_grad}
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss


def test_while_workers_are_at_work_nothing_listens_beyond_the_loopback(tmp_path: Path) -> None:
    """In a process of its own, in which nobody has imported Ray before."""
    for label in "ab":
        (tmp_path / "clips" / label).mkdir(parents=True)
    for number in range(8):
        write_clip(tmp_path / "clips" / "ab"[number % 2] / f"{number}.mp4", num_frames=10 + number)
    small = ("--backbone", "timm:test_efficientnet", "--weights", "none", "--size", "32", "--epochs", "2")
    command = [sys.executable, "-m", "vidseq", "train", "clips", "--out", "model", *small, "--unfreeze", "1"]
    heard: set[Listener] = set()
    with subprocess.Popen([*command, "--workers", "2"], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            heard.update(listeners({process.pid, *descendants(process.pid)}))
            time.sleep(0.2)
    assert process.returncode == 0
    assert any(listener.name.startswith("ray::RayTrainWo") for listener in heard), "workers were there to be heard"
    assert {listener for listener in heard if not listener.address.is_loopback} == set()


def test_an_error_in_a_worker_is_the_same_error_here() -> None:
    error = OptionError("lower learning_rate (5)")
    with pytest.raises(OptionError, match=r"^lower learning_rate \(5\)$"):
        by_workers(partial(no_sides, error), untrained(), config=steady_config())


def test_of_several_errors_the_one_with_a_sentence_is_told_and_any_other_is_put_into_one() -> None:
    from ray.train import WorkerGroupError

    from training.loop.distributed import told

    lost, sentence = RuntimeError("Connection closed by peer\nsomewhere"), TrainingStopped("memory is used up")
    assert told(WorkerGroupError("", {0: lost, 1: sentence})) is sentence
    assert str(told(WorkerGroupError("", {1: lost}))) == "worker 1 failed: RuntimeError: Connection closed by peer"


def test_more_workers_than_cores_are_refused() -> None:
    with pytest.raises(OptionError, match="3 workers need 3 CPUs; Ray has 2"):
        by_workers(features, untrained(), config=steady_config(), num_workers=3)
