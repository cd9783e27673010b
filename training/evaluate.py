"""What a model gets right on labelled clips, beside the mean-pool baseline that was trained with it.

Knows nothing of how either was trained.

Shape letters: N clips, T frames, A action labels, L frame labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from training.dataset import Dataset
from training.fit import Example
from training.metrics import ClipMetrics, FrameMetrics, clip_metrics, frame_metrics
from vidseq.model import SequenceModel
from vidseq.schemas import ModelInfo

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Probabilities of one clip's actions, and of every frame's labels; None without that head."""

    action_A: Floats | None
    frame_TL: Floats | None


class ClipResults(ClipMetrics):
    baseline: ClipMetrics | None = None


class FrameResults(FrameMetrics):
    baseline: FrameMetrics | None = None


class Evaluation(BaseModel):
    """What `vidseq evaluate --json` writes."""

    model: ModelInfo | None = None
    clips: ClipResults | None
    frames: FrameResults | None
    failed: tuple[str, ...] = ()


@torch.inference_mode()
def score_clips(model: SequenceModel, examples: Sequence[Example]) -> list[ClipScores]:
    """The model's scores of each clip, alone, as `classify` would say them."""
    model.eval()
    found = []
    for example in examples:
        scores, _ = model(example.feature_TD[None])
        action_BTA, frame_BTL = scores.action_probabilities_BTA(), scores.frame_probabilities_BTL()
        found.append(
            ClipScores(
                None if action_BTA is None else action_BTA[0, -1].double().numpy(),
                None if frame_BTL is None else frame_BTL[0].double().numpy(),
            )
        )
    return found


def evaluate(
    dataset: Dataset, examples: Sequence[Example], scores: Sequence[ClipScores], baseline: Sequence[ClipScores]
) -> Evaluation:
    """Both heads' figures, and the baseline's on the same clips."""
    clips, frames = _clips(dataset, examples, scores), _frames(dataset, examples, scores)
    clips_baseline, frames_baseline = _clips(dataset, examples, baseline), _frames(dataset, examples, baseline)
    return Evaluation(
        clips=None if clips is None else ClipResults(**clips.model_dump(), baseline=clips_baseline),
        frames=None if frames is None else FrameResults(**frames.model_dump(), baseline=frames_baseline),
        failed=tuple(f"{failure.path}: {failure.error}" for failure in dataset.failed),
    )


def _clips(dataset: Dataset, examples: Sequence[Example], scores: Sequence[ClipScores]) -> ClipMetrics | None:
    rows = [score.action_A for score in scores if score.action_A is not None]
    if not rows:
        return None
    target_N = np.array([example.action_target for example in examples])
    return clip_metrics(np.stack(rows), target_N, labels=dataset.action_labels)


def _frames(dataset: Dataset, examples: Sequence[Example], scores: Sequence[ClipScores]) -> FrameMetrics | None:
    rows = [score.frame_TL for score in scores if score.frame_TL is not None]
    if not rows:
        return None
    target_N = np.concatenate([example.frame_target_T.numpy() for example in examples])
    return frame_metrics(np.concatenate(rows), target_N, labels=dataset.frame_labels, background=dataset.background)
