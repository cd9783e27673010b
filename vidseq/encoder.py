"""The per-frame CNN: uint8 pixels in, one row of numbers a frame out. Knows nothing of time.

    pixels_NHWC -> (x - mean) / std -> backbone -> pooled_NF                                    -> encoded_NE
                                                +-> map_NCHW -> grid of positions, projected ---^   with motion

Mean and standard deviation are buffers of the module, so that nobody can normalise twice or differently. What the rows
of two frames say about what moved between them is vidseq.motion's to know; without motion a row is the feature.

vidseq.backbones is imported by whoever makes an encoder, not by this module: timm and torchvision take longer to import
than all else, and half of our processes label nothing.

Shape letters: N frames, H height, W width, C channels (3 of colour), F pooled size, E encoded size, D feature size.
"""

import math
from collections.abc import Sequence

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from vidseq.config import EncoderConfig, MotionConfig
from vidseq.motion import Motion
from vidseq.state import State

# A CPU is fastest while a batch fits its caches (4 frames take 0.6 to 0.95 of the time of 16), a GPU when it is full.
BATCH_FRAMES = {"cpu": 4, "cuda": 256}
_HALF_MAX = 65504.0


class Encoder(nn.Module):
    """A backbone with its normalisation; always in evaluation mode, and frozen unless training unfreezes it.

    A fresh one has random weights: `load_default_weights` or `load_state_dict` fills it. `batch_frames` may be set to
    another number than the device's default. `pooled_size` is F, `encoded_size` is E, and `feature_size` D: the size of
    what `features` makes of encoded frames.
    """

    pixel_mean: Tensor  # 1 C 1 1, in units of a uint8 pixel
    pixel_std: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        from vidseq.backbones import build_backbone

        super().__init__()
        self.config = config
        self.cut = build_backbone(config.backbone)
        self.backbone, self.classifier = self.cut.module, self.cut.classifier
        self.pooled_size = self.encoded_size = self.feature_size = self.cut.feature_size
        self.motion: Motion | None = None
        if config.motion is not None:
            self._look_at_maps(config.motion)
        self.backbone.to(memory_format=torch.channels_last)
        self.register_buffer("pixel_mean", 255 * torch.tensor(config.pixel_mean_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(config.pixel_std_RGB).view(1, 3, 1, 1), persistent=False)
        self.batch_frames: int | None = None
        self.requires_grad_(False)
        self.eval()

    def _look_at_maps(self, config: MotionConfig) -> None:
        from vidseq.backbones import read_maps

        self._maps = read_maps(self.cut, config.maps)
        channels = [min(number, config.channels) for number in self._maps.channels]
        for name, before, after in zip(config.maps, self._maps.channels, channels, strict=True):
            self.register_buffer(f"{name}_projection", _projection(before, after), persistent=False)
        self.motion = Motion(config, self.pooled_size, tuple(channels))
        self.encoded_size, self.feature_size = self.motion.encoded_size, self.motion.feature_size

    def train(self, mode: bool = True) -> "Encoder":
        """The batch statistics stay what they are, whatever the rest of the model does, and when it is trained, too."""
        return super().train(False)

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        """encoded_NE, float32, from uint8 RGB pixels of any number of frames, `batch_frames` at a time.

        Of frozen layers nothing is recorded for a backward pass: neither they nor the pixels want a gradient.
        """
        assert pixels_NHWC.dtype == torch.uint8, f"pixels must be uint8, not {pixels_NHWC.dtype}"
        if not len(pixels_NHWC):
            return pixels_NHWC.new_zeros(0, self.encoded_size, dtype=torch.float32)
        batch_frames = self.batch_frames or BATCH_FRAMES.get(pixels_NHWC.device.type, BATCH_FRAMES["cuda"])
        return torch.cat([self._encode(batch_NHWC) for batch_NHWC in pixels_NHWC.split(batch_frames)])

    def features(
        self, encoded_BTE: Tensor, state: State | None = None, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, State]:
        """feature_BTD of encoded frames in their order, and the state after them; see `Motion`.

        Args:
            encoded_BTE: rows of B streams, padded at the end to the longest.
            state: None at the start of the videos, else what the chunk before returned.
            lengths: valid frames of each row; None says that all have T.
        """
        if self.motion is None:
            return encoded_BTE, state or State()
        return self.motion(encoded_BTE, state, lengths)

    def _encode(self, pixels_NHWC: Tensor) -> Tensor:
        pixels_NCHW = (pixels_NHWC.permute(0, 3, 1, 2).float() - self.pixel_mean) / self.pixel_std
        # whoever trains may have asked for less already: a nested autocast must not take it back
        reduced = self.config.precision == "bfloat16" or torch.is_autocast_enabled(pixels_NHWC.device.type)
        with torch.autocast(pixels_NHWC.device.type, dtype=torch.bfloat16, enabled=reduced):
            if self.config.motion is None:
                pooled_NF: Tensor = self.backbone(pixels_NCHW)
                return pooled_NF.float()
            pooled_NF, maps = self._maps.read(pixels_NCHW)
        reduced_maps = [self._reduced(*named) for named in zip(self.config.motion.maps, maps, strict=True)]
        return torch.cat([pooled_NF.float(), *reduced_maps], dim=1)

    def _reduced(self, name: str, map_NCHW: Tensor) -> Tensor:
        """A map as one row: over a grid, projected, and rounded to what a stream remembers of it, half precision.

        Rounded here, the frame at hand and the one before are compared alike in a batch and in a stream.
        """
        assert self.config.motion is not None
        map_NCGG = functional.adaptive_avg_pool2d(map_NCHW.float(), self.config.motion.grid)
        map_NCGG = torch.einsum("dc,nchw->ndhw", self.get_buffer(f"{name}_projection"), map_NCGG)
        return map_NCGG.clamp(-_HALF_MAX, _HALF_MAX).half().float().flatten(1)

    def to_bytes(self) -> bytes:
        """The backbone's weights as safetensors: what a checkpoint keeps, and what a cache of features is keyed by."""
        tensors = self.backbone.state_dict()
        # channels_last weights are laid out plainly first: safetensors keeps no strides
        plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        data: bytes = save(plain)
        return data


def load_default_weights(encoder: Encoder) -> None:
    """Fill the backbone as its config's `weights` says; see `backbones.load_default_weights`."""
    from vidseq import backbones

    backbones.load_default_weights(encoder.cut, encoder.config.weights)


def _projection(before: int, after: int) -> Tensor:
    """Fixed random signs, which keep distances between maps about what they were (Achlioptas 2003).

    The same for everybody, so that it is no part of a checkpoint. Without need it is the identity.
    """
    if after == before:
        return torch.eye(before)
    sign_CC = torch.randint(0, 2, (after, before), generator=torch.Generator().manual_seed(before)).float()
    return (2 * sign_CC - 1) / math.sqrt(after)
