"""What was called right of sampled frames. Knows nothing of models, and of time only that frames belong to clips.

Shape letters: N clips, T frames of one, F frames of all, K labels.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import confusion_matrix

from training.data.targets import IGNORED
from training.measure.figures import FrameMetrics
from training.measure.metrics.classes import average_precision, class_figures, class_rows, counts, hit_share, one_hot
from training.measure.metrics.resampling import Figures, Floats, Ints, Resampling, intervals_of, measured


def frame_metrics(
    scores: Sequence[Floats],
    targets: Sequence[Ints],
    *,
    labels: Sequence[str],
    background: str | None,
    groups: Sequence[str] | None = None,
) -> FrameMetrics | None:
    """None where no frame has a label.

    Args:
        scores: score_TK of each clip; the largest is called.
        targets: target_T of each clip: the true label's index, or `IGNORED`.
        groups: of each clip, for intervals; None leaves these out. There is none of the mean average precision.
    """
    score_FK, target_F = np.concatenate(scores), np.concatenate(targets)
    known_F = target_F != IGNORED
    if not known_F.any():
        return None
    score_FK, target_F = score_FK[known_F], target_F[known_F]
    called_F = score_FK.argmax(axis=1)
    count_N3K = frame_counts(scores, targets)
    figures = _figures(count_N3K, labels=labels, background=background)
    values = measured(figures, num_clips=len(scores))
    values["average_precision"] = _average_precision_K(score_FK, target_F)
    ends = {} if groups is None else Resampling(groups).intervals(figures)
    foreground = values["accuracy_foreground"]
    return FrameMetrics(
        num=len(target_F),
        accuracy=float(values["accuracy"]),
        accuracy_foreground=None if np.isnan(foreground) else float(foreground),
        macro_f1=float(values["macro_f1"]),
        mean_average_precision=float(np.nanmean(values["average_precision"])),
        labels=tuple(labels),
        confusion=tuple(map(tuple, confusion_matrix(target_F, called_F, labels=list(range(len(labels)))).tolist())),
        classes=class_rows(
            labels,
            support_K=count_N3K[:, 0].sum(axis=0),
            values=values,
            ends=ends,
            names=("precision", "recall", "f1", "average_precision"),
        ),
        intervals=intervals_of({name: end for name, end in ends.items() if name != "mean_class_accuracy"}),
    )


def frame_counts(scores: Sequence[Floats], targets: Sequence[Ints]) -> Floats:
    """float64[N, 3, K]: the counts of `metrics.classes`, of each clip's frames that have a label."""
    return np.stack([_counts(score_TK, target_T) for score_TK, target_T in zip(scores, targets, strict=True)])


def _counts(score_TK: Floats, target_T: Ints) -> Floats:
    known_T, num_labels = target_T != IGNORED, score_TK.shape[1]
    called_T = score_TK[known_T].argmax(axis=1)
    return counts(one_hot(target_T[known_T], num_labels=num_labels), one_hot(called_T, num_labels=num_labels))


def _figures(count_N3K: Floats, *, labels: Sequence[str], background: str | None) -> Figures:
    of_classes = class_figures(count_N3K)
    of_all = hit_share(count_N3K, np.ones(len(labels), dtype=np.bool_))
    of_foreground = hit_share(count_N3K, np.array([label != background for label in labels]))
    return lambda weight_RN: {
        **of_classes(weight_RN),
        **of_all(weight_RN),
        "accuracy_foreground": of_foreground(weight_RN)["accuracy"],
    }


def _average_precision_K(score_FK: Floats, target_F: Ints) -> Floats:
    """Of each label against all others; NaN for one that no frame has."""
    once_1F = np.ones((1, len(target_F)))
    return np.array([average_precision(score_F, target_F == k, once_1F)[0] for k, score_F in enumerate(score_FK.T)])
