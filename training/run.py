"""`vidseq train` and `vidseq evaluate`, start to end: a folder of labelled clips in, a model or its figures out.

read_clips -> features (cached) -> split or folds -> fit recurrent and mean-pool -> evaluate -> checkpoint
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch.utils.tensorboard.writer import SummaryWriter

from training.card import write_card
from training.clips import ClipFolder, read_clips, too_small_warnings
from training.crossval import cross_validate
from training.dataset import Dataset, load_dataset, mean_features
from training.evaluate import Evaluation, evaluate, score_clips
from training.features import FeatureExtractor
from training.fit import Epoch, FitConfig, Fitted, fit
from training.recipes import Options, default
from training.show import Show
from training.splits import make_folds, near_duplicates, validation_split
from vidseq.checkpoint import load_checkpoint, save_checkpoint
from vidseq.config import ModelConfig
from vidseq.encoder import Encoder, load_default_weights
from vidseq.model import VideoModel

OnBad = Literal["stop", "skip"]


def train(
    clips: Path,
    out: Path,
    *,
    options: Options,
    group_by: str | None,
    background: str | None,
    num_folds: int | None,
    on_bad: OnBad,
    show: Show,
) -> Evaluation:
    """Train a model on a folder of labelled clips and write it to `out`, with its mean-pool baseline beside it.

    With `num_folds` every clip is first scored by a model that has not seen its group, then all clips train the final
    model for as many epochs as the folds needed. Without, a validation split measures and stops the run.

    Raises:
        DatasetError, OptionError, CheckpointError: with a sentence for the person.
    """
    folder = read_clips(clips, group_by=group_by, background=background)
    for warning in (*folder.warnings, *too_small_warnings(folder.clips, num_folds=num_folds or 2)):
        show.warn(warning)
    config, settings = default(
        options,
        action_labels=folder.action_labels,
        frame_labels=folder.frame_labels,
        background=folder.background,
    )
    torch.manual_seed(options.seed)  # a backbone with `--weights none` is drawn at random
    encoder = Encoder(config.encoder)
    load_default_weights(encoder)
    dataset = _features(folder, encoder, config=config, on_bad=on_bad, show=show)
    trainer = _Trainer(dataset, config=config, settings=settings, run=out.with_name(f"{out.name}.run"), show=show)
    trained = trainer.with_validation() if num_folds is None else trainer.with_folds(num_folds)
    show.evaluation(trained.evaluation, title=trained.measured_on)
    card = write_card(
        out.name,
        trained.evaluation,
        measured_on=trained.measured_on,
        dataset=dataset,
        config=config,
        settings=settings,
    )
    model = VideoModel(encoder, trained.model.model)
    save_checkpoint(out, config=config, model=model, baseline=trained.baseline.model, card=card, version="1")
    trainer.forget_progress()
    return trained.evaluation


def evaluate_model(model: Path, clips: Path, *, on_bad: OnBad, show: Show) -> Evaluation:
    """A model's figures, and its baseline's, on a folder of labelled clips.

    Raises:
        DatasetError: mistakes in the folder, or labels that the model does not know.
        CheckpointError: not a model.
    """
    checkpoint = load_checkpoint(model)
    heads = checkpoint.config.heads
    folder = read_clips(clips, known_action_labels=heads.action_labels, known_frame_labels=heads.frame_labels)
    # The model's own lists: a class that does not occur here is still one that it may call.
    folder = replace(
        folder,
        action_labels=heads.action_labels,
        frame_labels=heads.frame_labels,
        background=heads.background,
    )
    dataset = _features(folder, checkpoint.model.encoder, config=checkpoint.config, on_bad=on_bad, show=show)
    examples = dataset.examples(range(len(dataset.clips)))
    assert checkpoint.baseline is not None, "every trained model has its baseline beside it"
    scores = score_clips(checkpoint.model.sequence, examples)
    found = evaluate(dataset, examples, scores, score_clips(checkpoint.baseline, examples))
    return found.model_copy(update={"model": checkpoint.info})


@dataclass(frozen=True, eq=False)
class _Trained:
    model: Fitted
    baseline: Fitted
    evaluation: Evaluation
    measured_on: str


class _Trainer:
    """One run: the model and its baseline are trained on the same examples, one after the other."""

    def __init__(self, dataset: Dataset, *, config: ModelConfig, settings: FitConfig, run: Path, show: Show) -> None:
        self.dataset, self.config, self.settings, self.run, self.show = dataset, config, settings, run, show

    def with_validation(self) -> _Trained:
        train_indices, held_out = validation_split(self.dataset.clips, seed=self.settings.seed)
        self._warn_of_duplicates(train_indices, held_out)
        model, baseline = self._fit_both(train_indices, held_out, self.settings)
        examples = self.dataset.examples(held_out)
        evaluation = evaluate(
            self.dataset, examples, score_clips(model.model, examples), score_clips(baseline.model, examples)
        )
        return _Trained(model, baseline, evaluation, f"{len(held_out)} clips held out, which also stopped the training")

    def with_folds(self, num_folds: int) -> _Trained:
        folds = make_folds(self.dataset.clips, num_folds=num_folds, seed=self.settings.seed)
        for fold in folds:
            self._warn_of_duplicates(fold.train, fold.test)
        examples = self.dataset.examples(range(len(self.dataset.clips)))
        runs = []
        for name, config in self._both():
            with self.show.progress(f"{num_folds} folds, {name}", total=num_folds * self.settings.epochs) as advance:
                runs.append(
                    cross_validate(self.dataset, folds, config=config, settings=self.settings, on_epoch=_word(advance))
                )
        evaluation = evaluate(self.dataset, examples, runs[0].scores, runs[1].scores)
        epochs = round(statistics.median(runs[0].best_epochs))
        self.show.say(f"training on all {len(examples)} clips for {epochs} epochs, the median of the folds")
        settings = self.settings.model_copy(update={"epochs": max(1, epochs)})
        model, baseline = self._fit_both(range(len(examples)), [], settings)
        measured_on = f"{num_folds} folds, each clip scored by a model that never saw its group"
        return _Trained(model, baseline, evaluation, measured_on)

    def forget_progress(self) -> None:
        """What a resume would have needed; the TensorBoard logs stay."""
        for file in self.run.glob("*.pt"):
            file.unlink()

    def _both(self) -> tuple[tuple[str, ModelConfig], tuple[str, ModelConfig]]:
        return (self.config.recurrent.cell, self.config), ("mean-pool", self.config.baseline())

    def _fit_both(
        self, train_indices: Sequence[int], held_out: Sequence[int], settings: FitConfig
    ) -> tuple[Fitted, Fitted]:
        fitted = []
        for name, config in self._both():
            with (
                SummaryWriter(str(self.run / name)) as board,
                self.show.progress(f"training {name}", total=settings.epochs) as advance,
            ):
                fitted.append(
                    fit(
                        self.dataset.examples(train_indices),
                        self.dataset.examples(held_out),
                        config=config,
                        settings=settings,
                        run_file=self.run / f"{name}.pt",
                        on_epoch=_to_board(board, _word(advance)),
                    )
                )
        return fitted[0], fitted[1]

    def _warn_of_duplicates(self, left: Sequence[int], right: Sequence[int]) -> None:
        clips = self.dataset.clips
        for one, other, similarity in near_duplicates(mean_features(self.dataset), left, right):
            self.show.warn(
                f"{clips[one].path.name} and {clips[other].path.name} look nearly the same ({similarity:.3f}) "
                "and lie on both sides of a split: if they show the same, give them one group"
            )


def _features(folder: ClipFolder, encoder: Encoder, *, config: ModelConfig, on_bad: OnBad, show: Show) -> Dataset:
    extractor = FeatureExtractor(encoder, config=config)
    with show.progress("features", total=len(folder.clips)) as advance:
        dataset = load_dataset(folder, extractor, on_bad=on_bad, on_clip=lambda: advance(""))
    for failure in dataset.failed:
        show.warn(f"left out {failure.path}: {failure.error}")
    return dataset


def _word(advance: Callable[[str], None]) -> Callable[[Epoch], None]:
    return lambda epoch: advance(f"loss {epoch.train_loss:.3f}, best epoch {epoch.best_epoch}")


def _to_board(board: SummaryWriter, then: Callable[[Epoch], None]) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        board.add_scalar("loss/train", epoch.train_loss, epoch.number)
        board.add_scalar("loss/validation", epoch.validation_loss, epoch.number)
        board.add_scalar("gradient norm", epoch.gradient_norm, epoch.number)
        then(epoch)

    return on_epoch
