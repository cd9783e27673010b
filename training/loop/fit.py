"""The training loop: examples in, a trained model out. Knows nothing of clips, nor of what is in a model.

    epoch:  batches -> chunks -> masked losses of both heads -> clip gradients -> AdamW, for each chunk -> cosine
            validate -> keep the best -> save everything -> stop when it no longer gets better

A run that was killed continues from its last epoch and ends with the same weights as one that was not.

Shape letters: B clips, T frames, D feature size, A action labels.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from training.data.example import Example
from training.loop.batches import count_batches, learning_batches, measuring_batches
from training.loop.chunks import Chunk, Reading
from training.loop.crew import ALONE, Crew
from training.loop.losses import Losses
from training.loop.progress import Epoch, Run
from training.settings import FitConfig, check_together
from vidseq.config import ModelConfig
from vidseq.errors import TrainingStopped
from vidseq.model import Scores, SequenceModel
from vidseq.state import State

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Fitted(Generic[M]):
    """The model of the best epoch, in evaluation mode, and what was reported on the way."""

    model: M
    best_epoch: int
    history: tuple[Epoch, ...]


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
) -> Fitted[SequenceModel]:
    """Train one sequence model on features. Without validation clips it runs all its epochs and keeps the last.

    Args:
        run_file: where the run is saved after every epoch and found again after a kill; None keeps nothing.
        on_epoch: told after every epoch.
        on_resume: told once how many epochs were found in `run_file`, if any.

    Raises:
        OptionError: settings that do not go together, or `run_file` is damaged or belongs to a run with other settings
            or data.
        TrainingStopped: the loss is not finite, or memory or room on the disk is used up; what was learnt up to the
            epoch before is in `run_file`.
    """
    return fit_model(
        build_model(train, config, seed=settings.seed),
        train,
        validation,
        config=config,
        settings=settings,
        run_file=run_file,
        on_epoch=on_epoch,
        on_resume=on_resume,
    )


def build_model(train: Sequence[Example], config: ModelConfig, *, seed: int) -> SequenceModel:
    """A sequence model as it is before its first step: seeded weights, features normalised as those of `train` are."""
    torch.manual_seed(seed)
    model = SequenceModel(config, feature_size=train[0].feature_TD.shape[1])
    if config.recurrent.normalisation == "standard":
        model.recurrent.learn_normalisation(example.feature_TD for example in train)
    return model


def fit_model(
    model: M,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    config: ModelConfig,
    settings: FitConfig,
    groups: Sequence[Mapping[str, Any]] = (),
    run_file: Path | None,
    on_epoch: Callable[[Epoch], None],
    on_resume: Callable[[int], None] = lambda num_epochs: None,
    crew: Crew = ALONE,
) -> Fitted[M]:
    """`fit` for any model that is called as a `SequenceModel` is: scores, state = model(input, state, lengths_B).

    Its weights are where training begins. What goes in is what the examples call features, and may be pixels.

    Args:
        groups: parameters with learning rates of their own, see `training.loop.progress.Run`.
        crew: who trains along; each calls this with the same arguments, and the leader alone saves.
    """
    check_together(config, settings)
    belongs_to = "" if run_file is None else _hash(model, config, settings, (train, validation))
    run = Run(model, settings, groups=groups, batches_an_epoch=count_batches(train, settings), belongs_to=belongs_to)
    if run_file is not None and run_file.exists():
        run.restore(run_file)
        on_resume(run.epoch)
    together = crew.together(model)
    learning = Losses.learning(train, config, settings)
    measuring = Losses.measuring(train, config, settings)
    while not run.is_over:
        with _told_in_a_sentence(run, run_file):
            reading = Reading.learning(config, settings)
            steps = _train_epoch(run, train, model=together, losses=learning, reading=reading, crew=crew)
            reading = Reading.measuring(config, settings)
            loss = (
                _validation_loss(run, validation, losses=measuring, reading=reading, crew=crew) if validation else None
            )
        epoch = run.finish_epoch(
            train_loss=steps.mean_loss,
            validation_loss=loss,
            gradient_norm=steps.mean_norm,
            clipped_share=steps.clipped_share,
        )
        if run_file is not None and crew.leads:
            run.save(run_file)
        on_epoch(epoch)
    return Fitted(run.best(), run.best_epoch, tuple(run.history))


class _Steps:
    """What an epoch's updates amount to."""

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm
        self.losses: list[float] = []
        self.norms: list[float] = []

    @property
    def mean_loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def mean_norm(self) -> float:
        return sum(self.norms) / len(self.norms)

    @property
    def clipped_share(self) -> float:
        return sum(norm > self.max_norm for norm in self.norms) / len(self.norms)


def _train_epoch(
    run: Run[M], examples: Sequence[Example], *, model: nn.Module, losses: Losses, reading: Reading, crew: Crew
) -> _Steps:
    """`model` is the run's, or what calls it and brings the crew's gradients together."""
    model.train()
    steps = _Steps(run.settings.max_gradient_norm)
    for rows in learning_batches(examples, run.settings, chance=run.chance(), crew=crew):
        state = None
        for chunk in reading.chunks(rows):
            scores, state = read_chunk(model, chunk, state)
            loss_2, count_2 = losses(scores, chunk)
            _step(run, losses.weighted(loss_2, crew.total(count_2)), steps, crew)
        run.schedule.step()
    return steps


def read_chunk(model: nn.Module, chunk: Chunk, state: State | None) -> tuple[Scores, State]:
    """Of a chunk, after the one that left `state`: its rows are the first of that one's. Gradients end between them."""
    if state is not None:
        num_rows = len(chunk.lengths_B)
        state = State({name: tensor[:num_rows].detach() for name, tensor in state.tensors.items()})
    scores, state = model(chunk.feature_BTD, state, chunk.lengths_B)
    return scores, state


def _step(run: Run[M], loss: Tensor, steps: _Steps, crew: Crew) -> None:
    """One update; refused where it would spoil the weights. The batch's loss is the sum of what each worker has."""
    run.optimizer.zero_grad()
    (crew.num_workers * loss).backward()  # what comes back is the workers' mean
    loss = crew.total(loss)
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), steps.max_norm).item()
    if not (math.isfinite(loss.item()) and math.isfinite(norm)):
        raise _NotFinite(
            f"in epoch {run.epoch + 1}, step {len(steps.losses) + 1}, the loss is {loss.item():g} and the norm of its "
            f"gradient {norm:g}"
        )
    run.optimizer.step()
    if run.averaged is not None:
        run.averaged.update_parameters(run.model)
    steps.losses.append(loss.item())
    steps.norms.append(norm)


@torch.no_grad()
def _validation_loss(
    run: Run[M], examples: Sequence[Example], *, losses: Losses, reading: Reading, crew: Crew
) -> float:
    """The same whatever the batches and the crew: summed over all of them before it is divided."""
    run.judged.eval()
    total_2, count_2 = torch.zeros(2), torch.zeros(2)
    for rows in measuring_batches(crew.share(examples), batch_size=run.settings.batch_size):
        state = None
        for chunk in reading.chunks(rows):
            scores, state = read_chunk(run.judged, chunk, state)
            loss_2, labels_2 = losses(scores, chunk)
            total_2, count_2 = total_2 + loss_2, count_2 + labels_2
    return losses.weighted(crew.total(total_2), crew.total(count_2)).item()


class _NotFinite(Exception):
    pass


@contextmanager
def _told_in_a_sentence(run: Run[M], run_file: Path | None) -> Iterator[None]:
    """What ends a run that did nothing wrong, or whose settings were, as `TrainingStopped`."""
    settings = run.settings
    kept = "no epoch has taught anything yet"
    if run_file is not None and run.best_epoch:
        kept = f"the best weights so far, of epoch {run.best_epoch}, are in {run_file}"
    try:
        yield
    except _NotFinite as error:
        raise TrainingStopped(
            f"{error}: lower learning_rate ({settings.learning_rate:g}) or max_gradient_norm "
            f"({settings.max_gradient_norm:g}); {kept}"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingStopped(
            f"memory is used up in epoch {run.epoch + 1}: lower batch_size ({settings.batch_size}), or read long clips "
            f"in chunks (long 'truncated'); {kept}"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """torch has a class for a GPU's memory only; for the machine's own it is in the words."""
    words = ("allocate memory", "bad_alloc")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _hash(model: nn.Module, config: ModelConfig, settings: FitConfig, sides: Sequence[Sequence[Example]]) -> str:
    """Of all that the trained weights follow from: where they begin, settings, and what is on each side."""
    digest = hashlib.sha256(f"{config.model_dump_json()}\n{settings.model_dump_json()}".encode())
    tensors = [*model.state_dict().values()]
    for side in sides:
        digest.update(f"\n{len(side)} clips".encode())
        for example in side:
            target_A = example.action_target_A
            digest.update(
                f"\n{tuple(example.feature_TD.shape)} {None if target_A is None else target_A.tolist()}\n".encode()
            )
            tensors += [example.feature_TD, example.frame_target_T]
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
