"""The CNN and the sequence model as one, on batches of pixel clips. Knows nothing of losses, clips or files.

    pixels_BTHWC, uint8, padded -> encoder, valid frames alone -> encoded_BTE -> feature_BTD -> sequence model -> Scores

Shape letters: B clips, T frames, N valid frames of all clips, H height, W width, C colour, E encoded
size, D feature size.
"""

import torch
from torch import Tensor, nn

from vidseq.config import ModelConfig
from vidseq.encoder import Encoder
from vidseq.model import Scores, SequenceModel
from vidseq.state import State


class JointModel(nn.Module):
    """What a SequenceModel is to features, for pixels: the training loop calls either in the same way.

    Args:
        encoder: its parameters that require a gradient are trained, see training.loop.unfreeze.
        mixed_precision: whether the CNN computes in bfloat16 in training mode; its weights stay float32.
    """

    def __init__(self, encoder: Encoder, sequence: SequenceModel, *, mixed_precision: bool = False) -> None:
        super().__init__()
        self.encoder, self.sequence = encoder, sequence
        self.mixed_precision = mixed_precision

    @property
    def config(self) -> ModelConfig:
        return self.sequence.config

    def forward(
        self, pixels_BTHWC: Tensor, state: State | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Scores, State]:
        """Scores of every frame and the state after each clip's own last frame, as SequenceModel.forward.

        Pixels come from the CPU, and the scores go back to it, wherever the model is.
        """
        device = self.encoder.pixel_mean.device
        num_clips, num_frames = pixels_BTHWC.shape[:2]
        if lengths_B is None:
            lengths_B = torch.full((num_clips,), num_frames)
        valid_BT = torch.arange(num_frames) < lengths_B[:, None]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.mixed_precision and self.training):
            encoded_NE = self.encoder(pixels_BTHWC[valid_BT].to(device))
        encoded_BTE = encoded_NE.new_zeros(num_clips, num_frames, self.encoder.encoded_size)
        encoded_BTE[valid_BT.to(device)] = encoded_NE
        feature_BTD, state = self.encoder.features(encoded_BTE, state, lengths_B.tolist())
        scores, state = self.sequence(feature_BTD, state, lengths_B)
        return scores.to("cpu"), state


def mixed_precision_pays(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32: GPUs that have it. CPUs differ, and are asked."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
