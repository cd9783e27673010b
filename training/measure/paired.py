"""Two models on the same clips: by how much one is better, and whether chance would do as much. Knows no models.

Shape letters: N clips, M = 2 N clips of two models, K labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.measure.figures import Paired
from training.measure.metrics.classes import class_figures, hit_share
from training.measure.metrics.resampling import Figures, Floats, Resampling, mean_of


@dataclass(frozen=True, eq=False)
class Judged:
    """What one model called in N clips of one kind: those with an action, or those with frame labels.

    The counts are those of `metrics.classes`; `exact_N` is 1 where a clip's answer is right, else 0, and None for
    frames, of which a clip has many.
    """

    count_N3K: Floats
    exact_N: Floats | None = None


def differences(
    ours: Judged, theirs: Judged, *, unit: Literal["clips", "frames"], against: str, resampling: Resampling
) -> tuple[Paired, Paired]:
    """Ours minus theirs, in accuracy and in macro F1. `against` is how the other model is called."""

    def paired(name: Literal["accuracy", "macro_f1"], figures: Figures) -> Paired:
        found = resampling.difference(_one(figures, name))
        return Paired(
            unit=unit, figure=name, against=against, difference=found.value, interval=found.interval, p=found.p
        )

    count_M3K = np.concatenate([ours.count_N3K, theirs.count_N3K])
    if ours.exact_N is not None and theirs.exact_N is not None:
        shares = mean_of(accuracy=np.concatenate([ours.exact_N, theirs.exact_N]))
    else:
        shares = hit_share(count_M3K, np.ones(count_M3K.shape[2], dtype=np.bool_))
    return paired("accuracy", shares), paired("macro_f1", class_figures(count_M3K))


def _one(figures: Figures, name: str) -> Callable[[Floats], Floats]:
    return lambda weight_RM: figures(weight_RM)[name]
