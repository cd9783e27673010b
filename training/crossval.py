"""Cross-validation: every clip is scored by a model that has not seen its group. Knows nothing of what is in a clip.

Shape letters: A action labels, T frames, L frame labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.dataset import Dataset
from training.evaluate import ClipScores, score_clips
from training.fit import Epoch, FitConfig, fit
from training.splits import Fold, validation_split
from vidseq.config import ModelConfig


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """Scores in the order of the dataset's clips, and the best epoch of each fold."""

    scores: tuple[ClipScores, ...]
    best_epochs: tuple[int, ...]


def cross_validate(
    dataset: Dataset,
    folds: Sequence[Fold],
    *,
    config: ModelConfig,
    settings: FitConfig,
    on_epoch: Callable[[Epoch], None],
    run_folder: Path | None = None,
    on_resume: Callable[[int], None] = lambda num_epochs: None,
) -> CrossValidated:
    """Train on each fold's own part, stop early on a split of that part, score what was left out.

    The clips of a fold's test part are used for nothing but their scores. The clips' own `split` is not looked at.

    Args:
        run_folder: where each fold is saved after every epoch, `CELL-fold-N.pt`; None keeps nothing.
        on_resume: as that of `fit`, for each fold that was found there.
    """
    scores: dict[int, ClipScores] = {}
    best_epochs = []
    for number, fold in enumerate(folds, start=1):
        clips = [replace(dataset.clips[index], split=None) for index in fold.train]
        inner_train, inner_validation = validation_split(clips, seed=settings.seed)
        fitted = fit(
            dataset.examples([fold.train[index] for index in inner_train]),
            dataset.examples([fold.train[index] for index in inner_validation]),
            config=config,
            settings=settings,
            run_file=None if run_folder is None else run_folder / f"{config.recurrent.cell}-fold-{number}.pt",
            on_epoch=on_epoch,
            on_resume=on_resume,
        )
        found = score_clips(fitted.model, dataset.examples(fold.test))
        scores.update(zip(fold.test, found, strict=True))
        best_epochs.append(fitted.best_epoch)
    assert len(scores) == len(dataset.clips), "every clip is tested exactly once"
    return CrossValidated(tuple(scores[index] for index in range(len(scores))), tuple(best_epochs))
