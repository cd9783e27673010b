"""Rare labels: what they weigh, how logits are shifted, how often their clips are drawn."""

import math

import numpy as np
import pytest
import torch

from training.data.example import Example
from training.data.targets import IGNORED
from training.loop.balance import Balance, action_balance, drawing_shares, frame_balance
from vidseq.errors import OptionError

COUNTS = torch.tensor([6.0, 3.0, 0.0, 1.0])


def test_a_label_weighs_as_much_more_as_it_is_rarer() -> None:
    weight_K = Balance.of(COUNTS, num=10, several=False, way="weights").weight_K
    assert weight_K is not None
    assert (weight_K * COUNTS)[COUNTS > 0].tolist() == pytest.approx([10 / 3] * 3)
    assert float((weight_K * COUNTS).sum()) == pytest.approx(10), "the mean weight of what is labelled is 1"
    assert weight_K[2] == 1, "a label that never occurs"


def test_logits_are_shifted_by_the_logarithm_of_each_share() -> None:
    shift_K = Balance.of(COUNTS, num=10, several=False, way="logits").shift_K
    assert shift_K is not None
    assert shift_K.exp().tolist() == pytest.approx([0.6, 0.3, 0.05, 0.1])


def test_where_several_are_true_each_label_is_balanced_against_its_own_absence() -> None:
    """A label that is true of all clips counts as if it were not of half of one."""
    count_K = torch.tensor([2.0, 10.0, 5.0])
    weight_K = Balance.of(count_K, num=10, several=True, way="weights").weight_K
    shift_K = Balance.of(count_K, num=10, several=True, way="logits").shift_K
    assert weight_K is not None and shift_K is not None
    assert weight_K.tolist() == pytest.approx([4.0, 0.05, 1.0])
    assert shift_K.tolist() == pytest.approx([-math.log(4), math.log(20), 0.0], abs=1e-6)


def test_what_has_no_label_is_not_counted() -> None:
    labelled = Example(torch.zeros(3, 1), torch.tensor([0.0, 1.0]), torch.tensor([1, 1, IGNORED]))
    nothing = Example(torch.zeros(2, 1), None, torch.tensor([IGNORED, 0]))
    actions = action_balance([labelled, nothing], several=False, way="weights")
    frames = frame_balance([labelled, nothing], num_labels=2, way="weights")
    assert actions.weight_K is not None and frames.weight_K is not None
    assert actions.weight_K.tolist() == [1.0, 1.0]
    assert frames.weight_K.tolist() == pytest.approx([1.5, 0.75])


def test_no_way_changes_nothing() -> None:
    balance = Balance.of(COUNTS, num=10, several=False, way="none")
    assert (balance.weight_K, balance.shift_K) == (None, None)


def test_actions_are_drawn_equally_often_and_clips_without_one_as_often_as_before() -> None:
    action_N = np.array([0, 0, 0, 0, 0, 0, 2, IGNORED, IGNORED, 2])
    share_N = drawing_shares(action_N)
    assert share_N.sum() == pytest.approx(1)
    assert [share_N[action_N == action].sum() for action in (0, 2, IGNORED)] == pytest.approx([0.4, 0.4, 0.2])


def test_clips_without_any_action_cannot_be_drawn_by_it() -> None:
    with pytest.raises(OptionError, match="no clip has one"):
        drawing_shares(np.array([IGNORED, IGNORED]))
