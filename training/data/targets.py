"""Labels of a clip's sampled frames as numbers to learn from. Knows nothing of models.

With a lookahead of K frames a model names each frame K steps late, when it has seen what follows:

    step            0  1  2  3  4  5
    target, K = 2   .  .  0  1  2  3       the frame that is named; `delayed` makes it so
    frame           0  1  2  3  4  5
    scores, K = 2   2  3  4  5  5  5       the step that names it; `settled`, as vidseq.labelling does in a stream

Shape letters: T sampled frames, L frame labels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.data.clips import LabelledClip

if TYPE_CHECKING:  # tables are read and figures made without torch
    from torch import Tensor

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


def delayed(target_T: "Tensor", *, lookahead_frames: int) -> "Tensor":
    """The target of each step: the label of the frame so many steps ago, `IGNORED` before there was one."""
    late_T = target_T.roll(lookahead_frames)
    late_T[:lookahead_frames] = IGNORED
    return late_T


def settled(scores_TL: NDArray[np.float64], *, lookahead_frames: int) -> NDArray[np.float64]:
    """The scores of each frame from those of each step; the last step's hold for all frames that still wait."""
    frame_T = np.arange(len(scores_TL))
    return scores_TL[np.minimum(frame_T + lookahead_frames, len(scores_TL) - 1)]
