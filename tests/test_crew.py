"""Two processes that train one model come to the same weights, and to those of one process alone."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch import Tensor

from tests.toy_examples import two_orders, two_orders_config
from training.data.example import Example
from training.data.targets import IGNORED
from training.loop.batches import learning_batches
from training.loop.crew import ALONE, Crew
from training.loop.fit import build_model, fit_model
from training.loop.progress import Epoch
from training.settings import FitConfig
from vidseq.model import SequenceModel

SETTINGS = FitConfig(epochs=2, batch_size=8, learning_rate=1e-2)


def unevenly_labelled() -> tuple[list[Example], list[Example]]:
    """21 clips of unequal lengths, some without labels, and 5 others: the shares of a batch differ in every way."""
    train = [
        example.unlabelled() if number % 5 == 0 else example for number, example in enumerate(two_orders(21, seed=1))
    ]
    return train, two_orders(5, seed=2)


class Killed(Exception):
    pass


def kill(epoch: Epoch) -> None:
    raise Killed


def trained(
    crew: Crew, *, run_file: Path | None = None, on_epoch: Callable[[Epoch], None] = lambda epoch: None
) -> tuple[dict[str, Tensor], list[float | None]]:
    train, validation = unevenly_labelled()
    config = two_orders_config()
    config = config.model_copy(update={"recurrent": config.recurrent.model_copy(update={"dropout": 0.0})})
    fitted = fit_model(
        build_model(train, config, seed=0),
        train,
        validation,
        config=config,
        settings=SETTINGS,
        run_file=run_file,
        on_epoch=on_epoch,
        crew=crew,
    )
    losses = [loss for epoch in fitted.history for loss in (epoch.train_loss, epoch.validation_loss)]
    return fitted.model.state_dict(), losses


def work(rank: int, folder: Path) -> None:
    """One of two workers, which are killed after an epoch and go on; it leaves its weights in the folder."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    assert Crew.here() == Crew(rank, 2)
    with pytest.raises(Killed):
        trained(Crew.here(), run_file=folder / "run.pt", on_epoch=kill)
    torch.distributed.barrier()
    weights, losses = trained(Crew.here(), run_file=folder / "run.pt")
    assert Crew.here().agree(b"the same") and not Crew.here().agree(b"%d" % rank)
    torch.save({"weights": weights, "losses": losses}, folder / f"worker{rank}.pt")
    torch.distributed.destroy_process_group()
    # At once: a thread of Gloo's that has yet to let go of the last tensor needs the interpreter for it, and aborts the
    # process where that is ending (torch 2.15). A worker of Ray's does not end by itself.
    os._exit(0)


@pytest.mark.slow
def test_two_workers_end_as_one_does_with_the_same_batches(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    one, other = (torch.load(tmp_path / f"worker{rank}.pt", weights_only=True) for rank in (0, 1))
    alone_weights, alone_losses = trained(ALONE)
    assert one["losses"] == other["losses"] == pytest.approx(alone_losses, abs=1e-5)
    for name, tensor in alone_weights.items():
        assert torch.equal(one["weights"][name], other["weights"][name]), name
        torch.testing.assert_close(one["weights"][name], tensor, atol=1e-5, rtol=0, msg=name)


def test_the_shares_of_a_batch_are_the_batch() -> None:
    shares = [Crew(rank, 3).share(range(8)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(8))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_worker_for_whom_there_is_no_clip_learns_nothing_from_one_without_labels() -> None:
    chance = np.random.default_rng(0)
    (rows,) = learning_batches(two_orders(4, seed=1), SETTINGS, chance=chance, crew=Crew(5, 6))
    (part,) = rows[0].parts
    assert part.example.action_target_A is None and bool((part.example.frame_target_T == IGNORED).all())


def test_alone_a_model_is_called_as_it_is() -> None:
    model = SequenceModel(two_orders_config(), feature_size=4)
    assert ALONE.together(model) is model and ALONE.leads
    assert torch.equal(ALONE.total(torch.ones(2)), torch.ones(2))
