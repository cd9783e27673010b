"""Which clips and frames an epoch shows: each once, windows over all frames, rare actions more often, two in one."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_examples import frames_of, numbered, toy_examples
from training.data.example import Example
from training.loop.batches import Row, count_batches, learning_batches, measuring_batches
from training.settings import FitConfig


def epoch(examples: list[Example], *, seed: int = 0, **settings: object) -> list[list[Row]]:
    return list(learning_batches(examples, FitConfig(**settings), chance=np.random.default_rng(seed)))


def lengths(batches: list[list[Row]]) -> list[int]:
    return [row.num_frames for rows in batches for row in rows]


def test_each_clip_comes_once_in_another_order_each_time() -> None:
    examples = toy_examples(range(1, 24))
    one, other = (epoch(examples, seed=seed, batch_size=5) for seed in (0, 1))
    assert [len(rows) for rows in one] == [5, 5, 5, 5, 3]
    assert sorted(lengths(one)) == sorted(lengths(other)) == list(range(1, 24))
    assert lengths(one) != lengths(other)


def test_the_same_chance_gives_the_same_batches() -> None:
    examples = toy_examples(range(1, 24))
    settings = {"mixup": 0.4, "augment_time": ("crop", "speed"), "class_balance": "sampling"}
    one, other = epoch(examples, **settings), epoch(examples, **settings)
    shares = [[part.share for rows in batches for row in rows for part in row.parts] for batches in (one, other)]
    assert lengths(one) == lengths(other)
    assert shares[0] == shares[1]


def test_clips_are_measured_as_they_are_and_in_their_order() -> None:
    batches = list(measuring_batches(toy_examples(range(1, 8)), batch_size=3))
    assert lengths(batches) == list(range(1, 8))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 20), st.integers(0, 99))
def test_windows_end_everywhere_once_in_a_stride_and_reach_back_as_far_as_they_may(
    sizes: list[int], chunk_frames: int, seed: int
) -> None:
    examples = [numbered(size, action=number % 3) for number, size in enumerate(sizes)]
    settings = {"long": "window", "chunk_frames": chunk_frames, "batch_size": 3}
    batches = epoch(examples, seed=seed, **settings)
    stride = max(1, chunk_frames // 4)
    assert len(batches) == count_batches(examples, FitConfig(**settings))
    assert len(lengths(batches)) == sum(-(-size // stride) for size in sizes)
    for rows in batches:
        for row in rows:
            frames = frames_of(row.parts[0].example)
            assert frames == list(range(max(0, frames[-1] + 1 - chunk_frames), frames[-1] + 1))


def test_every_frame_is_the_last_of_a_window_sooner_or_later() -> None:
    ends = Counter(
        frames_of(row.parts[0].example)[-1]
        for seed in range(50)
        for rows in epoch([numbered(21)], seed=seed, long="window", chunk_frames=16)
        for row in rows
    )
    assert set(ends) == set(range(21))


def test_rare_actions_are_drawn_as_often_as_others() -> None:
    examples = [numbered(1, action=0 if number else 1) for number in range(20)]
    drawn = [epoch(examples, seed=seed, class_balance="sampling", batch_size=20) for seed in range(20)]
    found = Counter(row.parts[0].example.action_index for batches in drawn for rows in batches for row in rows)
    assert sum(found.values()) == 400
    assert 150 < found[1] < 250


@pytest.mark.parametrize("long", ["whole", "window"])
def test_two_clips_lie_over_each_other_for_as_long_as_both_last(long: str) -> None:
    """Aligned where they begin; windows, where they end."""
    batches = epoch([numbered(size) for size in range(3, 11)], mixup=0.4, long=long, chunk_frames=64)
    mixed = [row for rows in batches for row in rows if len({part.example.num_frames for part in row.parts}) == 2]
    assert mixed
    for row in mixed:
        longer = max(row.parts, key=lambda part: part.example.num_frames)
        assert row.num_frames == min(part.example.num_frames for part in row.parts)
        assert longer.first == (longer.example.num_frames - row.num_frames if long == "window" else 0)
    assert all(sum(part.share for part in row.parts) == pytest.approx(1) for rows in batches for row in rows)
