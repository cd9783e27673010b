"""The questions of whoever may rely on a model, answered in a sentence each. Knows nothing of pages."""

from dataclasses import dataclass
from typing import Literal

from training.measure.evaluate import BESIDE
from training.measure.figures import CalibrationResults, ClipMetrics, Evaluation, FrameMetrics, Paired
from vidseq.config import ModelConfig

Verdict = Literal["good", "bad", "plain"]  # `plain` where the figures do not decide
_MEAN_POOL = "a mean of the frames"


@dataclass(frozen=True)
class Answer:
    """`verdict` colours the answer; what it says is in the words."""

    question: str
    sentences: tuple[str, ...]
    verdict: Verdict = "plain"


def answers(evaluation: Evaluation, *, config: ModelConfig) -> list[Answer]:
    """The summary of a report; a question without figures is left out."""
    found = (
        _how_good(evaluation),
        _better(evaluation.paired),
        _uses_time(evaluation),
        _believable(evaluation),
    )
    return [Answer("What is it?", (what_it_is(config),)), *(answer for answer in found if answer is not None)]


def what_it_is(config: ModelConfig) -> str:
    recurrent, heads = config.recurrent, config.heads
    rate = config.sampling.frames_per_second
    looked_at = "every frame" if rate == "native" else f"{rate:g} frames a second"
    says = []
    if heads.action_labels:
        says.append(f"{'any' if heads.several else 'one'} of {count(len(heads.action_labels), 'action')} for a clip")
    if heads.frame_labels:
        says.append(f"one of {count(len(heads.frame_labels), 'label')} for every frame")
    return (
        f"A recurrence ({recurrent.cell}, {recurrent.num_layers} x {recurrent.hidden_size}) on "
        f"{config.encoder.backbone} features, {looked_at} at {config.picture.size} px. It says {' and '.join(says)}."
    )


def count(num: int, thing: str) -> str:
    return f"{num} {thing}" if num == 1 else f"{num} {thing}s"


def _how_good(evaluation: Evaluation) -> Answer | None:
    parts: list[tuple[str, ClipMetrics | FrameMetrics | None]] = [
        ("clips", evaluation.clips),
        ("frames", evaluation.frames),
    ]
    sentences = tuple(_right(unit, part) for unit, part in parts if part is not None)
    return Answer("How good is it?", sentences) if sentences else None


def _right(unit: str, part: ClipMetrics | FrameMetrics) -> str:
    interval = part.intervals.get("accuracy")
    between = "" if interval is None else f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})"
    return f"It is right in {part.accuracy:.1%} of {part.num:,} {unit}{between}; macro F1 {part.macro_f1:.3f}."


def _better(paired: tuple[Paired, ...]) -> Answer | None:
    """Against the mean pool alone: the rest stands in the tables."""
    told = [pair for pair in paired if pair.figure == "accuracy" and pair.against == BESIDE["baseline"]]
    if not told:
        return None
    sentences = tuple(_difference(pair) for pair in told)
    surely = [pair.interval is not None and pair.interval[0] > 0 for pair in told]
    worse = any(pair.interval is not None and pair.interval[1] < 0 for pair in told)
    return Answer(f"Does it beat {_MEAN_POOL}?", sentences, "bad" if worse else "good" if all(surely) else "plain")


def _difference(pair: Paired) -> str:
    found = f"Of {pair.unit}, {pair.difference:+.3f} in accuracy"
    if pair.interval is None:
        return f"{found}: with one group of clips nobody can tell whether that is chance."
    low, high = pair.interval
    chance = "" if pair.p is None else f", p = {pair.p:.2g}"
    conclusion = "no proof of a difference"
    if low > 0:
        conclusion = "yes"
    elif high < 0:
        conclusion = f"no, {_MEAN_POOL} is better"
    return f"{found} (95 % interval {low:+.3f} to {high:+.3f}{chance}): {conclusion}."


def _uses_time(evaluation: Evaluation) -> Answer | None:
    honesty = evaluation.honesty
    if honesty is None or not honesty.sentences:
        return None
    return Answer("Does it use time?", tuple(f"{text[:1].upper()}{text[1:]}." for text in honesty.sentences))


def _believable(evaluation: Evaluation) -> Answer | None:
    calibration = evaluation.calibration
    if calibration is None:
        return None
    part = calibration.after or calibration.before
    surely = part.ece <= part.band.high
    return Answer("Can its scores be believed?", (_off_by(calibration),), "good" if surely else "bad")


def _off_by(calibration: CalibrationResults) -> str:
    part = calibration.after or calibration.before
    scaled = "" if calibration.after is None else " after temperature scaling"
    band = f"{part.band.low:.3f} to {part.band.high:.3f}, the range of a perfectly calibrated model on as many clips"
    if part.ece <= part.band.high:
        where = f"inside {band}: nothing speaks against them"
    else:
        where = f"above {band}: they are too {'high' if _overconfident(calibration) else 'low'}"
    return f"Scores are off by {part.ece:.3f} on average{scaled} (ECE), {where}."


def _overconfident(calibration: CalibrationResults) -> bool:
    """Whether more is claimed than is right, over all clips."""
    bins = (calibration.after or calibration.before).bins
    gaps = [
        bin.num * (bin.mean_score - bin.share_right)
        for bin in bins
        if bin.mean_score is not None and bin.share_right is not None
    ]
    return sum(gaps) > 0
