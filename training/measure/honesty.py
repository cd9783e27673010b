"""Does a model use time? What it still gets right of frames that were shuffled, reversed, frozen, or shown alone.

Knows nothing of how it was trained.

    in order    0 1 2 3 4 5 6         shuffled    4 1 6 0 2 5 3      (three times)
    reversed    6 5 4 3 2 1 0         frozen      3 3 3 3 3 3 3
                                      one frame   3                  (of frame labels: each frame for itself)

Features are made again for each arrangement, as if the clip had been filmed so: one that says how a frame differs from
the one before must not be carried along with it. A frame's label stays its own, wherever it is shown.

Shape letters: T frames, D feature size, L frame labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from training.data.dataset import Dataset
from training.data.example import Example
from training.data.targets import IGNORED
from training.measure.figures import Arrangement, Honesty
from training.measure.metrics.resampling import Floats, Ints, Resampling, as_interval
from training.measure.scores import ClipScores, calibrated_A, groups_of, said_A, score_clips
from vidseq.model import SequenceModel

Name = Literal["shuffled", "reversed", "frozen", "one frame"]
NAMES: tuple[Name, ...] = ("shuffled", "reversed", "frozen", "one frame")
IN_ORDER = "in order"
NUM_SHUFFLES = 3
HARDLY = 0.05  # a model whose loss is surely below this hardly uses the order


@dataclass(frozen=True)
class Right:
    """How much of one clip was called right. No label, no number: `num_actions` and `num_frames` count what has one."""

    actions: float
    num_actions: int
    frames: float
    num_frames: int


Rights = Mapping[str, Right]


def rearranged(model: SequenceModel, dataset: Dataset, indices: Sequence[int]) -> list[Rights]:
    """Of each clip what the model gets right `in order` and in each arrangement; of several shuffles the mean."""
    return [_rights(model, dataset, index) for index in indices]


def honesty(dataset: Dataset, rights: Sequence[Rights]) -> Honesty:
    """The loss from frames in order to each arrangement, with its interval; `rights` are of all clips, in order."""
    groups = groups_of(dataset.clips)
    clips, frames = (
        _arrangements({name: _table(rights, name, unit) for name in (IN_ORDER, *NAMES)}, groups)
        for unit in ("actions", "frames")
    )
    sentences = [_sentence(rows[0], unit) for rows, unit in ((clips, "clips"), (frames, "frames")) if rows]
    return Honesty(clips=clips, frames=frames, sentences=tuple(sentences))


def _rights(model: SequenceModel, dataset: Dataset, index: int) -> Rights:
    (example,) = dataset.examples([index])
    num_frames = len(example.feature_TD)
    in_order_T, middle = np.arange(num_frames), num_frames // 2
    generator = np.random.default_rng(index)  # the same shuffles for every model
    orders = {
        IN_ORDER: [in_order_T],
        "shuffled": [generator.permutation(num_frames) for _ in range(NUM_SHUFFLES)],
        "reversed": [in_order_T[::-1].copy()],
        "frozen": [np.full(num_frames, middle)],
    }

    def right(score: ClipScores) -> Right:
        return _right(score, example, dataset.features[index].seconds_T, model)

    found = {
        name: _mean([right(_shown(model, dataset, example, index, order_T)) for order_T in several])
        for name, several in orders.items()
    }
    return {**found, "one frame": right(_alone(model, dataset, index, middle))}


def _shown(model: SequenceModel, dataset: Dataset, example: Example, index: int, order_T: Ints) -> ClipScores:
    """The scores of a clip in this order; those of its frames are put back to where each belongs."""
    (score,) = score_clips(model, [replace(example, feature_TD=dataset.rearranged(index, order_T))])
    if score.frame_TL is None or len(set(order_T.tolist())) < len(order_T):  # a frozen clip stands for all its frames
        return score
    frame_TL = np.empty_like(score.frame_TL)
    frame_TL[order_T] = score.frame_TL
    return replace(score, frame_TL=frame_TL)


@torch.inference_mode()
def _alone(model: SequenceModel, dataset: Dataset, index: int, middle: int) -> ClipScores:
    """Each frame as a clip of its own; the action is the middle one's."""
    num_frames = len(dataset.features[index].seconds_T)
    feature_T1D = torch.stack([dataset.rearranged(index, np.array([frame])) for frame in range(num_frames)])
    model.eval()
    scores, _ = model(feature_T1D)
    action_T1A, frame_T1L = scores.action_probabilities_BTA(), scores.frame_probabilities_BTL()
    logits_T1A = scores.action_logits_BTA
    return ClipScores(
        action_A=None if action_T1A is None else action_T1A[middle, 0].double().numpy(),
        action_logits_TA=None if logits_T1A is None else logits_T1A[middle].numpy(),
        frame_TL=None if frame_T1L is None else frame_T1L[:, 0].double().numpy(),
    )


def _right(score: ClipScores, example: Example, seconds_T: Floats, model: SequenceModel) -> Right:
    target_A, target_T = example.action_target_A, example.frame_target_T.numpy()
    action_A = calibrated_A(score, seconds_T, model.config)
    actions = num_actions = 0
    if action_A is not None and target_A is not None:
        num_actions = 1
        actions = int((said_A(action_A, model.config.heads) == (target_A.numpy() > 0.5)).all())
    known_T = (target_T != IGNORED) & (score.frame_TL is not None)
    right_T = known_T if score.frame_TL is None else known_T & (score.frame_TL.argmax(axis=1) == target_T)
    return Right(actions, num_actions, float(right_T.sum()), int(known_T.sum()))


def _mean(rights: Sequence[Right]) -> Right:
    """Of several shuffles of one clip: what has a label is the same in all."""
    actions, frames = (float(np.mean([getattr(right, unit) for right in rights])) for unit in ("actions", "frames"))
    return replace(rights[0], actions=actions, frames=frames)


def _table(rights: Sequence[Rights], name: str, unit: str) -> Floats:
    """[N, 2]: of each clip how much was right, and of how much."""
    return np.array([[getattr(row[name], unit), getattr(row[name], f"num_{unit}")] for row in rights], dtype=np.float64)


def _arrangements(table_N2: Mapping[str, Floats], groups: Sequence[str]) -> tuple[Arrangement, ...]:
    """None where no clip has a label of this kind."""
    kept_N = table_N2[IN_ORDER][:, 1] > 0
    if not kept_N.any():
        return ()
    num_N = table_N2[IN_ORDER][kept_N, 1]
    right_NS = np.stack([table_N2[name][kept_N, 0] for name in (IN_ORDER, *NAMES)], axis=1)
    share_S = right_NS.sum(axis=0) / num_N.sum()

    def losses(weight_RN: Floats) -> dict[str, Floats]:
        share_RS = weight_RN @ right_NS / (weight_RN @ num_N)[:, None]
        return dict(zip(NAMES, (share_RS[:, :1] - share_RS[:, 1:]).T, strict=True))

    ends = Resampling([group for group, kept in zip(groups, kept_N, strict=True) if kept]).intervals(losses)
    return tuple(
        Arrangement(
            name=name,
            accuracy=float(share_S[number]),
            drop=float(share_S[0] - share_S[number]),
            interval=as_interval(ends[name]),
        )
        for number, name in enumerate(NAMES, start=1)
    )


def _sentence(shuffled: Arrangement, unit: str) -> str:
    """What the first row says, in words."""
    if shuffled.interval is None:
        return f"{unit}: shuffling the frames costs {shuffled.drop:.3f}; one group of clips says nothing of others"
    low, high = shuffled.interval
    costs = f"{unit}: shuffling the frames costs {shuffled.drop:.3f} [{low:.3f}, {high:.3f}]"
    if low > 0:
        return f"{costs}: this model uses their order"
    if high < 0:
        return f"{costs}: this model does better without their order, so it has learnt none that holds here"
    if high < HARDLY:
        return f"{costs}: this model hardly uses their order"
    return f"{costs}: so few clips cannot tell whether this model uses their order"
