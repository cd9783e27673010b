"""The training loop: features and targets in, a trained sequence model out. Knows nothing of clips.

    epoch:  shuffle -> batch -> masked losses of both heads -> clip gradients -> AdamW -> cosine
            validate -> keep the best -> save everything -> stop when it no longer gets better

A run that was killed continues from its last epoch and ends with the same weights as one that was not.

Shape letters: B clips, T frames, D feature size.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from vidseq.config import Config, ModelConfig, PositiveInt, Share
from vidseq.errors import OptionError
from vidseq.model import SequenceModel

IGNORED = -1  # the target of what has no label


class FitConfig(Config):
    """How a sequence model is trained. Learning rate rises over `warmup_share` of the steps, then falls as a cosine."""

    epochs: PositiveInt = 60
    batch_size: PositiveInt = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_share: Share = 0.1
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    label_smoothing: Share = 0.1
    frame_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    patience_epochs: PositiveInt = 20
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, eq=False)
class Example:
    """One clip as the loop sees it; targets are label indices, `IGNORED` where there is none."""

    feature_TD: Tensor
    action_target: int
    frame_target_T: Tensor


@dataclass(frozen=True)
class Epoch:
    """What is reported after each epoch: mean losses, and the best validation loss so far with its epoch."""

    number: int
    train_loss: float
    validation_loss: float
    best_epoch: int
    gradient_norm: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """The model of the best epoch, in evaluation mode."""

    model: SequenceModel
    best_epoch: int


def fit(
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    config: ModelConfig,
    settings: FitConfig,
    run_file: Path | None,
    on_epoch: Callable[[Epoch], None],
) -> Fitted:
    """Train one model. Without validation clips it runs all its epochs and keeps the last.

    Args:
        run_file: where the run is saved after every epoch and found again after a kill; None keeps nothing.
        on_epoch: told after every epoch.
    """
    with _one_thread():
        return _fit(train, validation, config, settings, run_file, on_epoch)


def _fit(
    train: Sequence[Example],
    validation: Sequence[Example],
    config: ModelConfig,
    settings: FitConfig,
    run_file: Path | None,
    on_epoch: Callable[[Epoch], None],
) -> Fitted:
    torch.manual_seed(settings.seed)
    model = SequenceModel(config, feature_size=train[0].feature_TD.shape[1])
    run = _Run(model, settings, steps_an_epoch=math.ceil(len(train) / settings.batch_size))
    if run_file is not None and run_file.exists():
        run.restore(run_file)
    while run.epoch < settings.epochs and run.epoch - run.best_epoch < settings.patience_epochs:
        train_loss, gradient_norm = run.train_epoch(train)
        validation_loss = _mean_loss(model, validation, settings) if validation else -float(run.epoch)
        run.finish_epoch(validation_loss)
        if run_file is not None:
            run.save(run_file)
        on_epoch(Epoch(run.epoch, train_loss, validation_loss, run.best_epoch, gradient_norm))
    model.load_state_dict(run.best_weights)
    return Fitted(model.eval(), run.best_epoch)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The models are small: more threads cost more than they bring, and one gives the same sums on every machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


class _Run:
    """Everything that changes while training, so that all of it can be saved and restored."""

    def __init__(self, model: SequenceModel, settings: FitConfig, *, steps_an_epoch: int) -> None:
        self.model, self.settings = model, settings
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        num_steps = settings.epochs * steps_an_epoch
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _warm_cosine(step, num_steps=num_steps, warmup_share=settings.warmup_share)
        )
        self.order = torch.Generator().manual_seed(settings.seed)
        self.epoch = 0
        self.best_epoch = 0
        self.best_loss = math.inf
        self.best_weights = _copy(model)

    def train_epoch(self, examples: Sequence[Example]) -> tuple[float, float]:
        """The mean loss of the epoch, and the mean norm of its gradients before clipping."""
        self.model.train()
        losses, norms = [], []
        for batch in _batches(examples, self.settings.batch_size, order=self.order):
            loss = _loss(self.model, batch, self.settings)
            self.optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm).item())
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        mean_loss = sum(losses) / len(losses)
        if not math.isfinite(mean_loss):
            rate = self.settings.learning_rate
            raise OptionError(f"the loss is {mean_loss} in epoch {self.epoch + 1}: lower learning_rate ({rate:g})")
        return mean_loss, sum(norms) / len(norms)

    def finish_epoch(self, validation_loss: float) -> None:
        self.epoch += 1
        if validation_loss < self.best_loss:
            self.best_loss, self.best_epoch, self.best_weights = validation_loss, self.epoch, _copy(self.model)

    def save(self, path: Path) -> None:
        """Written beside its final name and renamed, so that a kill leaves the epoch before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "order": self.order.get_state(),
                "random": torch.get_rng_state(),
                "progress": {"epoch": self.epoch, "best_epoch": self.best_epoch, "best_loss": self.best_loss},
                "best_weights": self.best_weights,
                "belongs_to": self._belongs_to(),
            },
            fresh,
        )
        fresh.replace(path)

    def restore(self, path: Path) -> None:
        """Continue where `save` left off; tensors and plain values only are read, nothing is unpickled.

        Raises:
            OptionError: the file belongs to a run with other settings.
        """
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        if saved["belongs_to"] != self._belongs_to():
            raise OptionError(f"{path} belongs to a run with other settings: remove it, or choose another folder")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.order.set_state(saved["order"])
        torch.set_rng_state(saved["random"])
        self.best_weights = saved["best_weights"]
        progress = saved["progress"]
        self.epoch, self.best_epoch, self.best_loss = (progress[k] for k in ("epoch", "best_epoch", "best_loss"))

    def _belongs_to(self) -> str:
        return self.model.config.model_dump_json() + self.settings.model_dump_json()


def _loss(model: SequenceModel, batch: Sequence[Example], settings: FitConfig) -> Tensor:
    """The sum of both heads' cross-entropies; a clip without a label, or a frame without one, counts for nothing."""
    lengths_B = torch.tensor([len(example.feature_TD) for example in batch])
    feature_BTD = pad_sequence([example.feature_TD for example in batch], batch_first=True)
    scores, _ = model(feature_BTD, None, lengths_B)
    loss = feature_BTD.new_zeros(())
    if scores.action_logits_BTA is not None:
        logits_BA = scores.action_logits_BTA[torch.arange(len(batch)), lengths_B - 1]
        target_B = torch.tensor([example.action_target for example in batch])
        loss = loss + _cross_entropy(logits_BA, target_B, settings)
    if scores.frame_logits_BTL is not None:
        targets = [example.frame_target_T for example in batch]
        target_BT = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
        frames = _cross_entropy(scores.frame_logits_BTL.flatten(0, 1), target_BT.flatten(), settings)
        loss = loss + settings.frame_loss_weight * frames
    return loss


def _cross_entropy(logits_NK: Tensor, target_N: Tensor, settings: FitConfig) -> Tensor:
    labelled_N = target_N != IGNORED
    if not labelled_N.any():
        return 0 * logits_NK.sum()  # still a function of the weights, so that it can be differentiated
    return functional.cross_entropy(
        logits_NK[labelled_N], target_N[labelled_N], label_smoothing=settings.label_smoothing
    )


@torch.no_grad()
def _mean_loss(model: SequenceModel, examples: Sequence[Example], settings: FitConfig) -> float:
    model.eval()
    batches = list(_batches(examples, settings.batch_size, order=None))
    weighted = [_loss(model, batch, settings).item() * len(batch) for batch in batches]
    return sum(weighted) / len(examples)


def _batches(examples: Sequence[Example], size: int, *, order: torch.Generator | None) -> Iterator[list[Example]]:
    count = len(examples)
    indices = list(range(count)) if order is None else torch.randperm(count, generator=order).tolist()
    for start in range(0, count, size):
        yield [examples[index] for index in indices[start : start + size]]


def _warm_cosine(step: int, *, num_steps: int, warmup_share: float) -> float:
    warmup_steps = max(1, round(warmup_share * num_steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, num_steps - warmup_steps)))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
