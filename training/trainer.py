"""One training run: the model and both baselines, on the same clips, measured on clips not learnt from.

    split or folds -> fit model, mean-pool, frame-alone -> score, evaluate -> calibrate, tune

Knows nothing of folders of clips, nor of checkpoints.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.crossval import CrossValidated, cross_validate
from training.data.dataset import Dataset
from training.data.splits import Fold, make_nested_folds, near_duplicates, validation_split
from training.loop.fit import Fitted, fit
from training.loop.progress import Epoch
from training.measure.calibration import Calibrated, Course, calibrate
from training.measure.evaluate import evaluate
from training.measure.figures import Evaluation
from training.measure.honesty import honesty, rearranged
from training.measure.scores import ClipScores, score_clips
from training.measure.thresholds import tune
from training.settings import FitConfig
from training.show import Show
from training.watching import in_a_word, watched
from training.words import count
from vidseq.config import ModelConfig
from vidseq.model import SequenceModel

MEAN_POOL, FRAME_ALONE = "mean-pool", "frame-alone"


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a run. `measured` are the clips that `scores` and `evaluation` are of; the models may have seen them
    since, if they were scored in folds."""

    model: Fitted[SequenceModel]
    baseline: Fitted[SequenceModel]
    frame_alone: Fitted[SequenceModel]
    measured: Dataset
    scores: tuple[ClipScores, ...]
    evaluation: Evaluation
    measured_on: str
    config: ModelConfig
    calibrated: Calibrated | None

    @property
    def history_by_name(self) -> dict[str, tuple[Epoch, ...]]:
        names = (self.config.recurrent.cell, MEAN_POOL, FRAME_ALONE)
        fitted = (self.model, self.baseline, self.frame_alone)
        return {name: one.history for name, one in zip(names, fitted, strict=True)}


class Trainer:
    """Trains the model and its baselines one after the other.

    Args:
        unknown_precision: what share of the clips that the model names shall be right; None names every clip.
        run: the folder in which progress is kept until it is done, and TensorBoard's logs for good.
        trained: the model, if it has learnt already, from all but the validation split, as training.finetune does.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        config: ModelConfig,
        settings: FitConfig,
        unknown_precision: float | None,
        run: Path,
        show: Show,
        trained: Fitted[SequenceModel] | None = None,
    ) -> None:
        self.trained = trained
        self.dataset, self.config, self.settings, self.run, self.show = dataset, config, settings, run, show
        self.unknown_precision = unknown_precision
        self.configs: Mapping[str, ModelConfig] = {
            config.recurrent.cell: config,
            MEAN_POOL: config.baseline(),
            FRAME_ALONE: config.frame_alone(),
        }
        self._warned_of: set[frozenset[int]] = set()
        self.datasets = dict.fromkeys(self.configs, dataset) | {FRAME_ALONE: dataset.alone()}

    def with_validation(self) -> Trained:
        """Some clips are held out: to stop the training early, and to measure it unless others are marked `test`."""
        train_indices, held_out = validation_split(self.dataset.clips, seed=self.settings.seed)
        self._warn_of_duplicates(train_indices, held_out)
        unseen = tuple(index for index, clip in enumerate(self.dataset.clips) if clip.split == "test")
        self._warn_of_duplicates((*train_indices, *held_out), unseen)
        stopping = held_out if self.settings.stop_early else ()
        models = self._fit_all(train_indices, stopping, num_epochs=[self.settings.epochs] * 3)
        measured = self.dataset.subset(unseen or held_out)
        every = range(len(measured.clips))
        scores, mean_pool, frame_alone = (
            tuple(score_clips(one.model, dataset.examples(unseen or held_out)))
            for one, dataset in zip(models, self.datasets.values(), strict=True)
        )
        evaluation = evaluate(
            measured,
            measured.examples(every),
            scores,
            mean_pool,
            config=self.config,
            frame_alone=frame_alone,
            honesty=honesty(measured, rearranged(models[0].model, measured, every)),
        )
        stopped = ", which also stopped the training" if self.settings.stop_early else ""
        measured_on = f"{count(len(held_out), 'clip')} held out{stopped}"
        if unseen:
            measured_on = f"{count(len(unseen), 'clip')} marked test, of which the training saw nothing"
        tuned = self._tuned(held_out, score_clips(models[0].model, self.dataset.examples(held_out)))
        return Trained(*models, measured, scores, evaluation, measured_on, *tuned)

    def with_folds(self, num_folds: int) -> Trained:
        """Each clip is scored by models that never saw its group; then all clips train the final ones."""
        folds = make_nested_folds(self.dataset.clips, num_folds=num_folds, seed=self.settings.seed)
        for fold in folds:
            self._warn_of_duplicates(fold.train, fold.test)
        every = range(len(self.dataset.clips))
        runs = [self._cross_validate(folds, name) for name in self.configs]
        evaluation = evaluate(
            self.dataset,
            self.dataset.examples(every),
            runs[0].scores,
            runs[1].scores,
            config=self.config,
            frame_alone=runs[2].scores,
            honesty=honesty(self.dataset, runs[0].rights),
        )
        num_epochs = [max(1, round(statistics.median(run.best_epochs))) for run in runs]
        self.show.say(
            f"training on all {count(len(every), 'clip')} for the median epochs of the folds: "
            f"{num_epochs[0]}, and {num_epochs[1]} and {num_epochs[2]} for the baselines"
        )
        models = self._fit_all(every, [], num_epochs=num_epochs)
        measured_on = f"{num_folds} folds, each clip scored by a model that never saw its group"
        tuned = self._tuned(every, runs[0].scores)
        return Trained(*models, self.dataset, runs[0].scores, evaluation, measured_on, *tuned)

    def forget_progress(self) -> None:
        """What a resume would have needed; the TensorBoard logs stay."""
        for file in self.run.glob("*.pt"):
            file.unlink()

    def _tuned(self, indices: Sequence[int], scores: Sequence[ClipScores]) -> tuple[ModelConfig, Calibrated | None]:
        """Temperatures and thresholds from scores of clips by a model that has not learnt from them."""
        config = self.config
        offline = config.recurrent.bidirectional or config.sampling.max_frames is not None
        said = slice(-1 if offline else 0, None)  # the frames after which such a model says anything
        examples = self.dataset.examples(indices)
        courses = [
            Course(self.dataset.features[index].seconds_T[said], score.action_logits_TA[said], example.action_target_A)
            for index, score, example in zip(indices, scores, examples, strict=True)
            if score.action_logits_TA is not None
        ]
        calibrated = calibrate(courses, several=config.heads.several)
        calibration = None if calibrated is None else calibrated.calibration
        heads, sentences = tune(
            config.heads, courses, calibration=calibration, unknown_precision=self.unknown_precision
        )
        for sentence in sentences:
            self.show.say(sentence)
        return config.model_copy(update={"heads": heads, "calibration": calibration}), calibrated

    def _cross_validate(self, folds: Sequence[Fold], name: str) -> CrossValidated:
        if any(self.run.glob(f"{name}-fold-*.pt")):
            self.show.say(f"{name}: continuing with the folds that were begun")
        config, total = self.configs[name], len(folds) * self.settings.epochs
        with self.show.progress(f"{len(folds)} folds, {name}", total=total) as advance:
            return cross_validate(
                self.datasets[name],
                folds,
                config=config,
                settings=self.settings,
                on_epoch=in_a_word(advance),
                run_prefix=self.run / name,
                rearrange=config is self.config,
                on_resume=lambda num_epochs: advance("", num_epochs),
            )

    def _fit_all(
        self, train_indices: Sequence[int], held_out: Sequence[int], *, num_epochs: Sequence[int]
    ) -> tuple[Fitted[SequenceModel], Fitted[SequenceModel], Fitted[SequenceModel]]:
        """The model, the mean-pool and the frame-alone, each for at most its own number of epochs."""
        model, mean_pool, frame_alone = (
            self._fit(name, train_indices, held_out, num_epochs=num)
            for name, num in zip(self.configs, num_epochs, strict=True)
        )
        return model, mean_pool, frame_alone

    def _fit(
        self, name: str, train_indices: Sequence[int], held_out: Sequence[int], *, num_epochs: int
    ) -> Fitted[SequenceModel]:
        if self.trained is not None and self.configs[name] is self.config:
            return self.trained
        with watched(name, num_epochs=num_epochs, run=self.run, show=self.show) as watch:
            return fit(
                self.datasets[name].examples(train_indices),
                self.datasets[name].examples(held_out),
                config=self.configs[name],
                settings=self.settings.model_copy(update={"epochs": num_epochs}),
                run_file=self.run / f"{name}.pt",
                on_epoch=watch.on_epoch,
                on_resume=watch.on_resume,
            )

    def _warn_of_duplicates(self, left: Sequence[int], right: Sequence[int]) -> None:
        clips = self.dataset.clips
        for one, other, similarity in near_duplicates(self.dataset.mean_features(), left, right):
            if (pair := frozenset((one, other))) in self._warned_of:  # in another fold, the other way round
                continue
            self._warned_of.add(pair)
            self.show.warn(
                f"{clips[one].path.name} and {clips[other].path.name} look nearly the same ({similarity:.3f}) "
                "and lie on both sides of a split: if they show the same, give them one group"
            )
