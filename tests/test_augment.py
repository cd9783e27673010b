"""A clip shown in another way: which frames are left, in which order, and that labels follow them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_examples import frames_of, numbered
from training.data.augment import MAX_SPEED, augmented
from training.data.example import Example
from training.settings import TimeChange

lengths, seeds = st.integers(1, 60), st.integers(0, 1000)


def shown(length: int, seed: int, *changes: TimeChange) -> list[int]:
    return frames_of(augmented(numbered(length), changes, chance=np.random.default_rng(seed)))


@given(lengths, seeds)
def test_a_crop_is_a_stretch_of_half_the_clip_or_more(length: int, seed: int) -> None:
    frames = shown(length, seed, "crop")
    assert frames == list(range(frames[0], frames[0] + len(frames)))
    assert 2 * len(frames) >= length


def test_crops_begin_anywhere() -> None:
    starts = {shown(20, seed, "crop")[0] for seed in range(200)}
    assert starts == set(range(11))


@given(lengths, seeds)
def test_dropped_frames_leave_the_others_in_order(length: int, seed: int) -> None:
    frames = shown(length, seed, "drop")
    assert frames == sorted(set(frames))
    assert frames


def test_about_one_frame_in_ten_is_dropped() -> None:
    kept = sum(len(shown(100, seed, "drop")) for seed in range(100))
    assert 8_800 < kept < 9_200


@given(lengths, seeds)
def test_another_speed_shows_the_whole_clip_in_order_in_more_or_fewer_frames(length: int, seed: int) -> None:
    frames = shown(length, seed, "speed")
    assert frames == sorted(frames)
    assert round(length / MAX_SPEED) <= len(frames) <= round(length * MAX_SPEED)
    assert frames[0] <= 1
    assert frames[-1] >= length - 2


def test_reversal_comes_every_other_time_and_only_when_asked_for() -> None:
    backwards = list(range(9, -1, -1))
    found = [shown(10, seed, "reverse") for seed in range(100)]
    assert 35 < found.count(backwards) < 65
    assert found.count(backwards) + found.count(backwards[::-1]) == 100
    assert all(shown(10, seed, "crop", "drop", "speed") != backwards for seed in range(100))


@given(lengths, seeds)
def test_no_change_leaves_the_clip_alone(length: int, seed: int) -> None:
    assert shown(length, seed) == list(range(length))


@pytest.mark.parametrize("changes", [("crop",), ("drop", "speed"), ("crop", "drop", "speed", "reverse")])
def test_features_of_another_order_are_asked_for_where_they_depend_on_it(changes: tuple[TimeChange, ...]) -> None:
    """A clip whose feature is how far its frame lies from the one shown before; a crop keeps what was before it."""

    def differences(order_T: torch.Tensor) -> torch.Tensor:
        return torch.diff(order_T, prepend=order_T[:1] - 1)[:, None].float()

    whole = torch.arange(40)
    example = Example(differences(whole), None, whole, differences)
    changed = augmented(example, changes, chance=np.random.default_rng(5))
    expected = differences(changed.frame_target_T)
    assert torch.equal(changed.feature_TD, expected)
    again_T = torch.tensor([2, 0, 1])
    assert torch.equal(changed.rearranged(again_T).feature_TD, differences(changed.frame_target_T[again_T]))
