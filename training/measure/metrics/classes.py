"""Precision, recall and F1 of each label, and their means. Knows not whether clips or frames are counted.

All follow from three counts of each label: how often it is true, how often it is called, and how often both. For
weights of 1 they are scikit-learn's figures; scikit-learn would take a minute for the 2000 draws of an interval, one
after the other, and these take one matrix product.

Shape letters: R draws, N clips, K labels, F frames.
"""

from collections.abc import Sequence

import numpy as np

from training.measure.figures import ClassFigures
from training.measure.metrics.resampling import Bools, Figures, Floats, Ints, as_interval


def one_hot(index_F: Ints, *, num_labels: int) -> Bools:
    """[F, K]: true at each index."""
    found_FK: Bools = index_F[:, None] == np.arange(num_labels)
    return found_FK


def counts(true_FK: Bools, called_FK: Bools) -> Floats:
    """float64[3, K]: how often each label is true, called, and both."""
    return np.stack([true_FK.sum(axis=0), called_FK.sum(axis=0), (true_FK & called_FK).sum(axis=0)]).astype(np.float64)


def class_figures(count_N3K: Floats) -> Figures:
    """From the counts of each clip: of labels `precision`, `recall`, `f1`; over them `macro_f1`, `mean_class_accuracy`.

    The means are over the labels that occur in the truth. NaN where there is nothing to divide by.
    """

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        true_RK, called_RK, both_RK = np.moveaxis(np.tensordot(weight_RN, count_N3K, axes=1), 1, 0)
        recall_RK, f1_RK = share(both_RK, true_RK), share(2 * both_RK, true_RK + called_RK)
        return {
            "precision": share(both_RK, called_RK),
            "recall": recall_RK,
            "f1": f1_RK,
            "macro_f1": mean_where(true_RK > 0, f1_RK),
            "mean_class_accuracy": mean_where(true_RK > 0, recall_RK),
        }

    return figures


def hit_share(count_N3K: Floats, labels_K: Bools) -> Figures:
    """`accuracy`: of all whose truth is one of these labels, the share called right (one label is true, one called)."""
    true_N, hit_N = count_N3K[:, 0, labels_K].sum(axis=1), count_N3K[:, 2, labels_K].sum(axis=1)
    return lambda weight_RN: {"accuracy": share(weight_RN @ hit_N, weight_RN @ true_N)}


def class_rows(
    labels: Sequence[str],
    *,
    support_K: Floats,
    values: dict[str, Floats],
    ends: dict[str, Floats],
    names: Sequence[str] = ("precision", "recall", "f1"),
) -> tuple[ClassFigures, ...]:
    """A row for each label, from figures [K] and, where there are any, the ends of their intervals [2, K]."""
    rows = []
    for index, label in enumerate(labels):
        figures = {name: None if np.isnan(value := values[name][index]) else float(value) for name in names}
        found = {name: as_interval(ends[name][:, index]) for name in names if name in ends}
        intervals = {name: interval for name, interval in found.items() if interval is not None}
        rows.append(ClassFigures(label=label, support=int(support_K[index]), **figures, intervals=intervals))
    return tuple(rows)


def average_precision(score_N: Floats, true_N: Bools, weight_RN: Floats) -> Floats:
    """[R]: the precision at each score of a true one, averaged over the true ones. NaN where there is none.

    scikit-learn's definition, without interpolation: equal scores are one step.
    """
    order_N = np.argsort(-score_N, kind="stable")
    last_N = np.searchsorted(-score_N[order_N], -score_N[order_N], side="right") - 1  # of those with an equal score
    weight_RN = weight_RN[:, order_N]
    true_RN = weight_RN * true_N[order_N]
    called_RN = np.cumsum(weight_RN, axis=1)[:, last_N]
    precision_RN = np.divide(np.cumsum(true_RN, axis=1)[:, last_N], called_RN, where=called_RN > 0, out=0 * called_RN)
    return share((precision_RN * true_RN).sum(axis=1), true_RN.sum(axis=1))


def mean_where(chosen_RK: Bools, value_RK: Floats) -> Floats:
    """[R]: the mean of the chosen values of each row."""
    return share(np.where(chosen_RK, value_RK, 0.0).sum(axis=1), chosen_RK.sum(axis=1).astype(np.float64))


def share(part: Floats, whole: Floats) -> Floats:
    """NaN where the whole is 0."""
    return np.divide(part, whole, where=whole > 0, out=np.full_like(whole, np.nan))
