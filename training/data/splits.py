"""Who trains and who tests: folds and validation splits that keep groups whole. Knows nothing of files or features.

Shape letters: N clips, L and R those on the left and the right, D feature size.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from training.data.clips import LabelledClip
from vidseq.errors import DatasetError, OptionError

BLOCK = 1024  # clips whose similarities are held in memory at once


@dataclass(frozen=True)
class Fold:
    """Indices of clips, rising; no group is on both sides."""

    train: tuple[int, ...]
    test: tuple[int, ...]


def make_folds(clips: Sequence[LabelledClip], *, num_folds: int, seed: int) -> list[Fold]:
    """Folds in which every clip is tested once, labels are spread as evenly as the groups let them, no group is torn.

    A given `split` is not looked at.

    Raises:
        OptionError: fewer groups than folds, or fewer than two folds.
    """
    group_N = _codes([_group(clip) for clip in clips])
    num_groups = len(set(group_N.tolist()))
    if not 2 <= num_folds <= num_groups:
        raise OptionError(f"{num_folds} folds of {num_groups} groups: choose from 2 to the number of groups")
    label_N = _codes([_label(clip) for clip in clips])
    folds = _stratified_folds(label_N, group_N, num_folds=num_folds, seed=seed)
    for fold in folds:
        assert fold.test, "a fold tests nothing"
        assert set(group_N[list(fold.train)]).isdisjoint(group_N[list(fold.test)]), "a group is on both sides"
    return folds


def make_nested_folds(clips: Sequence[LabelledClip], *, num_folds: int, seed: int) -> list[Fold]:
    """Folds whose own training part can be split once more, to stop the training.

    Raises:
        OptionError: as `make_folds`, or a fold would leave one group only to train on.
    """
    folds = make_folds(clips, num_folds=num_folds, seed=seed)
    if any(len({_group(clips[index]) for index in fold.train}) < 2 for fold in folds):
        num_groups = len({_group(clip) for clip in clips})
        raise OptionError(
            f"{num_folds} folds of {num_groups} groups leave one group to train on; two are needed, one of them to "
            "stop the training: more folds or more groups"
        )
    return folds


def validation_split(
    clips: Sequence[LabelledClip], *, share: float = 0.2, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices to train on and to validate on: as the clips' own `split` says, else about `share` of them held out.

    Clips marked `test` are in neither.

    Raises:
        DatasetError: nothing would be left on one side.
        OptionError: `share` is not above 0 and at most 0.5.
    """
    train = [index for index, clip in enumerate(clips) if clip.split in (None, "train")]
    held_out = [index for index, clip in enumerate(clips) if clip.split == "val"]
    if not train:
        raise DatasetError(["no clip is marked for training: every split is val or test"])
    if not held_out:
        fold = _held_out_fold([clips[index] for index in train], share=share, seed=seed)
        train, held_out = [train[index] for index in fold.train], [train[index] for index in fold.test]
    return tuple(train), tuple(held_out)


def near_duplicates(
    features_ND: NDArray[np.float32], left: Sequence[int], right: Sequence[int], *, threshold: float = 0.97
) -> list[tuple[int, int, float]]:
    """(index in `left`, index in `right`, cosine similarity): for each clip on the left the nearest on the right.

    Only those at or above `threshold`, the most similar first. Features are a clip's mean over time. By those of the
    packaged encoder, re-encoded and cropped copies lie around 0.97, other clips of the same place at 0.8 to 0.95.
    """
    unit_ND = features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)
    left_L, right_R = np.asarray(left, dtype=np.int64), np.asarray(right, dtype=np.int64)
    pairs = []
    for begin in range(0, len(left_L) if len(right_R) else 0, BLOCK):
        block_L = left_L[begin : begin + BLOCK]
        similarity_LR = unit_ND[block_L] @ unit_ND[right_R].T
        nearest_L = similarity_LR.argmax(axis=1)
        best_L = similarity_LR[np.arange(len(block_L)), nearest_L]
        for row in np.flatnonzero(best_L >= threshold):
            pairs.append((int(block_L[row]), int(right_R[nearest_L[row]]), float(best_L[row])))
    return sorted(pairs, key=lambda pair: -pair[2])


def _held_out_fold(clips: Sequence[LabelledClip], *, share: float, seed: int) -> Fold:
    """Of as many folds as make one about `share` of the clips, the one after which most labels can still be learnt."""
    if not 0 < share <= 0.5:
        raise OptionError(f"the share held out is {share}; it must be above 0 and at most 0.5")
    num_groups = len({_group(clip) for clip in clips})
    if num_groups < 2:
        raise DatasetError(["there is one group of clips only: nothing can be held out to measure the training"])
    folds = make_folds(clips, num_folds=min(round(1 / share), num_groups), seed=seed)

    def shortcomings(fold: Fold) -> tuple[int, int, float]:
        learnt, measured = ({_label(clips[index]) for index in side} for side in (fold.train, fold.test))
        return -len(learnt), -len(measured), abs(len(fold.test) - share * len(clips))

    return min(folds, key=shortcomings)


def _stratified_folds(
    label_N: NDArray[np.int64], group_N: NDArray[np.int64], *, num_folds: int, seed: int
) -> list[Fold]:
    """No fold tests nothing."""
    if np.bincount(label_N).max() < num_folds:  # scikit-learn wants a label with a clip for each fold
        label_N = np.zeros_like(label_N)
    alone = len(set(group_N.tolist())) == len(group_N)
    kind = StratifiedKFold if alone else StratifiedGroupKFold  # the same for single clips, in a fraction of the time
    splitter = kind(n_splits=num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of small classes: clips.too_small_warnings tells of them, by name
        warnings.simplefilter("ignore", UserWarning)
        tests = [test for _, test in splitter.split(label_N, label_N, group_N)]
    fold_N = np.zeros_like(group_N)
    for number, test in enumerate(tests):
        fold_N[test] = number
    _fill(fold_N, group_N, num_folds=num_folds)
    sides = [fold_N == number for number in range(num_folds)]
    return [Fold(tuple(np.flatnonzero(~side_N).tolist()), tuple(np.flatnonzero(side_N).tolist())) for side_N in sides]


def _fill(fold_N: NDArray[np.int64], group_N: NDArray[np.int64], *, num_folds: int) -> None:
    """Give each empty fold the smallest group of the fold with most: with hardly more groups than folds, scikit-learn
    may find two groups of rare labels most even together."""
    for empty in sorted(set(range(num_folds)) - set(fold_N.tolist())):
        richest = max(range(num_folds), key=lambda fold: len(np.unique(group_N[fold_N == fold])))
        groups, sizes = np.unique(group_N[fold_N == richest], return_counts=True)
        fold_N[group_N == groups[sizes.argmin()]] = empty


def _group(clip: LabelledClip) -> tuple[str, bool]:
    """A clip that has no group is a group of its own."""
    return (str(clip.path), False) if clip.group is None else (clip.group, True)


def _label(clip: LabelledClip) -> str:
    """What is spread evenly: the action, or else the frame label that lasts longest."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for segment in clip.segments:
        seconds[segment.label] += segment.end_seconds - segment.start_seconds
    return clip.label or max(seconds, key=lambda label: seconds[label], default="")


def _codes(names: Sequence[object]) -> NDArray[np.int64]:
    """A number for each distinct name."""
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)
