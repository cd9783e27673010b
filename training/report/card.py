"""card.md: the essence of report.html, in the words a person looks for first. Knows nothing of how it was found."""

from collections.abc import Sequence

from training.measure.calibration import Calibrated
from training.measure.evaluate import BESIDE
from training.measure.figures import ClipMetrics, ClipResults, FrameMetrics, FrameResults
from training.measure.gradient_health import GradientHealth
from training.report.findings import Findings
from training.tables import figure
from training.words import answers, count
from vidseq import __version__
from vidseq.config import HeadsConfig, ModelConfig


def write_card(findings: Findings) -> str:
    """Markdown for the model's folder."""
    evaluation, heads = findings.evaluation, findings.config.heads
    what, *found = answers(evaluation, config=findings.config)
    lines = [
        f"# {findings.name}",
        "",
        f"{' '.join(what.sentences)} Trained by vidseq {__version__} on {count(findings.num_clips, 'clip')} "
        f"(seed {findings.settings.seed}). report.html shows more.",
        "",
        f"* actions: {', '.join(heads.action_labels) or 'none'}",
        f"* frame labels: {', '.join(heads.frame_labels) or 'none'}",
        *_lookahead(findings.config),
        *_naming(heads),
        f"* clips left out because they could not be decoded: {len(evaluation.failed)}",
        "",
        f"## Measured: {findings.measured_on}",
        "",
        *(f"* {answer.question} {' '.join(answer.sentences)}" for answer in found),
        *([""] if found else []),
        *_table("clips", evaluation.clips),
        *_table("frames", evaluation.frames),
        *_calibration(findings.calibrated),
        *_doubts(findings),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(unit: str, results: ClipResults | FrameResults | None) -> list[str]:
    """The model above its baselines, in brackets the 95 % intervals; nothing where there is nothing to measure."""
    if results is None:
        return []
    beside: Sequence[tuple[str, ClipMetrics | FrameMetrics | None]] = [
        ("model", results),
        (BESIDE["baseline"], results.baseline),
        (BESIDE["frame_alone"], results.frame_alone),
    ]
    return [
        f"| {unit} | num | accuracy | macro F1 |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row.num} | {_cell(row, 'accuracy')} | {_cell(row, 'macro_f1')} |"
            for name, row in beside
            if row
        ),
        "",
    ]


def _cell(row: ClipMetrics | FrameMetrics, name: str) -> str:
    return figure(getattr(row, name), row.intervals.get(name))


def _lookahead(config: ModelConfig) -> list[str]:
    """Nothing where labels are final at once."""
    num_frames = config.lookahead_frames
    if not num_frames:
        return []
    return [
        f"* lookahead: {config.heads.lookahead_seconds:g} s: a frame is named {num_frames} sampled frames later, "
        "when the model has seen what follows it"
    ]


def _naming(heads: HeadsConfig) -> list[str]:
    """From which score on an action is named, where that is not simply the best."""
    if heads.unknown_below is not None:
        return [f"* an action whose score lies below {heads.unknown_below:.2f} is called unknown"]
    if heads.several:
        thresholds = heads.thresholds or (0.5,) * len(heads.action_labels)
        named = (f"{label} {score:.2f}" for label, score in zip(heads.action_labels, thresholds, strict=True))
        return [f"* several actions may be true of one clip; each is named from its score on: {', '.join(named)}"]
    return []


def _calibration(calibrated: Calibrated | None) -> list[str]:
    """How far the scores of answers may be trusted; nothing where too few clips were at hand to find out."""
    if calibrated is None:
        return []
    return [
        "## Calibration, as a clip goes on",
        "",
        f"Found on {count(calibrated.num_clips, 'clip')} that the scoring model had not learnt from, and measured on "
        "the same: on others the gain is smaller. Every answer's score is calibrated so.",
        "",
        "| seen for | clips | temperature | NLL before, after | ECE before, after |",
        "|---|---|---|---|---|",
        *(
            f"| {row.start_seconds:g} s and more | {row.num_clips} | {row.temperature:.2f} "
            f"| {row.nll_before:.3f}, {row.nll_after:.3f} | {row.ece_before:.3f}, {row.ece_after:.3f} |"
            for row in calibrated.stretches
        ),
        "",
    ]


def _doubts(findings: Findings) -> list[str]:
    """What was warned of; nothing where all is well."""
    gradient = findings.gradient
    warnings = [*findings.problems, *(gradient.warnings if isinstance(gradient, GradientHealth) else ())]
    return ["## Doubts", "", *(f"* {warning}" for warning in warnings)] if warnings else []
