"""How long a run will take, told before it starts: from the features of a few clips, and a few real steps.

Knows nothing of what is learnt: a step costs the same whatever the labels are.

Shape letters: T sampled frames.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from training.data.example import Example, one_hot
from training.data.features import FeatureExtractor
from training.loop.fit import fit
from training.settings import FitConfig
from vidseq.config import ModelConfig
from vidseq.errors import TrainingStopped, VideoError
from vidseq.features.store import ClipFeatures

T = TypeVar("T")

PROBED_CLIPS = 3  # decoded and encoded for the estimate; they are kept, so that nothing is done twice
PROBED_FRAMES = 256  # of a clip, at most: long ones are not learnt from for the sake of an estimate
PROBED_EPOCHS = 3


@dataclass(frozen=True)
class Estimate:
    """Seconds of what is still to be done; training may stop before, when it no longer gets better.

    `num_missing` counts the sets of features that are not yet cached: one of each clip, or one of each of its views.
    """

    num_missing: int
    features_seconds: float
    training_seconds: float
    num_views: int = 1

    def __str__(self) -> str:
        total = self.features_seconds + self.training_seconds
        unit, seconds = next(pair for pair in _UNITS if total >= 2 * pair[1] or pair[1] == 1)
        num_units = max(1, round(total / seconds))
        about = f"about {num_units} {unit}{'s' if num_units > 1 else ''}"
        if not self.num_missing:
            return f"{about} at most: all features are cached"
        clips = "1 clip" if self.num_missing == 1 else f"{self.num_missing} clips"
        if self.num_views > 1:
            clips = f"{self.num_missing} views of clips"
        features, training = _whole(self.features_seconds / seconds), _whole(self.training_seconds / seconds)
        return f"{about}: {features} for features of {clips} not yet cached, at most {training} for training"


_UNITS = (("hour", 3600), ("minute", 60), ("second", 1))


def estimate(
    paths: Sequence[Path],
    extractor: FeatureExtractor,
    *,
    configs: Sequence[ModelConfig],
    settings: FitConfig,
    num_folds: int | None,
) -> Estimate | None:
    """What it takes to train each of `configs` on the clips of `paths`; None where no clip tells, or no step succeeds.

    Features of a few clips that are not yet cached are computed, and stay.
    """
    views = range(settings.num_views)
    missing = [(path, view) for view in views for path in paths if not extractor.has(path, view=view)]
    begun_seconds = time.perf_counter()
    probed = [_features(path, extractor, view=view) for path, view in _spread(missing, PROBED_CLIPS)]
    num_probed = sum(found is not None for found in probed)
    set_seconds = (time.perf_counter() - begun_seconds) / max(1, num_probed)
    waiting = [(path, view) for path, view in missing if not extractor.has(path, view=view)]
    known = [path for path in paths if extractor.has(path)]
    samples = [found for path in _spread(known, settings.batch_size) if (found := _features(path, extractor))]
    if not samples:
        return None
    num_frames = len(paths) * sum(len(sample.seconds_T) for sample in samples) / len(samples)
    num_runs = 1 + (num_folds or 0)
    try:
        frame_seconds = sum(_frame_seconds(samples, config, settings) for config in configs)
    except TrainingStopped:  # the run itself will meet it too, and can tell what is kept
        return None
    training_seconds = num_runs * settings.epochs * num_frames * frame_seconds
    return Estimate(len(waiting), set_seconds * len(waiting), training_seconds, settings.num_views)


def _frame_seconds(samples: Sequence[ClipFeatures], config: ModelConfig, settings: FitConfig) -> float:
    """What an epoch takes for each frame that is learnt from, with a validation on a fifth as many."""
    examples = [_example(samples[index % len(samples)], config) for index in range(settings.batch_size)]
    ends_seconds: list[float] = []
    fit(
        examples,
        examples[: len(examples) // 5],
        config=config,
        settings=settings.model_copy(update={"epochs": 1 + PROBED_EPOCHS, "patience_epochs": 1 + PROBED_EPOCHS}),
        run_file=None,
        on_epoch=lambda _: ends_seconds.append(time.perf_counter()),
    )
    num_frames = sum(example.num_frames for example in examples)
    return (ends_seconds[-1] - ends_seconds[0]) / PROBED_EPOCHS / num_frames


def _example(sample: ClipFeatures, config: ModelConfig) -> Example:
    """The beginning of a clip, with a label for all that the model says."""
    feature_TD = torch.from_numpy(sample.feature_TD)[:PROBED_FRAMES]
    num_actions = len(config.heads.action_labels)
    action_target_A = one_hot(0, num_labels=num_actions) if num_actions else None
    return Example(feature_TD, action_target_A, torch.zeros(len(feature_TD), dtype=torch.long))


def _features(path: Path, extractor: FeatureExtractor, *, view: int = 0) -> ClipFeatures | None:
    """None of a clip that cannot be decoded: whoever asks for all of them will be told."""
    try:
        return extractor(path, view=view)
    except VideoError:
        return None


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most so many of them, evenly from first to last."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _whole(number: float) -> str:
    return "less than 1" if number < 1 else f"{number:.0f}"
