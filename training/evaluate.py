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
from training.example import Example
from training.metrics import ClipMetrics, FrameMetrics, clip_metrics, frame_metrics
from training.targets import settled
from vidseq.model import SequenceModel
from vidseq.schemas import ModelInfo

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Probabilities of one clip's actions, and of every frame's labels; None without that head.

    `action_logits_TA` are those of the running action: `action_A` is the softmax of the last.
    """

    action_A: Floats | None
    action_logits_TA: NDArray[np.float32] | None
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
    return [_score(model, example) for example in examples]


def _score(model: SequenceModel, example: Example) -> ClipScores:
    scores, _ = model(example.feature_TD[None])
    action_BTA, frame_BTL = scores.action_probabilities_BTA(), scores.frame_probabilities_BTL()
    action_A = action_logits_TA = frame_TL = None
    if action_BTA is not None and scores.action_logits_BTA is not None:
        action_A = action_BTA[0, -1].double().numpy()
        action_logits_TA = scores.action_logits_BTA[0].numpy()
    if frame_BTL is not None:
        frame_TL = settled(frame_BTL[0].double().numpy(), lookahead_frames=model.config.lookahead_frames)
    return ClipScores(action_A, action_logits_TA, frame_TL)


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
    target_N = np.array([example.action_index for example in examples])
    return clip_metrics(np.stack(rows), target_N, labels=dataset.action_labels)


def _frames(dataset: Dataset, examples: Sequence[Example], scores: Sequence[ClipScores]) -> FrameMetrics | None:
    rows = [score.frame_TL for score in scores if score.frame_TL is not None]
    if not rows:
        return None
    target_N = np.concatenate([example.frame_target_T.numpy() for example in examples])
    return frame_metrics(np.concatenate(rows), target_N, labels=dataset.frame_labels, background=dataset.background)
