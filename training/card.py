"""card.md: what a model is and what was measured, in the words a person looks for first. Knows nothing of how."""

from training.calibration import Calibrated
from training.dataset import Dataset
from training.evaluate import ClipResults, Evaluation, FrameResults
from training.fit import FitConfig
from vidseq import __version__
from vidseq.config import ModelConfig

BASELINE = "baseline (no recurrence)"


def write_card(
    name: str,
    evaluation: Evaluation,
    *,
    measured_on: str,
    calibrated: Calibrated | None,
    dataset: Dataset,
    config: ModelConfig,
    settings: FitConfig,
) -> str:
    """Markdown for the model's folder; `measured_on` is a sentence on which clips the figures were taken."""
    recurrent, heads = config.recurrent, config.heads
    rate = config.sampling.frames_per_second
    looked_at = "every frame" if rate == "native" else f"{rate:g} frames a second"
    lines = [
        f"# {name}",
        "",
        f"A {recurrent.cell} of {recurrent.num_layers} x {recurrent.hidden_size} on frozen {config.encoder.backbone} "
        f"features, {looked_at} at {config.picture.size} px, "
        f"trained by vidseq {__version__} on {count_clips(len(dataset.clips))} (seed {settings.seed}).",
        "",
        f"* actions: {', '.join(heads.action_labels) or 'none'}",
        f"* frame labels: {', '.join(heads.frame_labels) or 'none'}",
        *_lookahead(config),
        f"* clips left out because they could not be decoded: {len(dataset.failed)}",
        "",
        f"## Measured: {measured_on}",
        "",
        *_table("clips", evaluation.clips),
        *_table("frames", evaluation.frames),
        *_calibration(calibrated),
    ]
    return "\n".join(lines) + "\n"


def count_clips(num: int) -> str:
    return "1 clip" if num == 1 else f"{num} clips"


def _table(unit: str, results: ClipResults | FrameResults | None) -> list[str]:
    """The model above its baseline; nothing where there is nothing to measure."""
    if results is None:
        return []
    rows = [("model", results), (BASELINE, results.baseline)]
    return [
        f"| {unit} | num | accuracy | macro F1 |",
        "|---|---|---|---|",
        *(f"| {name} | {row.num} | {row.accuracy:.3f} | {row.macro_f1:.3f} |" for name, row in rows if row is not None),
        "",
    ]


def _lookahead(config: ModelConfig) -> list[str]:
    """Nothing where labels are final at once."""
    num_frames = config.lookahead_frames
    if not num_frames:
        return []
    return [
        f"* lookahead: {config.heads.lookahead_seconds:g} s: a frame is named {num_frames} sampled frames later, "
        "when the model has seen what follows it"
    ]


def _calibration(calibrated: Calibrated | None) -> list[str]:
    """What early exit may trust; nothing where it cannot be used."""
    if calibrated is None:
        return []
    return [
        "## Calibration, for early exit",
        "",
        f"Found on {count_clips(calibrated.num_clips)} that the scoring model had not learnt from, and measured on the "
        "same: on others the gain is smaller. Early exit alone uses it; scores in answers stay as they are.",
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
