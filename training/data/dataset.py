"""Labelled clips with their features and targets, ready to learn from. Knows nothing of models.

Shape letters: T sampled frames, D feature size, F pooled size, M size of a frame's maps.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.clips import ClipFolder, LabelledClip
from training.data.example import Example
from training.data.features import Failed, FeatureExtractor, extract_all
from training.data.targets import frame_targets
from training.data.views import with_views
from vidseq.errors import DatasetError
from vidseq.features.store import ClipFeatures
from vidseq.motion import Motion


@dataclass(frozen=True, eq=False)
class Dataset:
    """The clips that could be decoded, in the order of their folder, and those that could not.

    `views` are the same clips with features of changed frames: what is learnt from is drawn from all of them.
    """

    clips: tuple[LabelledClip, ...]
    features: tuple[ClipFeatures, ...]
    action_labels: tuple[str, ...]
    frame_labels: tuple[str, ...]
    background: str | None
    failed: tuple[Failed, ...]
    motion: Motion | None = None
    views: tuple["Dataset", ...] = ()

    def examples(self, indices: Sequence[int]) -> list[Example]:
        """Features and targets of these clips."""
        return [self._example(index) for index in indices]

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """These clips alone, in this order; labels stay what they are."""
        return replace(
            self,
            clips=tuple(self.clips[index] for index in indices),
            features=tuple(self.features[index] for index in indices),
            views=tuple(view.subset(indices) for view in self.views),
        )

    def rearranged(self, index: int, order_T: NDArray[np.int64]) -> Tensor:
        """feature_TD of a clip as if it had shown its frames in another order, some twice or not at all.

        The one place that knows what a feature depends on: one that says what changed since the frame before is not
        that of the same frame after another one, and is made again.
        """
        features = self.features[index]
        feature_TD = torch.from_numpy(features.feature_TD[order_T]).float()  # a store may keep halves
        if self.motion is None or features.map_TM is None:
            return feature_TD
        map_TM = torch.from_numpy(features.map_TM[order_T]).float()
        feature_BTD, _ = self.motion(torch.cat([feature_TD[:, : self.motion.pooled_size], map_TM], dim=1)[None])
        return feature_BTD[0]

    def alone(self) -> "Dataset":
        """The same clips for a model that knows one frame at a time: without what changed since the frame before."""
        if self.motion is None:
            return self
        pooled = [replace(each, feature_TD=self._pooled_TF(each), map_TM=None) for each in self.features]
        return replace(self, features=tuple(pooled), motion=None, views=tuple(view.alone() for view in self.views))

    def mean_features(self) -> NDArray[np.float32]:
        """One vector a clip, of what is in it and not of how it moves, for finding near-duplicates."""
        return np.stack([self._pooled_TF(features).mean(axis=0) for features in self.features])

    def _pooled_TF(self, features: ClipFeatures) -> NDArray[np.float32]:
        pooled_size = None if self.motion is None else self.motion.pooled_size
        return features.feature_TD[:, :pooled_size].astype(np.float32, copy=False)

    def _example(self, index: int) -> Example:
        clip, features = self.clips[index], self.features[index]
        targets_T = frame_targets(
            clip, seconds_T=features.seconds_T, frame_labels=self.frame_labels, background=self.background
        )
        example = Example(
            feature_TD=torch.from_numpy(features.feature_TD).float(),
            action_target_A=self._action_target(clip.actions),
            frame_target_T=torch.from_numpy(targets_T),
            reorder=lambda order_T: self.rearranged(index, order_T.numpy()),
        )
        return with_views(example, [view._example(index) for view in self.views]) if self.views else example

    def _action_target(self, actions: Collection[str] | None) -> Tensor | None:
        """None where nobody has said, and with an action that the model has never heard of: that cannot be a target."""
        if actions is None or not self.action_labels or not set(actions) <= set(self.action_labels):
            return None
        return torch.tensor([float(label in actions) for label in self.action_labels])


def load_dataset(
    folder: ClipFolder,
    extractor: FeatureExtractor,
    *,
    num_views: int = 1,
    on_bad: Literal["stop", "skip"],
    on_clip: Callable[[], None],
) -> Dataset:
    """Features of every clip of the folder, from the cache where they are kept.

    Args:
        num_views: sets of features of each clip, the plain one among them.
        on_clip: told of each set of each clip.

    Raises:
        DatasetError: with `on_bad="stop"`, all clips that cannot be decoded; in any case if none is left.
    """
    results = list(extract_all(extractor, [clip.path for clip in folder.clips], on_clip=lambda _: on_clip()))
    failed = [result for result in results if isinstance(result, Failed)]
    kept = [(clip, r) for clip, r in zip(folder.clips, results, strict=True) if isinstance(r, ClipFeatures)]
    if failed and (on_bad == "stop" or not kept):
        raise DatasetError([f"{failure.path}: {failure.error}" for failure in failed])
    dataset = Dataset(
        clips=tuple(clip for clip, _ in kept),
        features=tuple(features for _, features in kept),
        action_labels=folder.action_labels,
        frame_labels=folder.frame_labels,
        background=folder.background,
        failed=tuple(failed),
        motion=extractor.motion,
    )
    views = []
    for view in range(1, num_views):
        features = []
        for clip in dataset.clips:
            features.append(extractor(clip.path, view=view))
            on_clip()
        views.append(replace(dataset, features=tuple(features)))
    return replace(dataset, views=tuple(views))


def outside_warning(dataset: Dataset) -> str | None:
    """A sentence if segments begin when their clip is over: they label nothing, and their times may be no seconds."""
    late = [
        (clip.path, segment.start_seconds, features.seconds_T[-1])
        for clip, features in zip(dataset.clips, dataset.features, strict=True)
        for segment in clip.segments
        if segment.start_seconds > features.seconds_T[-1]
    ]
    if not late:
        return None
    path, start_seconds, end_seconds = late[0]
    num_clips = len({path for path, _, _ in late})
    return (
        f"{len(late)} segment(s) of {num_clips} clip(s) begin after the last frame, as in {path} at {start_seconds:g} "
        f"of {end_seconds:g} seconds: are their times seconds?"
    )
