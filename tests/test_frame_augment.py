"""Frames are changed at random, a whole clip alike, and the same way for the same key."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.data.frame_augment import FrameAugment
from training.settings import FrameChange
from vidseq.config import Picture

SIZE = 24
EVERYTHING = FrameAugment(get_args(FrameChange))
OF_PIXELS = [change for change in get_args(FrameChange) if change != "wide"]


def a_clip(num_frames: int = 6) -> Tensor:
    """One picture again and again: whatever differs between its frames afterwards was drawn for each alone."""
    generator = torch.Generator().manual_seed(0)
    picture_HWC = torch.randint(0, 256, (SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return picture_HWC.repeat(num_frames, 1, 1, 1)


@pytest.mark.parametrize("change", OF_PIXELS)
def test_each_change_does_something_to_some_clips(change: FrameChange) -> None:
    seen = [FrameAugment((change,))(a_clip(1), key=(draw,)) for draw in range(40)]
    assert any(not torch.equal(clip, a_clip(1)) for clip in seen)
    assert all(clip.dtype == torch.uint8 and clip.shape == a_clip(1).shape for clip in seen)


@given(draw=st.integers(0, 1000))
def test_all_frames_of_a_clip_are_changed_alike(draw: int) -> None:
    clip_THWC = EVERYTHING(a_clip(), key=("seed", draw))
    assert all(torch.equal(frame_HWC, clip_THWC[0]) for frame_HWC in clip_THWC)


@given(draw=st.integers(0, 1000), cut=st.integers(0, 6))
def test_a_clip_that_comes_in_parts_is_changed_as_if_it_came_whole(draw: int, cut: int) -> None:
    generator = torch.Generator().manual_seed(draw)
    clip_THWC = torch.randint(0, 256, (6, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    augment = EVERYTHING
    parts = [augment(part_THWC, key=(draw,)) for part_THWC in (clip_THWC[:cut], clip_THWC[cut:])]
    assert torch.equal(torch.cat(parts), augment(clip_THWC, key=(draw,)))


def test_the_draw_follows_from_the_key_alone_and_leaves_torch_alone() -> None:
    augment = EVERYTHING
    torch.manual_seed(1)
    before = torch.get_rng_state()
    once = augment(a_clip(), key=(0, 3, "clip"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augment(a_clip(), key=(0, 3, "clip")), once)
    others = [augment(a_clip(), key=key) for key in ((1, 3, "clip"), (0, 4, "clip"), (0, 3, "other"))]
    assert not any(torch.equal(other, once) for other in others)


def test_left_and_right_are_kept_unless_a_flip_is_asked_for() -> None:
    """Bright on the left and dark on the right, whatever is cut out of it and however it is coloured."""
    ramp_HWC = torch.linspace(200, 50, SIZE).to(torch.uint8)[None, :, None].expand(SIZE, SIZE, 3)
    augment = FrameAugment(("crop", "colour", "grey"))
    for draw in range(50):
        seen_THWC = augment(ramp_HWC[None], key=(draw,)).float()
        assert seen_THWC[:, :, 0].mean() > seen_THWC[:, :, -1].mean()


def test_the_order_in_which_changes_are_named_changes_nothing() -> None:
    one, other = FrameAugment(("crop", "flip")), FrameAugment(("flip", "crop"))
    assert torch.equal(one(a_clip(), key=(5,)), other(a_clip(), key=(5,)))


def test_without_changes_the_clip_is_as_it_was() -> None:
    assert torch.equal(FrameAugment()(a_clip(), key=(0,)), a_clip())


def test_one_view_alone_is_wide() -> None:
    assert [EVERYTHING.picture(Picture(), view=view).fit for view in range(4)] == ["crop", "letterbox", "crop", "crop"]
    assert [FrameAugment(("crop",)).picture(Picture(), view=view).fit for view in range(2)] == ["crop"] * 2
    assert torch.equal(FrameAugment(("wide",))(a_clip(), key=(0,)), a_clip())
