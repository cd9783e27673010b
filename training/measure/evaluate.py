"""What a model gets right on labelled clips, beside the two baselines that were trained with it.

Knows nothing of how they were trained.
"""

from collections.abc import Mapping, Sequence

from training.data.dataset import Dataset
from training.data.example import Example
from training.measure.answers import Answers, Truth
from training.measure.figures import ClipResults, Evaluation, FrameResults, Honesty, Paired, SegmentResults
from training.measure.metrics.resampling import Resampling
from training.measure.paired import differences
from training.measure.scores import ClipScores
from vidseq.config import ModelConfig

BESIDE = {"baseline": "mean pool", "frame_alone": "frame alone"}  # what the models beside a model are called


def evaluate(
    dataset: Dataset,
    examples: Sequence[Example],
    scores: Sequence[ClipScores],
    baseline: Sequence[ClipScores],
    *,
    config: ModelConfig,
    frame_alone: Sequence[ClipScores] | None = None,
    honesty: Honesty | None = None,
) -> Evaluation:
    """All figures of a model, those of its baselines on the same clips, and the differences in pairs.

    Args:
        dataset: the clips that are measured, and no others (`Dataset.subset`).
        examples, scores, baseline, frame_alone: one for each of them, in their order.
        config: the model's; its temperatures and thresholds are its own, the baselines have none. In the pairs, where
            clips have several actions, neither has: a lead of a threshold would not be one of the model.
        honesty: what `training.measure.honesty` found of the model on these clips.
    """
    truth, plain = Truth.of(dataset, examples), _without_thresholds(config)
    ours, beside = Answers(truth, scores, config), {"baseline": Answers(truth, baseline, plain)}
    even = Answers(truth, scores, plain) if config.heads.several else ours
    if frame_alone is not None:
        beside["frame_alone"] = Answers(truth, frame_alone, plain)
    return Evaluation(
        num_groups=len(set(truth.groups)),
        clips=_clips(ours, beside),
        frames=_frames(ours, beside),
        segments=_segments(ours, beside),
        paired=tuple(pair for name, other in beside.items() for pair in pairs(even, other, against=BESIDE[name])),
        calibration=ours.calibration(),
        earliness=ours.earliness(),
        honesty=honesty,
        rows=ours.rows(),
        failed=tuple(f"{failure.path}: {failure.error}" for failure in dataset.failed),
    )


def pairs(ours: Answers, theirs: Answers, *, against: str) -> tuple[Paired, ...]:
    """The differences between two models on the same clips, of each kind that both say."""
    groups, found = ours.truth.groups_at, list[Paired]()
    # Two models may sample at different rates: a short segment may be seen by one of them only.
    acting = sorted(set(ours.truth.acting) & set(theirs.truth.acting))
    framed = sorted(set(ours.truth.framed) & set(theirs.truth.framed))
    if acting and ours.acting and theirs.acting:
        judged = ours.judged_clips(acting), theirs.judged_clips(acting)
        found += differences(*judged, unit="clips", against=against, resampling=Resampling(groups(acting)))
    if framed and ours.framed and theirs.framed:
        judged = ours.judged_frames(framed), theirs.judged_frames(framed)
        found += differences(*judged, unit="frames", against=against, resampling=Resampling(groups(framed)))
    return tuple(found)


def _clips(ours: Answers, beside: Mapping[str, Answers]) -> ClipResults | None:
    if (found := ours.clips()) is None:
        return None
    return ClipResults.model_validate(dict(found) | {name: other.clips() for name, other in beside.items()})


def _frames(ours: Answers, beside: Mapping[str, Answers]) -> FrameResults | None:
    if (found := ours.frames()) is None:
        return None
    return FrameResults.model_validate(dict(found) | {name: other.frames() for name, other in beside.items()})


def _segments(ours: Answers, beside: Mapping[str, Answers]) -> SegmentResults | None:
    if (found := ours.segments()) is None:
        return None
    return SegmentResults.model_validate(dict(found) | {name: other.segments() for name, other in beside.items()})


def _without_thresholds(config: ModelConfig) -> ModelConfig:
    heads = config.heads.model_copy(update={"thresholds": (), "unknown_below": None})
    return config.model_copy(update={"heads": heads, "calibration": None})
