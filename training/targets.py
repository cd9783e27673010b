"""Labels of a clip's sampled frames as numbers to learn from. Knows nothing of models.

Shape letters: T sampled frames.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.clips import LabelledClip

IGNORED = -1  # the target of what has no label


def frame_targets(
    clip: LabelledClip, seconds_T: NDArray[np.float64], frame_labels: Sequence[str], background: str | None
) -> NDArray[np.int64]:
    """The index of each sampled frame's label, int64[T]; `IGNORED` where it has none, or none of `frame_labels`.

    A clip without any segment was not marked at all: its frames are no background.
    """
    unmarked = IGNORED if background is None or not clip.segments else frame_labels.index(background)
    target_T = np.full(len(seconds_T), unmarked, dtype=np.int64)
    for segment in clip.segments:
        inside_T = (segment.start_seconds <= seconds_T) & (seconds_T < segment.end_seconds)
        target_T[inside_T] = frame_labels.index(segment.label) if segment.label in frame_labels else IGNORED
    return target_T
