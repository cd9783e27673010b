"""Labelled clips with their features and targets, ready to learn from. Knows nothing of models.

Shape letters: T sampled frames, D feature size.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.clips import ClipFolder, LabelledClip
from training.example import Example
from training.features import ClipFeatures, Failed, FeatureExtractor, extract_all
from training.targets import frame_targets
from vidseq.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Dataset:
    """The clips that could be decoded, in the order of their folder, and those that could not."""

    clips: tuple[LabelledClip, ...]
    features: tuple[ClipFeatures, ...]
    action_labels: tuple[str, ...]
    frame_labels: tuple[str, ...]
    background: str | None
    failed: tuple[Failed, ...]

    def examples(self, indices: Sequence[int]) -> list[Example]:
        """Features and targets of these clips."""
        return [self._example(index) for index in indices]

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """These clips alone, in this order; labels stay what they are."""
        return replace(
            self,
            clips=tuple(self.clips[index] for index in indices),
            features=tuple(self.features[index] for index in indices),
        )

    def rearranged(self, index: int, order_T: NDArray[np.int64]) -> Tensor:
        """feature_TD of a clip as if it had shown its frames in another order, some twice or not at all.

        The one place that knows what a feature depends on: one that says what changed since the frame before is not
        that of the same frame after another one.
        """
        return torch.from_numpy(self.features[index].feature_TD[order_T])

    def _example(self, index: int) -> Example:
        clip, features = self.clips[index], self.features[index]
        targets_T = frame_targets(
            clip, seconds_T=features.seconds_T, frame_labels=self.frame_labels, background=self.background
        )
        return Example(
            feature_TD=torch.from_numpy(features.feature_TD),
            action_target_A=self._action_target(clip.actions),
            frame_target_T=torch.from_numpy(targets_T),
            reorder=lambda order_T: self.rearranged(index, order_T.numpy()),
        )

    def _action_target(self, actions: Collection[str] | None) -> Tensor | None:
        """None where nobody has said, and with an action that the model has never heard of: that cannot be a target."""
        if actions is None or not self.action_labels or not set(actions) <= set(self.action_labels):
            return None
        return torch.tensor([float(label in actions) for label in self.action_labels])


def load_dataset(
    folder: ClipFolder,
    extractor: FeatureExtractor,
    *,
    on_bad: Literal["stop", "skip"],
    on_clip: Callable[[], None],
) -> Dataset:
    """Features of every clip of the folder, from the cache where they are kept.

    Raises:
        DatasetError: with `on_bad="stop"`, all clips that cannot be decoded; in any case if none is left.
    """
    results = list(extract_all(extractor, [clip.path for clip in folder.clips], on_clip=lambda _: on_clip()))
    failed = [result for result in results if isinstance(result, Failed)]
    kept = [(clip, r) for clip, r in zip(folder.clips, results, strict=True) if isinstance(r, ClipFeatures)]
    if failed and (on_bad == "stop" or not kept):
        raise DatasetError([f"{failure.path}: {failure.error}" for failure in failed])
    return Dataset(
        clips=tuple(clip for clip, _ in kept),
        features=tuple(features for _, features in kept),
        action_labels=folder.action_labels,
        frame_labels=folder.frame_labels,
        background=folder.background,
        failed=tuple(failed),
    )


def mean_features(dataset: Dataset) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """One vector a clip, for finding near-duplicates."""
    return np.stack([features.feature_TD.mean(axis=0) for features in dataset.features])
