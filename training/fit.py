"""The training loop: features and targets in, a trained sequence model out. Knows nothing of clips.

    epoch:  shuffle -> batch -> masked losses of both heads -> clip gradients -> AdamW -> cosine
            validate -> keep the best -> save everything -> stop when it no longer gets better

A run that was killed continues from its last epoch and ends with the same weights as one that was not.

Shape letters: B clips, T frames, D feature size.
"""

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load when a file asks for more than tensors
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from training.example import Example
from training.targets import IGNORED, delayed
from vidseq.config import Config, ModelConfig, PositiveInt, Share
from vidseq.errors import OptionError
from vidseq.model import SequenceModel


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


@dataclass(frozen=True)
class Epoch:
    """What is reported after each epoch. Without validation clips there is no loss of theirs, and the last is best."""

    number: int
    train_loss: float
    validation_loss: float | None
    best_epoch: int
    gradient_norm: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """The model of the best epoch, in evaluation mode."""

    model: SequenceModel
    best_epoch: int


@contextmanager
def _one_thread() -> Iterator[None]:
    """The models are small: more threads cost more than they bring, and one gives the same sums on every machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@_one_thread()
def fit(
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    config: ModelConfig,
    settings: FitConfig,
    run_file: Path | None,
    on_epoch: Callable[[Epoch], None],
    on_resume: Callable[[int], None] = lambda num_epochs: None,
) -> Fitted:
    """Train one model. Without validation clips it runs all its epochs and keeps the last.

    Args:
        run_file: where the run is saved after every epoch and found again after a kill; None keeps nothing.
        on_epoch: told after every epoch.
        on_resume: told once how many epochs were found in `run_file`, if any.

    Raises:
        OptionError: the loss is not finite, or `run_file` is damaged or belongs to a run with other settings or data.
    """
    torch.manual_seed(settings.seed)
    model = SequenceModel(config, feature_size=train[0].feature_TD.shape[1])
    run = _Run(model, settings, steps_an_epoch=math.ceil(len(train) / settings.batch_size))
    belongs_to = "" if run_file is None else _hash(config, settings, train, validation)
    if run_file is not None and run_file.exists():
        run.restore(run_file, belongs_to=belongs_to)
        on_resume(run.epoch)
    while run.epoch < settings.epochs and run.epoch - run.best_epoch < settings.patience_epochs:
        train_loss, gradient_norm = run.train_epoch(train)
        validation_loss = _validation_loss(model, validation, settings) if validation else None
        run.finish_epoch(validation_loss)
        if run_file is not None:
            run.save(run_file, belongs_to=belongs_to)
        on_epoch(Epoch(run.epoch, train_loss, validation_loss, run.best_epoch, gradient_norm))
    model.load_state_dict(run.best_weights)
    return Fitted(model.eval(), run.best_epoch)


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
            loss = _weighted(*_losses(self.model, batch, self.settings), self.settings)
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

    def finish_epoch(self, validation_loss: float | None) -> None:
        self.epoch += 1
        if validation_loss is None or validation_loss < self.best_loss:
            self.best_loss = math.inf if validation_loss is None else validation_loss
            self.best_epoch, self.best_weights = self.epoch, _copy(self.model)

    def save(self, path: Path, *, belongs_to: str) -> None:
        """Written beside its final name and renamed, so that a kill or a power cut leaves the epoch before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        saved = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),
            "progress": {"epoch": self.epoch, "best_epoch": self.best_epoch, "best_loss": self.best_loss},
            "best_weights": self.best_weights,
            "belongs_to": belongs_to,
        }
        with fresh.open("wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def restore(self, path: Path, *, belongs_to: str) -> None:
        """Continue where `save` left off; tensors and plain values only are read, nothing is unpickled.

        Raises:
            OptionError: the file is damaged, or belongs to a run with other settings or data.
        """
        content = path.read_bytes()
        try:
            saved: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
            if saved["belongs_to"] != belongs_to:
                raise OptionError(
                    f"{path} belongs to a run with other settings or other clips: remove it, or choose another folder"
                )
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.order.set_state(saved["order"])
            torch.set_rng_state(saved["random"])
            self.best_weights = saved["best_weights"]
            progress = saved["progress"]
            self.epoch, self.best_epoch, self.best_loss = (progress[k] for k in ("epoch", "best_epoch", "best_loss"))
        except (EOFError, UnpicklingError, RuntimeError, KeyError, TypeError, ValueError):
            raise OptionError(f"{path} is damaged: remove it to start again") from None


def _hash(config: ModelConfig, settings: FitConfig, *parts: Sequence[Example]) -> str:
    """Of all that the weights follow from: settings, features, targets, and on which side each clip is."""
    digest = hashlib.sha256(f"{config.model_dump_json()}\n{settings.model_dump_json()}".encode())
    for part in parts:
        digest.update(f"\n{len(part)} clips".encode())
        for example in part:
            target_A = example.action_target_A
            digest.update(
                f"\n{tuple(example.feature_TD.shape)} {None if target_A is None else target_A.tolist()}\n".encode()
            )
            digest.update(example.feature_TD.contiguous().numpy().data)
            digest.update(example.frame_target_T.contiguous().numpy().data)
    return digest.hexdigest()


def _losses(model: SequenceModel, batch: Sequence[Example], settings: FitConfig) -> tuple[Tensor, Tensor]:
    """Of the action head and the frame head: the summed cross-entropy, and over how many labels it is summed.

    A clip without a label, or a frame without one, counts for nothing; so does a head that the model does not have.
    """
    lengths_B = torch.tensor([len(example.feature_TD) for example in batch])
    feature_BTD = pad_sequence([example.feature_TD for example in batch], batch_first=True)
    scores, _ = model(feature_BTD, None, lengths_B)
    action_loss, num_clips = frame_loss, num_frames = feature_BTD.new_zeros(()), torch.tensor(0)
    if scores.action_logits_BTA is not None:
        logits_BA = scores.action_logits_BTA[torch.arange(len(batch)), lengths_B - 1]
        action_loss, num_clips = _action_loss(logits_BA, [example.action_target_A for example in batch], settings)
    if scores.frame_logits_BTL is not None:
        lookahead_frames = model.config.lookahead_frames
        targets = [delayed(example.frame_target_T, lookahead_frames=lookahead_frames) for example in batch]
        target_BT = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
        frame_loss, num_frames = _frame_loss(scores.frame_logits_BTL, target_BT, settings)
    return torch.stack([action_loss, frame_loss]), torch.stack([num_clips, num_frames])


def _action_loss(logits_BA: Tensor, targets: Sequence[Tensor | None], settings: FitConfig) -> tuple[Tensor, Tensor]:
    known = [row for row, target_A in enumerate(targets) if target_A is not None]
    if not known:
        return logits_BA.new_zeros(()), torch.tensor(0)
    target_NA = torch.stack([target_A for target_A in targets if target_A is not None])
    loss = functional.cross_entropy(
        logits_BA[known], target_NA, label_smoothing=settings.label_smoothing, reduction="sum"
    )
    return loss, torch.tensor(len(known))


def _frame_loss(logits_BTL: Tensor, target_BT: Tensor, settings: FitConfig) -> tuple[Tensor, Tensor]:
    loss = functional.cross_entropy(
        logits_BTL.flatten(0, 1),
        target_BT.flatten(),
        ignore_index=IGNORED,
        label_smoothing=settings.label_smoothing,
        reduction="sum",
    )
    return loss, (target_BT != IGNORED).sum()


def _weighted(loss_2: Tensor, count_2: Tensor, settings: FitConfig) -> Tensor:
    """One number to minimise, from what `_losses` gives of a batch or of many."""
    mean_2 = loss_2 / count_2.clamp(min=1)
    return mean_2[0] + settings.frame_loss_weight * mean_2[1]


@torch.no_grad()
def _validation_loss(model: SequenceModel, examples: Sequence[Example], settings: FitConfig) -> float:
    """The same whatever the batches: summed over all of them before it is divided."""
    model.eval()
    batches = _batches(examples, settings.batch_size, order=None)
    losses, counts = zip(*(_losses(model, batch, settings) for batch in batches), strict=True)
    return _weighted(torch.stack(losses).sum(dim=0), torch.stack(counts).sum(dim=0), settings).item()


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
