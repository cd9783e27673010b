"""What was called right of whole clips: of one action each, or of several at once. Knows nothing of models.

Shape letters: R draws, N clips, K labels.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import confusion_matrix

from training.data.targets import IGNORED
from training.measure.figures import ClipMetrics
from training.measure.metrics.classes import (
    average_precision,
    class_figures,
    class_rows,
    counts,
    mean_where,
    one_hot,
    share,
)
from training.measure.metrics.resampling import (
    Bools,
    Figures,
    Floats,
    Ints,
    Resampling,
    intervals_of,
    mean_of,
    measured,
)


def clip_metrics(
    scores_NK: Floats,
    target_N: Ints,
    *,
    labels: Sequence[str],
    unknown_below: float | None = None,
    groups: Sequence[str] | None = None,
) -> ClipMetrics | None:
    """Of clips that show one action each; None where no clip has a label.

    Args:
        scores_NK: of each clip and label; the largest is called.
        target_N: the true label's index, or `IGNORED`.
        unknown_below: with a lower score no action is called.
        groups: of each clip, for intervals; None leaves these out.
    """
    known_N = target_N != IGNORED
    if not known_N.any():
        return None
    scores_NK, target_N = scores_NK[known_N], target_N[known_N]
    called_N = scores_NK.argmax(axis=1)
    true_NK, called_NK = (one_hot(index_N, num_labels=len(labels)) for index_N in (target_N, called_N))
    figures = _figures(true_NK, called_NK, _shares(scores_NK, target_N, unknown_below))
    values = measured(figures, num_clips=len(target_N))
    ends = {} if groups is None else Resampling(_chosen(groups, known_N)).intervals(figures)
    matrix_KK = confusion_matrix(target_N, called_N, labels=list(range(len(labels))))
    return ClipMetrics(
        num=len(target_N),
        accuracy=float(values["accuracy"]),
        top5=float(values["top5"]),
        macro_f1=float(values["macro_f1"]),
        mean_class_accuracy=float(values["mean_class_accuracy"]),
        share_answered=None if unknown_below is None else float(values["share_answered"]),
        accuracy_answered=_number(values.get("accuracy_answered")),
        labels=tuple(labels),
        confusion=tuple(map(tuple, matrix_KK.tolist())),
        classes=class_rows(labels, support_K=true_NK.sum(axis=0), values=values, ends=ends),
        intervals=intervals_of(ends),
    )


def several_metrics(
    scores_NK: Floats,
    true_NK: Bools,
    *,
    labels: Sequence[str],
    threshold_K: Floats,
    groups: Sequence[str] | None = None,
) -> ClipMetrics | None:
    """Of clips that show any number of actions each; None where there is no clip.

    Args:
        scores_NK: of each clip and label; a label is called from its threshold on.
        true_NK: the labels that each clip has.
        groups: of each clip, for intervals; None leaves these out.
    """
    if not len(true_NK):
        return None
    called_NK = scores_NK >= threshold_K
    exact_N = (called_NK == true_NK).all(axis=1).astype(np.float64)
    shares = _figures(true_NK, called_NK, mean_of(accuracy=exact_N))

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        columns = zip(scores_NK.T, true_NK.T, strict=True)
        ap_RK = np.stack([average_precision(score_N, true_N, weight_RN) for score_N, true_N in columns], axis=1)
        mean_ap_R = mean_where(~np.isnan(ap_RK), ap_RK)
        return {**shares(weight_RN), "average_precision": ap_RK, "mean_average_precision": mean_ap_R}

    values = measured(figures, num_clips=len(true_NK))
    ends = {} if groups is None else Resampling(groups).intervals(figures)
    ends.pop("mean_class_accuracy", None)
    return ClipMetrics(
        num=len(true_NK),
        accuracy=float(values["accuracy"]),
        top5=None,
        macro_f1=_number(values["macro_f1"]) or 0.0,
        mean_average_precision=_number(values["mean_average_precision"]),
        labels=tuple(labels),
        confusion=(),
        classes=class_rows(
            labels,
            support_K=true_NK.sum(axis=0),
            values=values,
            ends=ends,
            names=("precision", "recall", "f1", "average_precision"),
        ),
        intervals=intervals_of(ends),
    )


def _figures(true_NK: Bools, called_NK: Bools, shares: Figures) -> Figures:
    """Those of the labels, and `shares`."""
    per_clip = zip(true_NK[:, None], called_NK[:, None], strict=True)
    of_classes = class_figures(np.stack([counts(true_1K, called_1K) for true_1K, called_1K in per_clip]))
    return lambda weight_RN: {**of_classes(weight_RN), **shares(weight_RN)}


def _shares(scores_NK: Floats, target_N: Ints, unknown_below: float | None) -> Figures:
    """`accuracy` and `top5`; `share_answered` and `accuracy_answered` where a model may answer "unknown"."""
    right_N = (scores_NK.argmax(axis=1) == target_N).astype(np.float64)
    best_N5 = np.argsort(-scores_NK, axis=1, kind="stable")[:, :5]
    top5_N = (best_N5 == target_N[:, None]).any(axis=1).astype(np.float64)
    if unknown_below is None:
        return mean_of(accuracy=right_N, top5=top5_N)
    answered_N = (scores_NK.max(axis=1) >= unknown_below).astype(np.float64)
    means = mean_of(accuracy=right_N, top5=top5_N, share_answered=answered_N, right=right_N * answered_N)

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        found = dict(means(weight_RN))
        answered_R = found["share_answered"]
        right_R = found.pop("right")
        found["accuracy_answered"] = share(right_R, answered_R)
        return found

    return figures


def _chosen(groups: Sequence[str], chosen_N: Bools) -> list[str]:
    return [group for group, chosen in zip(groups, chosen_N, strict=True) if chosen]


def _number(value: Floats | None) -> float | None:
    """None for NaN: nothing to measure."""
    return None if value is None or np.isnan(value) else float(value)
