"""What a model answers to a known clip: kept with it, and compared before it answers anybody. Knows no model.

    golden.json   the clip, who computed this, seconds_T, action scores [T, A] and frame scores [T, L]

Hashes tell that weights are those that were written. This tells that what is made of them here, by this decoder, these
kernels, this device and precision, is what was made of them where the model was trained and measured.

Shape letters: T frames, A action labels, L frame labels.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError, model_validator

from vidseq.config import Config, EncoderConfig, HeadsConfig
from vidseq.errors import CheckpointError

FILE = "golden.json"
CLIP = Path(__file__).with_name("golden.mp4")  # a second of drifting waves, a disc and a box: texture, motion, colour
_DECIMALS = 5  # more would tell threads and batches apart, which are nobody's fault
# Of a score, 0 to 1: several times what was measured, far below what a wrong model does (docs/results.md, Checkpoints).
_FLOAT32, _REDUCED = 0.02, 0.05

Table = tuple[tuple[float, ...], ...]


class Golden(Config):
    """The answer. `made_by` are versions and the like, for people; either table is empty without that head."""

    clip_sha256: str
    made_by: dict[str, str]
    seconds: tuple[float, ...]
    actions: Table
    frames: Table

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        for table in (self.actions, self.frames):
            if table and (len(table) != len(self.seconds) or len({len(row) for row in table}) != 1):
                raise ValueError(f"not a row of one length for each of {len(self.seconds)} frames")
        return self

    @classmethod
    def of(
        cls,
        seconds_T: Sequence[float],
        action_TA: NDArray[np.float32] | None,
        frame_TL: NDArray[np.float32] | None,
        *,
        made_by: dict[str, str],
    ) -> "Golden":
        """Of the known clip."""
        return cls(
            clip_sha256=clip_sha256(),
            made_by=made_by,
            seconds=tuple(round(seconds, _DECIMALS) for seconds in seconds_T),
            actions=_rounded(action_TA),
            frames=_rounded(frame_TL),
        )

    def refuse_other(self, found: "Golden", heads: HeadsConfig, *, tolerance: float) -> None:
        """That `found` is this answer, within `tolerance` of each score.

        Raises:
            CheckpointError: it is not; the sentence names the score that differs most of its kind.
        """
        if self.seconds != found.seconds:
            raise CheckpointError(
                f"of the known clip {len(found.seconds)} frames are sampled here, at {found.seconds}, and "
                f"{len(self.seconds)} were when the model was made, at {self.seconds}"
            )
        self._refuse_apart("action", heads.action_labels, self.actions, found.actions, tolerance)
        self._refuse_apart("frame", heads.frame_labels, self.frames, found.frames, tolerance)

    def _refuse_apart(self, kind: str, labels: Sequence[str], was: Table, now: Table, tolerance: float) -> None:
        was_TN, is_TN = np.array(was), np.array(now)
        if was_TN.shape != is_TN.shape:
            raise CheckpointError(f"{FILE} holds {kind} scores of shape {was_TN.shape}, the model's are {is_TN.shape}")
        apart_TN = np.abs(was_TN - is_TN)
        if (apart_TN <= tolerance).all():  # what is no number is not
            return
        worst = int(np.nan_to_num(apart_TN, nan=np.inf).argmax())
        frame, label = divmod(worst, len(labels))
        raise CheckpointError(
            f"the {kind} score of {labels[label]!r} at {self.seconds[frame]:.3f} s of the known clip is "
            f"{is_TN[frame, label]:.5f}, and was {was_TN[frame, label]:.5f} when the model was made: they are "
            f"{apart_TN[frame, label]:.5f} apart, where {tolerance:g} is allowed, so the model is another one, or "
            "computes something else here"
        )


def parsed(data: bytes, path: Path) -> Golden:
    """Raises CheckpointError: `data`, of the file `path`, is no answer."""
    try:
        return Golden.model_validate_json(data)
    except ValidationError:
        raise CheckpointError(f"{path} is damaged: it is no answer to a known clip") from None


def tolerance_of(device: str, encoder: EncoderConfig) -> float:
    """How far a score may be from the golden one. On a GPU float32 is TF32 in convolutions: that of a reduced precision
    holds for it, too."""
    return _FLOAT32 if device == "cpu" and encoder.precision == "float32" else _REDUCED


def clip_sha256() -> str:
    return sha256(CLIP.read_bytes()).hexdigest()


def _rounded(score_TN: NDArray[np.float32] | None) -> Table:
    return () if score_TN is None else tuple(tuple(row) for row in score_TN.astype(float).round(_DECIMALS).tolist())
