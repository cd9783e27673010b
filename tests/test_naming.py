"""From logits to scores and names: temperatures by time, and who is said from which score on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vidseq.config import Calibration, HeadsConfig
from vidseq.naming import Naming, probabilities, temperatures_at

COOLING = Calibration(elapsed_seconds=(0.0, 1.0, 2.0), temperatures=(4.0, 2.0, 1.0))
LABELS = ("a", "b", "c", "d")


def naming(**heads: object) -> Naming:
    return Naming.of(HeadsConfig.model_validate({"action_labels": LABELS} | heads))


def said(scores: list[float], **heads: object) -> list[str]:
    return [scored.label for scored in naming(**heads).actions(np.array(scores, np.float32))]


@pytest.mark.parametrize("several", [False, True])
def test_the_temperature_is_that_of_the_elapsed_time(several: bool) -> None:
    """Two logits 2 apart, or one of 2 for itself: the same function of the logit over the temperature."""
    logits_TA = torch.tensor([[2.0, 0.0]] * 4)
    temperature_T = temperatures_at(np.array([0.0, 0.999, 1.0, 7.0]), COOLING)
    score_TA = probabilities(logits_TA, several=several, temperature_T=temperature_T)
    assert score_TA[:, 0].tolist() == pytest.approx([1 / (1 + np.exp(-2 / by)) for by in (4, 4, 2, 1)])
    assert score_TA[:, 1].tolist() == pytest.approx([0.5] * 4 if several else (1 - score_TA[:, 0]).tolist())
    assert score_TA.dtype == torch.float32


def test_logits_of_any_size_have_a_probability() -> None:
    huge_TA = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    cold_T = temperatures_at(np.zeros(2), Calibration(elapsed_seconds=(0.0,), temperatures=(1e-4,)))
    for temperature_T in (None, cold_T):
        found = probabilities(huge_TA, several=False, temperature_T=temperature_T).tolist()
        assert found == [[1, 0, 0], pytest.approx([1 / 3] * 3)]
    assert probabilities(huge_TA, several=True, temperature_T=cold_T).tolist() == [[1, 0, 0.5], [0, 0, 0]]


def test_all_are_ranked_by_score_and_equals_stay_in_order() -> None:
    scores = np.array([0.2, 0.3, 0.2, 0.3], dtype=np.float32)
    assert [scored.label for scored in naming().ranked(scores)] == ["b", "d", "a", "c"]


def test_one_action_is_said_unless_its_score_is_below_the_threshold() -> None:
    assert said([0.1, 0.5, 0.15, 0.25]) == ["b"]
    assert said([0.1, 0.5, 0.15, 0.25], unknown_below=0.5) == ["b"]
    assert said([0.1, 0.5, 0.15, 0.25], unknown_below=0.51) == []


def test_of_several_actions_each_has_its_own_threshold() -> None:
    assert said([0.4, 0.5, 0.9, 0.6], several=True) == ["c", "d", "b"]
    assert said([0.4, 0.5, 0.9, 0.6], several=True, thresholds=(0.3, 0.8, 0.95, 0.6)) == ["d", "a"]
    assert said([0.4] * 4, several=True) == []


@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    thresholds=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_what_is_said_is_ranked_and_nothing_that_passes_is_left_out(
    scores: list[float], thresholds: list[float]
) -> None:
    named = naming(several=True, thresholds=tuple(thresholds)).actions(np.array(scores, np.float32))
    assert [one.score for one in named] == sorted((one.score for one in named), reverse=True)
    rows = zip(LABELS, scores, thresholds, strict=True)
    assert {one.label for one in named} == {label for label, score, threshold in rows if score >= threshold}


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [
        ({"several": True, "unknown_below": 0.5}, "says that none is true: it needs no unknown_below"),
        ({"thresholds": (0.5,) * 4}, "thresholds are for a model that says several actions"),
        ({"several": True, "thresholds": (0.5,)}, "1 thresholds for 4 action_labels"),
        ({"several": True, "action_labels": (), "frame_labels": ("up",)}, "there are no action_labels"),
        ({"unknown_below": 0.5, "action_labels": (), "frame_labels": ("up",)}, "there are no action_labels"),
        ({"several": True, "thresholds": (0.5, 0.5, 0.5, 1.5)}, "less than or equal to 1"),
    ],
)
def test_heads_that_do_not_go_together_are_refused(heads: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        naming(**heads)
