"""Frames of a clip changed before the CNN sees them, all in the same way. Knows nothing of files or models.

One draw holds for a whole clip: what moves from frame to frame moves as before, and a mean over frames cannot average
the change away. The pixels stay uint8: normalisation is the model's.

Shape letters: T frames, H height, W width, C colour (red, green, blue).
"""

import hashlib
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torchvision.transforms import v2

from training.settings import FrameChange
from vidseq.config import Picture

# Mild: the action must still be in the picture. (arxiv:1409.4842 crops down to 0.08 of it, for one object alone.)
CROP_SHARES, CROP_ASPECTS = (0.5, 1.0), (3 / 4, 4 / 3)
BRIGHTNESS = CONTRAST = SATURATION = 0.3
GREY_PROBABILITY = 0.1


@dataclass(frozen=True)
class FrameAugment:
    """A random change of a clip's frames, the same one for the same `key`.

    wide    view 1 is the whole frame, letterboxed, and not changed otherwise
    crop    a part of the frame, half of it or more, brought to the frame's size
    colour  other brightness, contrast and saturation
    grey    no colour, for one clip in ten
    flip    left and right exchanged, for one clip in two: for labels to which they are the same
    """

    changes: tuple[FrameChange, ...] = ()

    def picture(self, picture: Picture, *, view: int) -> Picture:
        """What a view's frames are cut to."""
        return picture.model_copy(update={"fit": "letterbox"}) if self.is_wide(view) else picture

    def is_wide(self, view: int) -> bool:
        """Whether this view is the whole frame. View 0 is always the clip as it is."""
        return "wide" in self.changes and view == 1

    def __call__(self, pixels_THWC: Tensor, *, key: tuple[int | str, ...]) -> Tensor:
        """The clip as it is seen this time: uint8, as large as it was.

        Args:
            pixels_THWC: uint8; a long clip may come in parts, each with the same key.
            key: what the draw follows from, such as seed, epoch and clip. Torch's own generator is left alone.
        """
        assert pixels_THWC.dtype == torch.uint8, f"pixels must be uint8, not {pixels_THWC.dtype}"
        ordered = [change for change in get_args(FrameChange) if change in self.changes and change != "wide"]
        if not ordered or not len(pixels_THWC):
            return pixels_THWC
        height, width = pixels_THWC.shape[1:3]
        transform = v2.Compose([_transform(change, height=height, width=width) for change in ordered])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(key))
            changed_TCHW: Tensor = transform(pixels_THWC.permute(0, 3, 1, 2))
        return changed_TCHW.permute(0, 2, 3, 1).contiguous()


def _transform(change: FrameChange, *, height: int, width: int) -> v2.Transform:
    if change == "crop":
        return v2.RandomResizedCrop((height, width), scale=CROP_SHARES, ratio=CROP_ASPECTS, antialias=True)
    if change == "colour":
        return v2.ColorJitter(brightness=BRIGHTNESS, contrast=CONTRAST, saturation=SATURATION)
    if change == "grey":
        return v2.RandomGrayscale(GREY_PROBABILITY)
    return v2.RandomHorizontalFlip()


def _seed(key: tuple[int | str, ...]) -> int:
    """63 bits of a hash: neighbouring seeds, epochs and clips must not draw alike."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little") >> 1
