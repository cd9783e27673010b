"""The training loop on several workers, machines or GPUs through Ray Train. Knows nothing of clips or of models.

    here                        workers, one process each
    fit_together  -> model ->   fit_model as Crew(rank, num_workers), gradients by DistributedDataParallel
    on_epoch      <- epochs <-  the leader
    Fitted        <- weights <- the leader

A run with N workers takes the steps that one process would take with the same settings: each batch is shared out.
Ray has to be connected (serving.local_ray does it). What lies on disk, the cache of clips and `run_file`, has to be
seen by all workers: one machine, or a shared folder.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch.distributed
from ray.train import LoggingConfig, RunConfig, ScalingConfig, WorkerGroupError, get_context
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Empty, Queue
from safetensors.torch import save
from torch import Tensor, nn

from training.data.example import Example
from training.loop.crew import Crew
from training.loop.fit import Fitted, fit_model
from training.loop.progress import Epoch
from training.settings import FitConfig
from vidseq.config import ModelConfig
from vidseq.errors import OptionError, TrainingStopped, VidseqError

M = TypeVar("M", bound=nn.Module)
Sides = tuple[Sequence[Example], Sequence[Example]]

_POLL_SECONDS = 0.2


@dataclass(frozen=True, eq=False)
class _Best:
    """What the leader sends at the end."""

    weights: dict[str, Tensor]
    epoch: int
    history: tuple[Epoch, ...]


def fit_together(
    model: M,
    sides: Callable[[], Sides],
    *,
    num_workers: int,
    device: str,
    config: ModelConfig,
    settings: FitConfig,
    groups: Sequence[Mapping[str, Any]] = (),
    run_file: Path | None,
    on_epoch: Callable[[Epoch], None],
    on_resume: Callable[[int], None] = lambda num_epochs: None,
) -> Fitted[M]:
    """`training.loop.fit.fit_model` by `num_workers` processes; `model` here has the best weights afterwards.

    Args:
        sides: gives the examples to learn from and to validate on; called in each worker, so that what is large is
            read there from disk and not sent.
        device: `cpu`, a core for each worker, or `cuda`, a GPU for each.

    Raises:
        OptionError: Ray has not as many cores or GPUs; and whatever fit_model raises in a worker.
        TrainingStopped: a worker died, or failed in a way that is not its settings'.
    """
    use_gpu = device.startswith("cuda")
    _check_room(num_workers, use_gpu=use_gpu)
    news = Queue(actor_options={"num_cpus": 0})
    job: dict[str, Any] = {
        "model": model,
        "groups": groups,  # one pickle with the model: they stay the model's own parameters
        "sides": sides,
        "config": config,
        "settings": settings,
        "run_file": None if run_file is None else run_file.absolute(),  # workers have a working folder of their own
        "use_gpu": use_gpu,
        "news": news,
    }
    with _scratch(job["run_file"]) as scratch:
        trainer = _trainer(job, num_workers=num_workers, scratch=scratch)
        best = _follow(_begun(trainer), news, on_epoch=on_epoch, on_resume=on_resume)
    model.load_state_dict(best.weights)
    return Fitted(model.eval(), best.epoch, best.history)


@contextmanager
def _scratch(run_file: Path | None) -> Iterator[Path]:
    """A folder for what Ray Train keeps of a run: beside `run_file`, because several machines have to see it."""
    folder = None if run_file is None else run_file.parent
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ray-", dir=folder) as scratch:
        yield Path(scratch)


def _trainer(job: dict[str, Any], *, num_workers: int, scratch: Path) -> TorchTrainer:
    use_gpu = job["use_gpu"]
    ways: dict[str, Any] = {  # a dictionary, because mypy sees the RunConfig of Ray Train's first version
        "storage_path": str(scratch),
        "logging_config": LoggingConfig(log_level="CRITICAL"),
    }
    backend = "cpu:gloo,cuda:nccl" if use_gpu else "gloo"  # counts are summed on the CPU, wherever the model is
    on_loopback = ray.util.get_node_ip_address() == "127.0.0.1"
    return TorchTrainer(
        _work,
        train_loop_config={**job, "meeting": _Meeting(backend, scratch / "meeting") if on_loopback else None},
        torch_config=(_Unmet if on_loopback else TorchConfig)(backend=backend),
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=RunConfig(**ways),
    )


class _Apart(Backend):
    """Leaves it to the workers to find each other."""

    share_cuda_visible_devices = True  # as Ray's own for torch


@dataclass
class _Unmet(TorchConfig):
    @property
    def backend_cls(self) -> type[Backend]:
        return _Apart


@dataclass(frozen=True)
class _Meeting:
    """How workers of one machine find each other: by a file. Through Ray, torch would listen on every interface."""

    backend: str
    file: Path

    def join(self) -> None:
        os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
        here = get_context()
        torch.distributed.init_process_group(
            self.backend,
            init_method=f"file://{self.file}",
            rank=here.get_world_rank(),
            world_size=here.get_world_size(),
        )


def _work(job: dict[str, Any]) -> None:
    """What each worker does; the leader tells of it."""
    if job["meeting"] is not None:
        job["meeting"].join()
    crew, news = Crew.here(), job["news"]
    tell: Callable[[Any], None] = news.put if crew.leads else lambda message: None
    train, validation = job["sides"]()
    fitted: Fitted[nn.Module] = fit_model(
        job["model"].to(get_device() if job["use_gpu"] else "cpu"),
        train,
        validation,
        config=job["config"],
        settings=job["settings"],
        groups=job["groups"],
        run_file=job["run_file"],
        on_epoch=tell,
        on_resume=tell,
        crew=crew,
    )
    weights = {name: tensor.cpu().contiguous() for name, tensor in fitted.model.state_dict().items()}
    assert crew.agree(save(weights)), "the workers have come to different weights"
    tell(_Best(weights, fitted.best_epoch, fitted.history))
    if job["meeting"] is not None:
        torch.distributed.destroy_process_group()


def _begun(trainer: TorchTrainer) -> "Future[None]":
    """The training, in a thread of its own: an interrupt reaches this one, and Ray leaves its handler alone."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            trainer.fit()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="vidseq-train", daemon=True).start()
    return done


def _follow(
    done: "Future[None]", news: Queue, *, on_epoch: Callable[[Epoch], None], on_resume: Callable[[int], None]
) -> _Best:
    """Pass on what the leader tells, up to the end."""
    while True:
        try:
            message = news.get(timeout=_POLL_SECONDS)
        except Empty:
            if done.done():
                raise told(done.exception()) from done.exception()
            continue
        if isinstance(message, _Best):
            done.exception()  # waits until the workers have gone
            return message
        on_epoch(message) if isinstance(message, Epoch) else on_resume(message)


def told(error: BaseException | None) -> VidseqError:
    """One sentence for what ended the workers: of several, the first with a sentence of its own.

    When one fails, the others only see that it has gone.
    """
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    for _, failure in sorted(failures.items()):
        if isinstance(failure, VidseqError):
            return failure
    for rank, failure in sorted(failures.items()):
        return TrainingStopped(f"worker {rank} failed: {type(failure).__name__}: {failure}".splitlines()[0])
    return TrainingStopped(f"the workers could not be run: {error}".splitlines()[0])


def _check_room(num_workers: int, *, use_gpu: bool) -> None:
    """Ray would wait for ever for what it does not have."""
    resource, name = ("GPU", "GPUs") if use_gpu else ("CPU", "CPUs")
    num_there = int(ray.cluster_resources().get(resource, 0))
    if num_workers > num_there:
        raise OptionError(f"{num_workers} workers need {num_workers} {name}; Ray has {num_there}")
