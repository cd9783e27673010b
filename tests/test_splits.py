"""training.data.splits: every clip tested once, no group torn apart, small data told of in a sentence."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from training.data.clips import LabelledClip, LabelledSegment
from training.data.splits import make_folds, make_nested_folds, near_duplicates, validation_split
from vidseq.errors import DatasetError, OptionError


def clips_of(kinds: Sequence[tuple[str, str | None]], *, split: str | None = None) -> list[LabelledClip]:
    """A clip for each (label, group)."""
    return [LabelledClip(Path(f"{index}.mp4"), label, group, split) for index, (label, group) in enumerate(kinds)]


KINDS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, *"vwxyz"])), min_size=2, max_size=40)
ALONE = LabelledClip(Path("alone.mp4"), "a", "a group of its own", None)  # so that there are two groups at least
SEEDS = st.integers(0, 2**32 - 1)


def num_groups(clips: Sequence[LabelledClip]) -> int:
    return len({clip.group or clip.path for clip in clips})


def torn(clips: Sequence[LabelledClip], left: Sequence[int], right: Sequence[int]) -> set[str | None]:
    """The groups on both sides."""
    return ({clips[i].group for i in left} & {clips[i].group for i in right}) - {None}


@given(kinds=KINDS, num_folds=st.integers(2, 6), seed=SEEDS)
@example(kinds=[("a", None), *[("b", "v")] * 3, *[("b", "w")] * 3, ("c", None)], num_folds=5, seed=1)
def test_every_clip_is_tested_once_and_no_group_is_on_both_sides(
    kinds: list[tuple[str, str | None]], num_folds: int, seed: int
) -> None:
    clips = [*clips_of(kinds), ALONE]
    folds = make_folds(clips, num_folds=min(num_folds, num_groups(clips)), seed=seed)
    assert sorted(index for fold in folds for index in fold.test) == list(range(len(clips)))
    for fold in folds:
        assert fold.train and fold.test
        assert sorted(fold.train + fold.test) == list(range(len(clips)))
        assert not torn(clips, fold.train, fold.test)


@given(kinds=KINDS, share=st.floats(0.05, 0.5), seed=SEEDS)
def test_a_validation_split_has_two_sides_and_tears_no_group(
    kinds: list[tuple[str, str | None]], share: float, seed: int
) -> None:
    clips = [*clips_of(kinds), ALONE]
    train, held_out = validation_split(clips, share=share, seed=seed)
    assert train and held_out
    assert sorted(train + held_out) == list(range(len(clips)))
    assert not torn(clips, train, held_out)


def test_labels_are_spread_evenly_over_the_folds() -> None:
    clips = clips_of([("rare" if index % 4 == 0 else "common", None) for index in range(40)])
    for fold in make_folds(clips, num_folds=5, seed=0):
        assert Counter(clips[index].label for index in fold.test) == {"rare": 2, "common": 6}


def test_clips_without_an_action_are_spread_by_the_label_that_lasts_longest() -> None:
    def marked(index: int) -> LabelledClip:
        segments = (LabelledSegment(0, 1, "rest"), LabelledSegment(1, 3, "up" if index % 2 else "down"))
        return LabelledClip(Path(str(index)), None, None, None, segments)

    clips = [marked(index) for index in range(12)]
    for fold in make_folds(clips, num_folds=3, seed=0):
        assert sum(index % 2 for index in fold.test) == 2


def test_the_same_seed_gives_the_same_folds_and_another_seed_others() -> None:
    clips = clips_of([("ab"[index % 2], None) for index in range(20)])
    assert make_folds(clips, num_folds=4, seed=1) == make_folds(clips, num_folds=4, seed=1)
    assert make_folds(clips, num_folds=4, seed=1) != make_folds(clips, num_folds=4, seed=2)


@pytest.mark.parametrize("num_folds", [1, 3])
def test_more_folds_than_groups_or_fewer_than_two_are_refused(num_folds: int) -> None:
    clips = clips_of([("a", "x"), ("b", "y"), ("a", "y")])
    with pytest.raises(OptionError, match=f"{num_folds} folds of 2 groups"):
        make_folds(clips, num_folds=num_folds, seed=0)


def test_folds_that_leave_one_group_to_train_on_are_refused() -> None:
    clips = clips_of([("a", "x"), ("b", "y"), ("a", "z")])
    assert len(make_nested_folds(clips, num_folds=3, seed=0)) == 3
    with pytest.raises(OptionError, match="2 folds of 3 groups leave one group to train on"):
        make_nested_folds(clips, num_folds=2, seed=0)


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(DatasetError, match="one group of clips only"):
        validation_split(clips_of([("a", "x"), ("b", "x")]), seed=0)


def test_the_only_clips_of_a_class_are_learnt_from() -> None:
    clips = clips_of([("common", None)] * 9 + [("alone", None)])
    held_out_by_seed = [validation_split(clips, seed=seed)[1] for seed in range(10)]
    assert all(9 not in held_out for held_out in held_out_by_seed)


def test_about_the_share_asked_for_is_held_out() -> None:
    clips = clips_of([("ab"[index % 2], f"group {index // 2}") for index in range(100)])
    assert len(validation_split(clips, share=0.2, seed=0)[1]) == 20
    assert len(validation_split(clips, share=0.5, seed=0)[1]) == 50


@pytest.mark.parametrize("share", [0.0, -1.0, 0.6, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(OptionError, match="share held out"):
        validation_split(clips_of([("a", None)] * 4), share=share, seed=0)


def test_a_given_split_is_kept_and_its_test_clips_stay_out() -> None:
    splits = ["train", "val", "test", "train"]
    clips = [LabelledClip(Path(str(index)), "a", None, split) for index, split in enumerate(splits)]
    assert validation_split(clips, seed=0) == ((0, 3), (1,))


def test_without_a_val_split_some_of_the_train_clips_are_held_out() -> None:
    clips = clips_of([("a", None)] * 5, split="train") + clips_of([("a", None)] * 5, split="test")
    train, held_out = validation_split(clips, seed=0)
    assert sorted(train + held_out) == [0, 1, 2, 3, 4]


def test_a_split_without_train_clips_is_refused() -> None:
    with pytest.raises(DatasetError, match="no clip is marked for training"):
        validation_split(clips_of([("a", None)] * 3, split="val"), seed=0)


def test_the_nearest_clip_on_the_other_side_is_named_if_it_is_near_enough() -> None:
    features_ND = np.array([[1, 0, 0], [0, 1, 0], [2, 0.1, 0], [2, 0.01, 0], [0, 1, 1]], np.float32)
    ((left, right, similarity),) = near_duplicates(features_ND, [0, 1], [2, 3, 4])
    assert (left, right) == (0, 3)
    assert similarity == pytest.approx(1, abs=1e-4)


@given(num_left=st.integers(0, 6), num_right=st.integers(0, 6), seed=SEEDS)
def test_near_duplicates_are_those_of_the_plain_definition(num_left: int, num_right: int, seed: int) -> None:
    features_ND = np.random.default_rng(seed).normal(size=(num_left + num_right, 3)).astype(np.float32)
    left, right = range(num_left), range(num_left, num_left + num_right)

    def cosine(i: int, j: int) -> float:
        one, other = features_ND[i].astype(float), features_ND[j].astype(float)
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    nearest = [max(((cosine(i, j), i, j) for j in right), default=(0.0, i, -1)) for i in left]
    expected = {(i, j): similarity for similarity, i, j in nearest if similarity >= 0.5}
    found = near_duplicates(features_ND, left, right, threshold=0.5)
    assert {(i, j) for i, j, _ in found} == set(expected)
    assert [similarity for *_, similarity in found] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-5)


def test_a_clip_without_features_resembles_nothing() -> None:
    assert near_duplicates(np.zeros((2, 4), np.float32), [0], [1]) == []
