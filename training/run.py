"""`vidseq train` and `vidseq evaluate`, start to end: a folder of labelled clips in, a model or its figures out.

read_clips -> features (cached) -> split or folds -> fit recurrent and mean-pool -> evaluate, calibrate -> checkpoint
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch.utils.tensorboard.writer import SummaryWriter

from training.calibration import Calibrated, Course, calibrate
from training.card import count_clips, write_card
from training.clips import ClipFolder, read_clips, too_small_warnings
from training.crossval import CrossValidated, cross_validate
from training.dataset import Dataset, load_dataset, mean_features
from training.evaluate import ClipScores, Evaluation, evaluate, score_clips
from training.features import FeatureExtractor
from training.fit import Epoch, FitConfig, Fitted, fit
from training.recipes import Options, default
from training.show import Advance, Show
from training.splits import Fold, make_nested_folds, near_duplicates, validation_split
from vidseq.checkpoint import check_destination, load_checkpoint, save_checkpoint
from vidseq.config import ModelConfig
from vidseq.encoder import Encoder, load_default_weights
from vidseq.errors import DatasetError
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
    device: str,
    show: Show,
) -> Evaluation:
    """Train a model on a folder of labelled clips and write it to `out`, with its mean-pool baseline beside it.

    With `num_folds` every clip is first scored by a model that has not seen its group, then all clips train the final
    model for as many epochs as the folds needed. Without, a validation split stops the run, and measures it unless
    some clips are marked `test`. Either way the scores of clips not learnt from calibrate the action, for early exit.
    `device` computes the features; the sequence model is small and stays on the CPU.

    Raises:
        DatasetError, OptionError, CheckpointError: with a sentence for the person.
    """
    check_destination(out)
    folder = read_clips(clips, group_by=group_by, background=background)
    _check_split(folder, num_folds=num_folds, seed=options.seed)
    for warning in (*folder.warnings, *too_small_warnings(folder.clips, num_folds=num_folds or 2)):
        show.warn(warning)
    if num_folds is not None and any(clip.split is not None for clip in folder.clips):
        show.warn("--folds ignores the given split: every clip is tested once")
    config, settings = default(
        options,
        action_labels=folder.action_labels,
        frame_labels=folder.frame_labels,
        background=folder.background,
    )
    torch.manual_seed(options.seed)  # a backbone with `--weights none` is drawn at random
    encoder = Encoder(config.encoder)
    load_default_weights(encoder)
    dataset = _features(folder, encoder.to(device), config=config, on_bad=on_bad, show=show)
    trainer = _Trainer(dataset, config=config, settings=settings, run=out.with_name(f"{out.name}.run"), show=show)
    trained = trainer.with_validation() if num_folds is None else trainer.with_folds(num_folds)
    show.evaluation(trained.evaluation, title=trained.measured_on)
    if (calibrated := trained.calibrated) is not None:
        config = config.model_copy(update={"calibration": calibrated.calibration})
    card = write_card(
        out.name,
        trained.evaluation,
        measured_on=trained.measured_on,
        calibrated=calibrated,
        dataset=dataset,
        config=config,
        settings=settings,
    )
    model = VideoModel(encoder.cpu(), trained.model.model)
    save_checkpoint(out, config=config, model=model, baseline=trained.baseline.model, card=card, version="1")
    trainer.forget_progress()
    return trained.evaluation


def evaluate_model(model: Path, clips: Path, *, on_bad: OnBad, device: str, show: Show) -> Evaluation:
    """A model's figures, and its baseline's, on a folder of labelled clips.

    Raises:
        DatasetError: mistakes in the folder, or labels that the model does not know.
        CheckpointError: not a model.
    """
    checkpoint = load_checkpoint(model)
    heads = checkpoint.config.heads
    folder = read_clips(  # labels of a kind that the model does not say are no mistake: they are not measured
        clips,
        known_action_labels=heads.action_labels or None,
        known_frame_labels=heads.frame_labels or None,
    )
    if not any((heads.action_labels and clip.label) or (heads.frame_labels and clip.segments) for clip in folder.clips):
        raise DatasetError([f"{clips}: no clip has a label of the kind that {checkpoint.info.name} says"])
    # The model's own lists: a class that does not occur here is still one that it may call.
    folder = replace(
        folder,
        action_labels=heads.action_labels,
        frame_labels=heads.frame_labels,
        background=heads.background,
    )
    encoder = checkpoint.model.encoder.to(device)
    dataset = _features(folder, encoder, config=checkpoint.config, on_bad=on_bad, show=show)
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
    calibrated: Calibrated | None


class _Trainer:
    """One run: the model and its baseline are trained on the same examples, one after the other."""

    def __init__(self, dataset: Dataset, *, config: ModelConfig, settings: FitConfig, run: Path, show: Show) -> None:
        self.dataset, self.config, self.settings, self.run, self.show = dataset, config, settings, run, show

    def with_validation(self) -> _Trained:
        train_indices, held_out = validation_split(self.dataset.clips, seed=self.settings.seed)
        self._warn_of_duplicates(train_indices, held_out)
        unseen = tuple(index for index, clip in enumerate(self.dataset.clips) if clip.split == "test")
        self._warn_of_duplicates((*train_indices, *held_out), unseen)
        model, baseline = self._fit_both(train_indices, held_out, epochs=(self.settings.epochs, self.settings.epochs))
        examples = self.dataset.examples(unseen or held_out)
        evaluation = evaluate(
            self.dataset, examples, score_clips(model.model, examples), score_clips(baseline.model, examples)
        )
        measured_on = f"{count_clips(len(held_out))} held out, which also stopped the training"
        if unseen:
            measured_on = f"{count_clips(len(unseen))} marked test, of which the training saw nothing"
        calibrated = self._calibrate(held_out, score_clips(model.model, self.dataset.examples(held_out)))
        return _Trained(model, baseline, evaluation, measured_on, calibrated)

    def with_folds(self, num_folds: int) -> _Trained:
        folds = make_nested_folds(self.dataset.clips, num_folds=num_folds, seed=self.settings.seed)
        for fold in folds:
            self._warn_of_duplicates(fold.train, fold.test)
        examples = self.dataset.examples(range(len(self.dataset.clips)))
        runs = [self._cross_validate(folds, name, config) for name, config in self._both()]
        evaluation = evaluate(self.dataset, examples, runs[0].scores, runs[1].scores)
        model_epochs, baseline_epochs = (max(1, round(statistics.median(run.best_epochs))) for run in runs)
        self.show.say(
            f"training on all {count_clips(len(examples))} for the median epochs of the folds: "
            f"{model_epochs}, and {baseline_epochs} for the baseline"
        )
        model, baseline = self._fit_both(range(len(examples)), [], epochs=(model_epochs, baseline_epochs))
        measured_on = f"{num_folds} folds, each clip scored by a model that never saw its group"
        calibrated = self._calibrate(range(len(examples)), runs[0].scores)
        return _Trained(model, baseline, evaluation, measured_on, calibrated)

    def forget_progress(self) -> None:
        """What a resume would have needed; the TensorBoard logs stay."""
        for file in self.run.glob("*.pt"):
            file.unlink()

    def _both(self) -> tuple[tuple[str, ModelConfig], tuple[str, ModelConfig]]:
        return (self.config.recurrent.cell, self.config), ("mean-pool", self.config.baseline())

    def _calibrate(self, indices: Sequence[int], scores: Sequence[ClipScores]) -> Calibrated | None:
        """From scores of clips by a model that has not learnt from them. None where no action is known on the way."""
        if self.config.recurrent.bidirectional or self.config.sampling.max_frames is not None:
            return None
        targets = [example.action_index for example in self.dataset.examples(indices)]
        return calibrate(
            [
                Course(self.dataset.features[index].seconds_T, score.action_logits_TA, target)
                for index, score, target in zip(indices, scores, targets, strict=True)
                if score.action_logits_TA is not None
            ]
        )

    def _cross_validate(self, folds: Sequence[Fold], name: str, config: ModelConfig) -> CrossValidated:
        if any(self.run.glob(f"{config.recurrent.cell}-fold-*.pt")):
            self.show.say(f"{name}: continuing with the folds that were begun")
        total = len(folds) * self.settings.epochs
        with self.show.progress(f"{len(folds)} folds, {name}", total=total) as advance:
            return cross_validate(
                self.dataset,
                folds,
                config=config,
                settings=self.settings,
                on_epoch=_word(advance),
                run_folder=self.run,
                on_resume=lambda num_epochs: advance("", num_epochs),
            )

    def _fit_both(
        self, train_indices: Sequence[int], held_out: Sequence[int], *, epochs: tuple[int, int]
    ) -> tuple[Fitted, Fitted]:
        """The model and the baseline, each for at most its own number of epochs."""
        (model, model_config), (baseline, baseline_config) = self._both()
        return (
            self._fit(model, model_config, train_indices, held_out, num_epochs=epochs[0]),
            self._fit(baseline, baseline_config, train_indices, held_out, num_epochs=epochs[1]),
        )

    def _fit(
        self, name: str, config: ModelConfig, train_indices: Sequence[int], held_out: Sequence[int], *, num_epochs: int
    ) -> Fitted:
        with (
            SummaryWriter(str(self.run / name)) as board,
            self.show.progress(f"training {name}", total=num_epochs) as advance,
        ):
            return fit(
                self.dataset.examples(train_indices),
                self.dataset.examples(held_out),
                config=config,
                settings=self.settings.model_copy(update={"epochs": num_epochs}),
                run_file=self.run / f"{name}.pt",
                on_epoch=_to_board(board, _word(advance)),
                on_resume=lambda done: self._continue(name, done, advance),
            )

    def _continue(self, name: str, num_epochs: int, advance: Advance) -> None:
        self.show.say(f"{name}: continuing after epoch {num_epochs}")
        advance("", num_epochs)

    def _warn_of_duplicates(self, left: Sequence[int], right: Sequence[int]) -> None:
        clips = self.dataset.clips
        for one, other, similarity in near_duplicates(mean_features(self.dataset), left, right):
            self.show.warn(
                f"{clips[one].path.name} and {clips[other].path.name} look nearly the same ({similarity:.3f}) "
                "and lie on both sides of a split: if they show the same, give them one group"
            )


def _check_split(folder: ClipFolder, *, num_folds: int | None, seed: int) -> None:
    """What cannot be split is told before the features are computed, not after."""
    if num_folds is None:
        validation_split(folder.clips, seed=seed)
    else:
        make_nested_folds(folder.clips, num_folds=num_folds, seed=seed)


def _features(folder: ClipFolder, encoder: Encoder, *, config: ModelConfig, on_bad: OnBad, show: Show) -> Dataset:
    extractor = FeatureExtractor(encoder, config=config)
    with show.progress("features", total=len(folder.clips)) as advance:
        dataset = load_dataset(folder, extractor, on_bad=on_bad, on_clip=lambda: advance(""))
    for failure in dataset.failed:
        show.warn(f"left out {failure.path}: {failure.error}")
    return dataset


def _word(advance: Advance) -> Callable[[Epoch], None]:
    return lambda epoch: advance(f"loss {epoch.train_loss:.3f}, best epoch {epoch.best_epoch}")


def _to_board(board: SummaryWriter, then: Callable[[Epoch], None]) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        board.add_scalar("loss/train", epoch.train_loss, epoch.number)
        if epoch.validation_loss is not None:
            board.add_scalar("loss/validation", epoch.validation_loss, epoch.number)
        board.add_scalar("gradient norm", epoch.gradient_norm, epoch.number)
        then(epoch)

    return on_epoch
