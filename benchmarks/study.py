"""What the studies of accuracy share: clips with features, scores in folds, figures with intervals. Prints nothing.

Each seed draws folds, validation splits and weights anew; a clip's figure is its mean over the seeds. Intervals and
differences come from drawing groups of clips (people, recordings), and differences are paired clip by clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training.crossval import cross_validate
from training.data.clips import ClipFolder, read_clips
from training.data.dataset import Dataset, load_dataset
from training.data.features import FeatureExtractor
from training.data.frame_augment import FrameAugment
from training.data.splits import Fold, make_folds
from training.measure.metrics.frames import frame_metrics
from training.measure.metrics.resampling import Floats, Resampling, intervals_of, mean_of
from training.measure.metrics.segments import segment_metrics
from training.measure.scores import ClipScores, groups_of
from training.options import Options, configure
from training.settings import FitConfig
from vidseq.config import ModelConfig
from vidseq.encoder import Encoder, load_default_weights

MODEL, MEAN_POOL, FRAME_ALONE = "model", "mean-pool", "frame-alone"
Runs = Sequence[Sequence[ClipScores]]  # of each seed the scores of every clip


@dataclass
class Study:
    """Labelled clips, parted into folds by group. Features are computed once for all options that share them."""

    folder: ClipFolder
    num_folds: int
    _datasets: dict[str, Dataset] = field(default_factory=dict)

    @classmethod
    def of(cls, clips: Path, *, group_by: str, background: str | None, num_folds: int) -> "Study":
        return cls(read_clips(clips, group_by=group_by, background=background), num_folds)

    def configure(self, options: Options) -> tuple[ModelConfig, FitConfig]:
        labels = {"action_labels": self.folder.action_labels, "frame_labels": self.folder.frame_labels}
        return configure(options, **labels, background=self.folder.background)

    def dataset(self, options: Options) -> Dataset:
        config, settings = self.configure(options)
        key = f"{config.picture} {config.sampling} {config.encoder} {settings.augment_frames} {settings.num_views}"
        if key not in self._datasets:
            encoder = Encoder(config.encoder)
            load_default_weights(encoder)
            extractor = FeatureExtractor(encoder, config=config, augment=FrameAugment(settings.augment_frames))
            self._datasets[key] = load_dataset(
                self.folder, extractor, num_views=settings.num_views, on_bad="stop", on_clip=lambda: None
            )
        return self._datasets[key]

    def runs(self, options: Options, seeds: Sequence[int], *, kind: str = MODEL) -> Runs:
        """Scores by models that have not seen a clip's group: of the model, or of a baseline on the same features."""
        return [self._run(options.model_copy(update={"seed": seed}), kind) for seed in seeds]

    def _run(self, options: Options, kind: str) -> Sequence[ClipScores]:
        dataset = self.dataset(options)
        folds = make_folds(dataset.clips, num_folds=self.num_folds, seed=options.seed)
        return scored(dataset, folds, self, options, kind)

    def right_N(self, options: Options, runs: Runs) -> Floats:
        """In what share of the runs each clip was called right."""
        dataset = self.dataset(options)
        right_N: Floats = np.mean([right(dataset, scores) for scores in runs], axis=0)
        return right_N

    def resampling(self, options: Options) -> Resampling:
        return Resampling(groups_of(self.dataset(options).clips))

    def frame_figures(self, options: Options, runs: Runs) -> dict[str, float]:
        """Frame accuracy and macro F1, and the segments' edit score and F1, in the mean over the runs."""
        dataset = self.dataset(options)
        targets = [example.frame_target_T.numpy() for example in dataset.examples(range(len(dataset.clips)))]
        seconds = [features.seconds_T for features in dataset.features]
        labels, background = dataset.frame_labels, dataset.background
        background_index = None if background is None else labels.index(background)
        found: list[dict[str, float]] = []
        for run in runs:
            scores = [score.frame_TL for score in run if score.frame_TL is not None]
            called = [score_TL.argmax(axis=1) for score_TL in scores]
            frames = frame_metrics(scores, targets, labels=labels, background=background)
            segments = segment_metrics(called, targets, seconds, background_index=background_index)
            assert frames is not None and segments is not None, "some frame has a label"
            found.append({**frames.model_dump(), **segments.model_dump()})
        names = ("accuracy", "macro_f1", "edit", "f1_at_10", "f1_at_25", "f1_at_50")
        return {name: float(np.mean([figures[name] for figures in found])) for name in names}


def scored(dataset: Dataset, folds: Sequence[Fold], study: Study, options: Options, kind: str) -> Sequence[ClipScores]:
    """Scores of every clip of the dataset, each by the model of its fold."""
    config, settings = study.configure(options)
    if kind == FRAME_ALONE:
        config, dataset = config.frame_alone(), dataset.alone()
    if kind == MEAN_POOL:
        config = config.baseline()
    return cross_validate(dataset, folds, config=config, settings=settings, on_epoch=lambda _: None).scores


def right(dataset: Dataset, scores: Sequence[ClipScores]) -> Floats:
    """1 for each clip that is called right, else 0."""
    targets = [example.action_index for example in dataset.examples(range(len(dataset.clips)))]
    called = [None if score.action_A is None else int(score.action_A.argmax()) for score in scores]
    return np.array([float(one == other) for one, other in zip(called, targets, strict=True)])


def chance_of(one_N: Floats, other_N: Floats, resampling: Resampling) -> float | None:
    """How often chance alone would make means as different as these; see `Resampling.difference`."""
    value_M = np.concatenate([one_N, other_N])
    return resampling.difference(lambda weight_RM: weight_RM @ value_M / weight_RM.sum(axis=1)).p


def interval(value_N: Floats, resampling: Resampling) -> str:
    low, high = intervals_of(resampling.intervals(mean_of(mean=value_N)))["mean"]
    return f"{value_N.mean():.3f} [{low:.3f}, {high:.3f}]"
