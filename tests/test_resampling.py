"""Intervals and tests in pairs come from drawing whole groups, and mean what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.measure.metrics.resampling import Difference, Floats, Resampling, intervals_of, mean_of, measured


def interval(groups: list[str], value_N: Floats, *, seed: int = 0) -> tuple[float, float]:
    return intervals_of(Resampling(groups, seed=seed).intervals(mean_of(mean=value_N)))["mean"]


def difference(ours_N: Floats, theirs_N: Floats, groups: list[str]) -> Difference:
    means = mean_of(mean=np.concatenate([ours_N, theirs_N]))
    return Resampling(groups).difference(lambda weight_RM: means(weight_RM)["mean"])


def test_groups_are_drawn_whole_and_as_many_as_there_are() -> None:
    drawn: set[tuple[float, ...]] = set()

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        drawn.update(map(tuple, weight_RN.tolist()))
        return {"nothing": weight_RN[:, 0]}

    Resampling(["x", "y", "x"]).intervals(figures)
    assert drawn == {(2, 0, 2), (1, 1, 1), (0, 2, 0)}


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    value_N = np.random.default_rng(0).normal(size=400)
    low, high = interval([f"{n}" for n in range(400)], value_N)
    error = value_N.std() / np.sqrt(400)
    assert [low, high] == pytest.approx(value_N.mean() + 1.96 * error * np.array([-1, 1]), abs=0.2 * error)


def test_the_interval_is_wider_when_the_same_clips_come_from_fewer_groups() -> None:
    value_N = np.repeat([1.0, 0.0, 1.0, 0.0], 10)
    low_few, high_few = interval([f"{index // 10}" for index in range(40)], value_N)
    low_many, high_many = interval([f"{index}" for index in range(40)], value_N)
    assert high_few - low_few > 2 * (high_many - low_many)


def test_one_group_gives_no_interval_and_no_p() -> None:
    value_N, groups = np.array([1.0, 0.0, 1.0, 1.0]), ["x"] * 4
    assert intervals_of(Resampling(groups).intervals(mean_of(mean=value_N))) == {}
    assert difference(value_N, 0 * value_N, groups) == Difference(0.75, None, None)


def test_a_seed_repeats_the_draws() -> None:
    value_N, groups = np.random.default_rng(1).random(50), [f"{n % 20}" for n in range(50)]
    whole = interval(groups, value_N)
    assert whole == interval(groups, value_N)
    assert whole != interval(groups, value_N, seed=1)


def test_many_clips_are_drawn_in_blocks_and_just_as_often() -> None:
    num_draws = []

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        num_draws.append(len(weight_RN))
        assert (weight_RN.sum(axis=1) == 5000).all()
        return {"first": weight_RN[:, 0]}

    Resampling([f"{n}" for n in range(5000)], num_draws=2001).intervals(figures)
    assert len(num_draws) > 1 and sum(num_draws) == 2001


def test_a_draw_that_cannot_be_measured_is_left_out() -> None:

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        of_y_R = weight_RN[:, 1]
        return {"always": weight_RN[:, 0], "of y": np.where(of_y_R > 0, 0.5, np.nan), "never": np.nan * of_y_R}

    found = intervals_of(Resampling(["x", "y"]).intervals(figures))
    assert found["of y"] == (0.5, 0.5)
    assert found.keys() == {"always", "of y"}


@given(st.lists(st.booleans(), min_size=2, max_size=12), st.data())
@settings(max_examples=25)
def test_a_difference_to_itself_is_nothing(right: list[bool], data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.sampled_from("xyz"), min_size=len(right), max_size=len(right)))
    found = difference(np.array(right, float), np.array(right, float), [*groups[:-2], "x", "y"])
    assert (found.value, found.interval, found.p) == (0, (0, 0), 1)


def test_p_is_the_share_of_swaps_that_do_as_much() -> None:
    """Three clips, each better by 1 to 3: of the 8 ways to swap, only swapping all or none gives a sum of 6."""
    found = difference(np.array([1.0, 2.0, 3.0]), np.zeros(3), ["x", "y", "z"])
    assert found.value == 2
    assert found.p == pytest.approx(2 / 8, abs=0.03)


def test_p_swaps_groups_not_clips() -> None:
    """Ten clips of one group are one witness: swapped or not, and so is the other group's."""
    found = difference(np.ones(12), np.zeros(12), ["x"] * 10 + ["y"] * 2)
    assert found.p == pytest.approx(2 / 4, abs=0.04)


def test_when_nothing_is_between_two_models_p_is_spread_evenly() -> None:
    generator = np.random.default_rng(0)
    groups = [f"{n}" for n in range(30)]
    found = [difference(generator.normal(size=30), generator.normal(size=30), groups).p for _ in range(200)]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_a_figure_itself_counts_each_clip_once() -> None:
    assert measured(mean_of(mean=np.array([1.0, 2.0, 6.0])), num_clips=3)["mean"] == 3
