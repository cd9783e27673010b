"""What a model says of clips whose features are known, and what of it counts as right. Knows nothing of training.

Shape letters: N clips, T frames, A action labels, L frame labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.clips import LabelledClip
from training.data.example import Example
from training.data.targets import settled
from training.measure.metrics.resampling import Bools, Floats
from vidseq.config import HeadsConfig, ModelConfig
from vidseq.model import Scores, SequenceModel
from vidseq.naming import Naming, probabilities, temperatures_at

CHUNK_FRAMES = 1024


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Probabilities of one clip's actions, and of every frame's labels; None without that head.

    `action_logits_TA` are those of the running action: `action_A` is made of the last, with no temperature.
    """

    action_A: Floats | None
    action_logits_TA: NDArray[np.float32] | None
    frame_TL: Floats | None


@torch.inference_mode()
def score_clips(model: SequenceModel, examples: Sequence[Example]) -> list[ClipScores]:
    """The model's scores of each clip, alone, as `classify` would say them but for the temperature."""
    model.eval()
    return [_score(model, example) for example in examples]


def calibrated_A(score: ClipScores, seconds_T: Floats, config: ModelConfig) -> Floats | None:
    """The action's scores as `classify` says them: with the model's temperature at the end of the clip, if it has one.

    `seconds_T` are the times of the clip's sampled frames.
    """
    if config.calibration is None or score.action_logits_TA is None:
        return score.action_A
    temperature_1 = temperatures_at(seconds_T[-1:] - seconds_T[0], config.calibration)
    logits_1A = torch.from_numpy(score.action_logits_TA[-1:]).double()
    action_A: Floats = probabilities(logits_1A, several=config.heads.several, temperature_T=temperature_1)[0].numpy()
    return action_A


def said_A(action_A: Floats, heads: HeadsConfig) -> Bools:
    """The actions that are called: the best, or, of several, each from its threshold on.

    That the best may be too weak to be named ("unknown") does not change which it is.
    """
    if heads.several:
        return action_A >= Naming.of(heads).threshold_A
    said: Bools = np.arange(len(action_A)) == action_A.argmax()
    return said


def groups_of(clips: Sequence[LabelledClip]) -> list[str]:
    """What an interval draws together; a clip without a group is one for itself."""
    return [f"clip {clip.path}" if clip.group is None else f"group {clip.group}" for clip in clips]


def _score(model: SequenceModel, example: Example) -> ClipScores:
    """A model that knows one frame only is asked for the action at the middle one."""
    scores, at = _scores(model, example.feature_TD), example.num_frames // 2 if model.config.forgets_at_once else -1
    action_BTA, frame_BTL = scores.action_probabilities_BTA(), scores.frame_probabilities_BTL()
    action_A = action_logits_TA = frame_TL = None
    if action_BTA is not None and scores.action_logits_BTA is not None:
        action_A = action_BTA[0, at].double().numpy()
        action_logits_TA = scores.action_logits_BTA[0].numpy()
    if frame_BTL is not None:
        frame_TL = settled(frame_BTL[0].double().numpy(), lookahead_frames=model.config.lookahead_frames)
    return ClipScores(action_A, action_logits_TA, frame_TL)


def _scores(model: SequenceModel, feature_TD: Tensor) -> Scores:
    """Of one clip: a long one in chunks, so that memory does not grow with it where its features are mapped."""
    if model.config.recurrent.bidirectional:
        return cast("Scores", model(feature_TD[None])[0])
    parts, state = list[Scores](), None
    for chunk_TD in feature_TD.split(CHUNK_FRAMES):
        scores, state = model(chunk_TD[None], state)
        parts.append(scores)
    return Scores.joined(parts)
