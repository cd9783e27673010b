"""All that a training found, brought together for the documents that tell of it. Knows not how they look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from training.data.dataset import Dataset
from training.loop.fit import build_model
from training.loop.progress import Epoch
from training.measure.calibration import Calibrated
from training.measure.figures import Evaluation
from training.measure.gradient_health import GradientHealth, measure
from training.report.thumbnails import thumbnails
from training.report.timelines import Timeline, choose
from training.settings import FitConfig
from training.trainer import Trained
from vidseq.config import ModelConfig
from vidseq.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What card.md and report.html are written from.

    `num_clips` is how many there were to learn from, `measured_on` a sentence on those that were measured.
    `history_by_name` has the epochs of the model and of its baselines, `problems` what was warned of in the data,
    `thumbnails_by_path` the `data:` addresses of pictures of some clips. `gradient` is a sentence where there is
    nothing to measure.
    """

    name: str
    num_clips: int
    measured_on: str
    config: ModelConfig
    settings: FitConfig
    evaluation: Evaluation
    gradient: GradientHealth | str
    calibrated: Calibrated | None = None
    history_by_name: Mapping[str, Sequence[Epoch]] = field(default_factory=dict)
    timelines: Sequence[Timeline] = ()
    problems: Sequence[str] = ()
    thumbnails_by_path: Mapping[Path, Sequence[str]] = field(default_factory=dict)


def gather(
    name: str,
    trained: Trained,
    *,
    dataset: Dataset,
    settings: FitConfig,
    problems: Sequence[str],
    with_thumbnails: bool,
) -> Findings:
    """Measures the gradient and chooses the clips to show; with thumbnails these are decoded once more.

    Args:
        dataset: all clips of the training.
        problems: what was warned of.
    """
    timelines = choose(trained.measured, trained.scores, trained.evaluation.rows, several=trained.config.heads.several)
    return Findings(
        name=name,
        num_clips=len(dataset.clips),
        measured_on=trained.measured_on,
        config=trained.config,
        settings=settings,
        evaluation=trained.evaluation,
        gradient=_gradient(trained, dataset, seed=settings.seed),
        calibrated=trained.calibrated,
        history_by_name=trained.history_by_name,
        timelines=timelines,
        problems=problems,
        thumbnails_by_path={one.path: thumbnails(one.path, config=trained.config) for one in timelines}
        if with_thumbnails
        else {},
    )


def _gradient(trained: Trained, dataset: Dataset, *, seed: int) -> GradientHealth | str:
    examples = dataset.examples(range(len(dataset.clips)))
    try:
        return measure(
            trained.model.model,
            examples,
            untrained=build_model(examples, trained.config, seed=seed),
            clipped_share=fmean(epoch.clipped_share for epoch in trained.model.history),
        )
    except OptionError as reason:
        return str(reason)
