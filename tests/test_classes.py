"""Precision, recall, F1 and average precision of many draws at once are scikit-learn's, one draw after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from training.measure.metrics.classes import average_precision, class_figures, class_rows, counts, hit_share, one_hot

NUM_LABELS = 3
labels_of_frames = st.lists(
    st.tuples(st.integers(0, NUM_LABELS - 1), st.integers(0, NUM_LABELS - 1)), min_size=1, max_size=20
)


def counted(pairs: list[tuple[int, int]]) -> np.ndarray:
    """Counts of clips of one frame each, (truth, call)."""
    one = [one_hot(np.array([index]), num_labels=NUM_LABELS) for pair in pairs for index in pair]
    return np.stack([counts(true_1K, called_1K) for true_1K, called_1K in zip(one[::2], one[1::2], strict=True)])


@given(labels_of_frames, st.integers(0, 100))
@settings(max_examples=60)
def test_each_draw_has_the_figures_of_its_clips_repeated(pairs: list[tuple[int, int]], seed: int) -> None:
    weight_RN = np.random.default_rng(seed).integers(1, 4, size=(2, len(pairs)))
    found = class_figures(counted(pairs))(weight_RN.astype(float))
    for draw, weight_N in enumerate(weight_RN):
        truth, called = np.array(pairs).T
        precision_K, recall_K, f1_K, num_K = precision_recall_fscore_support(
            truth, called, labels=range(NUM_LABELS), sample_weight=weight_N, zero_division=np.nan
        )
        assert found["precision"][draw] == pytest.approx(precision_K, nan_ok=True)
        assert found["recall"][draw] == pytest.approx(recall_K, nan_ok=True)
        occurs_K = num_K > 0
        assert found["f1"][draw][occurs_K] == pytest.approx(f1_K[occurs_K])
        assert found["macro_f1"][draw] == pytest.approx(f1_K[occurs_K].mean())
        assert found["mean_class_accuracy"][draw] == pytest.approx(recall_K[occurs_K].mean())


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20), st.integers(0, 100))
@settings(max_examples=60)
def test_average_precision_is_that_of_scikit_learn_equal_scores_included(
    rows: list[tuple[int, bool]], seed: int
) -> None:
    score_N, true_N = np.array([row[0] / 4 for row in rows]), np.array([row[1] for row in rows] or [])
    true_N[0] = True
    weight_RN = np.random.default_rng(seed).integers(1, 4, size=(3, len(rows))).astype(float)
    expected = [average_precision_score(true_N, score_N, sample_weight=weight_N) for weight_N in weight_RN]
    assert average_precision(score_N, true_N, weight_RN) == pytest.approx(expected)


def test_there_is_no_average_precision_without_a_true_one() -> None:
    weight_RN = np.array([[1.0, 1.0], [0.0, 2.0]])
    found = average_precision(np.array([0.9, 0.1]), np.array([True, False]), weight_RN)
    assert found[0] == 1 and np.isnan(found[1])


def test_hits_are_counted_where_the_truth_is_one_of_the_labels() -> None:
    figures = hit_share(counted([(0, 0), (0, 1), (1, 1), (2, 0)]), np.array([False, True, True]))
    assert figures(np.array([[1.0, 1, 1, 1], [1, 1, 3, 1], [1, 1, 0, 0]]))["accuracy"] == pytest.approx(
        [1 / 2, 3 / 4, np.nan], nan_ok=True
    )


def test_a_row_says_none_of_what_was_never_called_or_never_true() -> None:
    figures = class_figures(counted([(0, 0), (0, 1)]))
    values = {name: value_R[0] for name, value_R in figures(np.ones((1, 2))).items()}
    a, b, c = class_rows("abc", support_K=np.array([2, 0, 0]), values=values, ends={})
    assert (a.support, a.precision, a.recall, a.f1) == (2, 1.0, 0.5, pytest.approx(2 / 3))
    assert (b.precision, b.recall, b.f1) == (0.0, None, 0.0)
    assert (c.precision, c.recall, c.f1) == (None, None, None)
