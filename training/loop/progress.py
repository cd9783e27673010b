"""All that changes while a model is trained, so that a run may be killed at any point and go on. Knows no clips.

What is saved after an epoch is all that the next one depends on: weights and their running mean, the optimiser, the
schedule, the best so far, the history. Chance is not among it: an epoch draws from generators that are seeded with the
run's seed and the epoch's number, so that it is the same whenever it is begun.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load when a file asks for more than tensors
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.settings import FitConfig
from vidseq.errors import OptionError, TrainingStopped

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Epoch:
    """What is reported after each epoch, and kept. Without validation clips there is no loss of theirs, and the last is
    best.

    `gradient_norm` is the mean over the epoch's updates, before clipping; `clipped_share` of them were clipped;
    `learning_rate` is that of the last.
    """

    number: int
    train_loss: float
    validation_loss: float | None
    best_epoch: int
    gradient_norm: float
    clipped_share: float
    learning_rate: float


class Run(Generic[M]):
    """A model on its way: `judged` is what is validated and kept, the running mean of the weights if there is one.

    Args:
        groups: parameters with a learning rate of their own, as torch's optimisers take them; all of the model's with
            that of `settings` if there are none.
        batches_an_epoch: the learning rate moves after each batch, however many updates that makes.
        belongs_to: a hash of all that the weights follow from.
    """

    def __init__(
        self,
        model: M,
        settings: FitConfig,
        *,
        groups: Sequence[Mapping[str, Any]] = (),
        batches_an_epoch: int,
        belongs_to: str,
    ) -> None:
        self.model, self.settings, self.belongs_to = model, settings, belongs_to
        self.averaged: AveragedModel | None = None
        if settings.average_decay:
            self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay))
        self.optimizer = torch.optim.AdamW(
            [dict(group) for group in groups] or model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        num_steps = settings.epochs * batches_an_epoch
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _warm_cosine(step, num_steps=num_steps, warmup_share=settings.warmup_share)
        )
        self.best_epoch = 0
        self.best_loss = math.inf
        self.best_weights = _copy(self.judged)
        self.history: list[Epoch] = []

    @property
    def epoch(self) -> int:
        """How many are done."""
        return len(self.history)

    @property
    def judged(self) -> M:
        return self.model if self.averaged is None else cast("M", self.averaged.module)

    @property
    def is_over(self) -> bool:
        return self.epoch >= self.settings.epochs or self.epoch - self.best_epoch >= self.settings.patience_epochs

    @property
    def learning_rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def chance(self) -> np.random.Generator:
        """The source of all that the coming epoch draws; torch's own, for dropout, is seeded from it."""
        chance = np.random.default_rng((self.settings.seed, self.epoch))
        torch.manual_seed(int(chance.integers(2**63)))
        return chance

    def finish_epoch(
        self, *, train_loss: float, validation_loss: float | None, gradient_norm: float, clipped_share: float
    ) -> Epoch:
        number = self.epoch + 1
        if validation_loss is None or validation_loss < self.best_loss:
            self.best_loss = math.inf if validation_loss is None else validation_loss
            self.best_epoch, self.best_weights = number, _copy(self.judged)
        epoch = Epoch(
            number, train_loss, validation_loss, self.best_epoch, gradient_norm, clipped_share, self.learning_rate
        )
        self.history.append(epoch)
        return epoch

    def best(self) -> M:
        """The model of the best epoch, in evaluation mode."""
        self.judged.load_state_dict(self.best_weights)
        return self.judged.eval()

    def save(self, path: Path) -> None:
        """Written beside its final name and renamed, so that a kill or a power cut leaves the epoch before.

        Raises:
            TrainingStopped: there is no room; the epoch before is still there.
        """
        saved = {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "best": {"epoch": self.best_epoch, "loss": self.best_loss, "weights": self.best_weights},
            "history": [asdict(epoch) for epoch in self.history],
            "belongs_to": self.belongs_to,
        }
        content = io.BytesIO()
        torch.save(saved, content)
        fresh = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            then = f"goes on after epoch {self.epoch - 1}" if self.epoch > 1 else "begins again"
            raise TrainingStopped(
                f"epoch {self.epoch} cannot be saved: {error.strerror}: {path}; make room and give the same command "
                f"again: it {then}"
            ) from error

    def restore(self, path: Path) -> None:
        """Continue where `save` left off; tensors and plain values only are read, nothing is unpickled.

        Raises:
            OptionError: the file is damaged, or belongs to a run with other settings or data.
        """
        saved = _read(path)
        try:
            if saved["belongs_to"] != self.belongs_to:
                raise OptionError(
                    f"{path} belongs to a run with other settings or other clips: remove it, or choose another folder"
                )
            for name, part in self._parts().items():
                part.load_state_dict(saved[name])
            best = saved["best"]
            self.best_epoch, self.best_loss, self.best_weights = best["epoch"], best["loss"], best["weights"]
            self.history = [Epoch(**epoch) for epoch in saved["history"]]
        except (RuntimeError, KeyError, TypeError, ValueError):
            raise _damaged(path) from None

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        return parts if self.averaged is None else {**parts, "averaged": self.averaged}


def best_weights(path: Path) -> dict[str, Tensor]:
    """The weights of the best epoch so far, from the file of a run that did not end.

    Raises:
        OptionError: the file is damaged.
    """
    try:
        weights: dict[str, Tensor] = _read(path)["best"]["weights"]
        return weights
    except (KeyError, TypeError):
        raise _damaged(path) from None


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    try:
        saved: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    except (EOFError, UnpicklingError, RuntimeError, KeyError, TypeError, ValueError):
        raise _damaged(path) from None
    return saved


def _damaged(path: Path) -> OptionError:
    return OptionError(f"{path} is damaged: remove it to start again")


def _warm_cosine(step: int, *, num_steps: int, warmup_share: float) -> float:
    warmup_steps = max(1, round(warmup_share * num_steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, num_steps - warmup_steps)))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
