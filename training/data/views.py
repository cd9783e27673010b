"""A clip as it is seen each time that it is learnt from: other pixels, or features of other pixels. Knows no models.

A CNN that is trained sees pixels: each time another stretch of the clip, and its frames changed. A frozen one is run
only once for each way to see a clip; of several sets of features (views) one is drawn each time. View 0 is the clip as
it is: the one that is measured.

Shape letters: T frames, H height, W width, C colour, D feature size.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from training.data.example import Example
from training.data.frame_augment import FrameAugment


def with_views(example: Example, others: Sequence[Example]) -> Example:
    """The example, view 0; in its place another view, drawn with equal chances, when it is learnt from."""
    views = [example, *others]
    assert all(view.num_frames == example.num_frames for view in views), "all views show the same frames"
    return replace(example, draw=lambda chance: views[chance.integers(len(views))])


def of_pixels(example: Example, pixels_THWC: Tensor, *, augment: FrameAugment, clip_frames: int) -> Example:
    """The example with the clip's pixels, which may lie on disk, in the place of its features.

    Learnt from are at most `clip_frames` frames, from a random one on, changed by `augment`; measured is all of it.
    """
    assert len(pixels_THWC) == example.num_frames, f"{len(pixels_THWC)} frames for {example.num_frames} targets"
    whole = Example(pixels_THWC, example.action_target_A, example.frame_target_T)

    def draw(chance: np.random.Generator) -> Example:
        start = int(chance.integers(max(0, whole.num_frames - clip_frames), endpoint=True))
        part = whole.cut(start, start + clip_frames)
        return replace(part, feature_TD=augment(part.feature_TD, key=(int(chance.integers(2**63)),)), reorder=None)

    return replace(whole, draw=draw)
