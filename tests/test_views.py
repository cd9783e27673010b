"""A clip is seen in another way each time that it is learnt from, and as it is when it is measured."""

import numpy as np
import torch
from torch import Tensor

from training.data.example import Example, one_hot
from training.data.frame_augment import FrameAugment
from training.data.views import of_pixels, with_views
from training.loop.batches import learning_batches, measuring_batches
from training.settings import FitConfig


def numbered(length: int, *, value: float = 0.0) -> Example:
    """Frame number t has the feature [t, value] and the label t."""
    feature_TD = torch.stack([torch.arange(length).float(), torch.full((length,), value)], dim=1)
    return Example(feature_TD, one_hot(1, num_labels=2), torch.arange(length))


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels(length: int) -> Tensor:
    """Frames of noise whose first pixel is their number."""
    generator = torch.Generator().manual_seed(0)
    pixels_THWC = torch.randint(0, 256, (length, 16, 16, 3), generator=generator, dtype=torch.uint8)
    pixels_THWC[:, 0, 0, 0] = torch.arange(length)
    return pixels_THWC


def test_all_views_are_drawn_and_the_first_is_measured() -> None:
    example = with_views(numbered(5), [numbered(5, value=1.0), numbered(5, value=2.0)])
    drawn = [example.drawn(source).feature_TD[0, 1].item() for source in map(chance, range(40))]
    assert set(drawn) == {0.0, 1.0, 2.0}
    (rows,) = measuring_batches([example], batch_size=1)
    assert torch.equal(rows[0].parts[0].example.feature_TD, numbered(5).feature_TD)


def test_what_is_changed_in_time_is_the_view_that_was_drawn() -> None:
    """Of another order of its frames, too: drop asks the view for them, not the plain clip."""
    example, settings = with_views(numbered(40), [numbered(40, value=1.0)]), FitConfig(augment_time=("drop", "crop"))
    for seed in range(10):
        (rows,) = learning_batches([example], settings, chance=chance(seed))
        seen = rows[0].parts[0].example
        assert len(set(seen.feature_TD[:, 1].tolist())) == 1
        assert seen.feature_TD[:, 0].long().tolist() == seen.frame_target_T.tolist()


def test_a_stretch_of_pixels_from_a_random_frame_on_is_learnt_from_with_its_labels() -> None:
    example = of_pixels(numbered(20), pixels(20), augment=FrameAugment(), clip_frames=6)
    starts = set()
    for seed in range(60):
        seen = example.drawn(chance(seed))
        assert seen.num_frames == 6
        assert seen.feature_TD[:, 0, 0, 0].tolist() == seen.frame_target_T.tolist()
        starts.add(int(seen.frame_target_T[0]))
    assert {0, 14} <= starts <= set(range(15))


def test_a_short_clip_is_seen_whole_and_measured_is_all_of_any_clip() -> None:
    example = of_pixels(numbered(4), pixels(4), augment=FrameAugment(), clip_frames=6)
    assert torch.equal(example.drawn(chance()).feature_TD, pixels(4))
    long = of_pixels(numbered(20), pixels(20), augment=FrameAugment(("colour",)), clip_frames=6)
    (rows,) = measuring_batches([long], batch_size=1)
    assert torch.equal(rows[0].parts[0].example.feature_TD, pixels(20))


def test_frames_are_changed_anew_each_time_and_the_same_way_by_the_same_chance() -> None:
    example = of_pixels(numbered(6), pixels(6), augment=FrameAugment(("crop", "colour")), clip_frames=6)
    one, again, other = (example.drawn(chance(seed)).feature_TD for seed in (1, 1, 2))
    assert one.dtype == torch.uint8 and torch.equal(one, again) and not torch.equal(one, other)
