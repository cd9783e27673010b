"""Who trains and who tests: folds and validation splits that keep groups whole. Knows nothing of files or features.

Shape letters: N clips, D feature size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from training.clips import LabelledClip
from vidseq.errors import DatasetError


@dataclass(frozen=True)
class Fold:
    """Indices of clips; no group is on both sides."""

    train: tuple[int, ...]
    test: tuple[int, ...]


def make_folds(clips: Sequence[LabelledClip], *, num_folds: int, seed: int) -> list[Fold]:
    """Folds in which every clip is tested once, labels are spread evenly, and no group is torn apart.

    Raises:
        DatasetError: fewer groups than folds.
    """
    groups = _groups(clips)
    if not 2 <= num_folds <= len(set(groups)):
        raise DatasetError([f"{num_folds} folds of {len(set(groups))} groups: choose from 2 to the number of groups"])
    labels = [clip.label or "" for clip in clips]
    # scikit-learn insists that the largest class has a member for each fold; rarer labels only unbalance the folds.
    if max(labels.count(label) for label in set(labels)) < num_folds:
        labels = [""] * len(clips)
    splitter = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    folds = [
        Fold(tuple(map(int, train)), tuple(map(int, test)))
        for train, test in splitter.split(np.zeros(len(clips)), labels, groups)
    ]
    assert all({groups[i] for i in fold.train}.isdisjoint(groups[i] for i in fold.test) for fold in folds)
    return folds


def validation_split(
    clips: Sequence[LabelledClip], *, share: float = 0.2, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices to train on and to validate on: as the clips' own `split` says, else about `share` of them held out.

    Clips marked `test` are in neither.

    Raises:
        DatasetError: nothing would be left on one side.
    """
    if any(clip.split is not None for clip in clips):
        train = tuple(index for index, clip in enumerate(clips) if clip.split in (None, "train"))
        held_out = tuple(index for index, clip in enumerate(clips) if clip.split == "val")
        if train and held_out:
            return train, held_out
        if not train:
            raise DatasetError(["no clip is marked for training: every split is val or test"])
        inner = [clips[index] for index in train]
        inner_train, inner_held_out = _random_split(inner, share=share, seed=seed)
        return tuple(train[i] for i in inner_train), tuple(train[i] for i in inner_held_out)
    return _random_split(clips, share=share, seed=seed)


def near_duplicates(
    features_ND: NDArray[np.float32], left: Sequence[int], right: Sequence[int], *, threshold: float = 0.999
) -> list[tuple[int, int, float]]:
    """Pairs, one of `left` and one of `right`, whose mean features have at least this cosine similarity."""
    unit_ND = features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)
    right_indices = np.asarray(right, dtype=np.int64)
    pairs = []
    for index in left:
        similarity_N = unit_ND[right_indices] @ unit_ND[index]
        for position in np.flatnonzero(similarity_N >= threshold):
            pairs.append((index, int(right_indices[position]), float(similarity_N[position])))
    return pairs


def _random_split(clips: Sequence[LabelledClip], *, share: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The first of as many folds as make one of them about `share` of the clips."""
    num_groups = len(set(_groups(clips)))
    if num_groups < 2:
        raise DatasetError(["there is one group of clips only: nothing can be held out to measure the training"])
    fold = make_folds(clips, num_folds=min(round(1 / share), num_groups), seed=seed)[0]
    return fold.train, fold.test


def _groups(clips: Sequence[LabelledClip]) -> list[str]:
    """The group of each clip; one that has none is a group of its own."""
    return [clip.group or str(clip.path) for clip in clips]
