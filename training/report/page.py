"""One HTML file from all that is known of a model. Knows nothing of how it was found.

Labels, paths and warnings are strangers' text: the template escapes all of them, and the page forbids itself scripts
and every address outside it. What is not known is left out.
"""

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from training.loop.progress import Epoch
from training.measure.evaluate import BESIDE
from training.measure.figures import Evaluation, Reliability
from training.measure.gradient_health import GradientHealth
from training.report import drawings
from training.report.findings import Findings
from training.tables import figure
from training.words import answers, count
from vidseq import __version__
from vidseq.config import Config, HeadsConfig


def write_report(findings: Findings) -> str:
    """The page, for the model's folder."""
    environment = Environment(
        loader=PackageLoader("training.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        found=findings,
        beside=BESIDE,
        evaluation=findings.evaluation,
        answers=answers(findings.evaluation, config=findings.config),
        learning=_learning(findings.history_by_name),
        reliability=_reliability(findings.evaluation),
        gradient=_gradient(findings.gradient),
        settings=[*_settings("model", findings.config), *_settings("training", findings.settings)],
        count=count,
        figure=figure,
        hue_by_label=_hue_by_label(findings.config.heads),
        version=__version__,
    )


def _learning(history_by_name: Mapping[str, Sequence[Epoch]]) -> str | None:
    told = {name: history for name, history in history_by_name.items() if history}
    return drawings.learning_curves(told) if told else None


def _reliability(evaluation: Evaluation) -> str | None:
    calibration = evaluation.calibration
    if calibration is None:
        return None
    parts: dict[str, Reliability | None] = {"before": calibration.before, "after": calibration.after}
    return drawings.reliability({name: part for name, part in parts.items() if part is not None})


def _gradient(health: GradientHealth | str) -> str | None:
    if isinstance(health, str):
        return None
    fades = {"trained": health.after} | ({} if health.before is None else {"untrained": health.before})
    return drawings.gradients(fades, frames_per_second=health.frames_per_second)


def _settings(part: str, config: Config) -> list[tuple[str, str]]:
    """(name, value) of every setting, in the order of the configuration."""
    return [(".".join((part, *path)), str(value)) for path, value in _leaves(config.model_dump())]


def _leaves(values: Mapping[str, object]) -> list[tuple[tuple[str, ...], object]]:
    leaves: list[tuple[tuple[str, ...], object]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            leaves += [((name, *path), leaf) for path, leaf in _leaves(value)]
        else:
            leaves.append(((name,), value))
    return leaves


def _hue_by_label(heads: HeadsConfig) -> dict[str, float]:
    """A hue in degrees for every name, of actions and frames alike; neighbours lie far apart (the golden angle)."""
    names = dict.fromkeys((*heads.action_labels, *heads.frame_labels))
    return {name: round((210 + 137.5 * number) % 360, 1) for number, name in enumerate(names)}
