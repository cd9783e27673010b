"""Cross-validation: every clip is scored by a model that has not seen its group. Knows nothing of what is in a clip.

Shape letters: A action labels, T frames, L frame labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from training.data.dataset import Dataset
from training.data.splits import Fold, validation_split
from training.loop.fit import fit
from training.loop.progress import Epoch
from training.measure.honesty import Rights, rearranged
from training.measure.scores import ClipScores, score_clips
from training.settings import FitConfig
from vidseq.config import ModelConfig

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """Scores in the order of the dataset's clips, what is right of rearranged ones, the best epoch of each fold."""

    scores: tuple[ClipScores, ...]
    rights: tuple[Rights, ...]
    best_epochs: tuple[int, ...]


def cross_validate(
    dataset: Dataset,
    folds: Sequence[Fold],
    *,
    config: ModelConfig,
    settings: FitConfig,
    on_epoch: Callable[[Epoch], None],
    run_prefix: Path | None = None,
    rearrange: bool = False,
    on_resume: Callable[[int], None] = lambda num_epochs: None,
) -> CrossValidated:
    """Train on each fold's own part, score what was left out; to stop early a split of the own part is held out.

    The clips of a fold's test part are used for nothing but their scores. The clips' own `split` is not looked at.

    Args:
        run_prefix: each fold is saved after every epoch, as PREFIX-fold-N.pt; None keeps nothing.
        rearrange: also show each clip's frames rearranged (`training.measure.honesty`); else `rights` is empty.
        on_resume: as that of `fit`, for each fold that was found there.
    """
    scores: dict[int, ClipScores] = {}
    rights: dict[int, Rights] = {}
    best_epochs = []
    for number, fold in enumerate(folds, start=1):
        learnt, held_out = _sides(dataset, fold, settings)
        fitted = fit(
            dataset.examples(learnt),
            dataset.examples(held_out),
            config=config,
            settings=settings,
            run_file=None if run_prefix is None else run_prefix.with_name(f"{run_prefix.name}-fold-{number}.pt"),
            on_epoch=on_epoch,
            on_resume=on_resume,
        )
        found = score_clips(fitted.model, dataset.examples(fold.test))
        scores.update(zip(fold.test, found, strict=True))
        if rearrange:
            rights.update(zip(fold.test, rearranged(fitted.model, dataset, fold.test), strict=True))
        best_epochs.append(fitted.best_epoch)
    assert len(scores) == len(dataset.clips), "every clip is tested exactly once"
    return CrossValidated(_in_order(scores), _in_order(rights), tuple(best_epochs))


def _sides(dataset: Dataset, fold: Fold, settings: FitConfig) -> tuple[Sequence[int], Sequence[int]]:
    """What a fold learns from, and what stops it."""
    if not settings.stop_early:
        return fold.train, ()
    clips = [replace(dataset.clips[index], split=None) for index in fold.train]
    sides = validation_split(clips, seed=settings.seed)
    learnt, held_out = ([fold.train[index] for index in side] for side in sides)
    return learnt, held_out


def _in_order(found: Mapping[int, T]) -> tuple[T, ...]:
    return tuple(found[index] for index in range(len(found)))
