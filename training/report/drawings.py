"""Curves as SVG for a page that may be light or dark. Knows nothing of clips or of models.

Text and axes take the colour of the page around them (`currentColor`); the curves' colours can be told apart on both
grounds, and by people who see few colours (Paul Tol's bright scheme).

Shape letters: N bins of scores, K steps back.
"""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.loop.progress import Epoch
from training.measure.figures import Reliability
from training.measure.gradient_health import FADED, Fade

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")
_PAGE = "#010203"  # no curve has this colour: it stands for the page's own until the drawing is finished
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _PAGE,
    "axes.labelcolor": _PAGE,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be read aloud, and is drawn in the page's font
    "svg.hashsalt": "vidseq",  # the same drawing is the same file
    "text.color": _PAGE,
    "xtick.color": _PAGE,
    "ytick.color": _PAGE,
}

_UNWANTED = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r' xmlns(:\w+)?="[^"]*"',  # HTML knows SVG by name
        r' width="[\d.]+pt" height="[\d.]+pt"',  # as wide as the page lets it be
        r"<style.*?</style>",  # would hold for the whole page
        r'(?<=<g) id="[^"]*"',  # a page of several drawings would have each twice
        r"font-family: [^;]*; ",
    )
]


def learning_curves(history_by_name: Mapping[str, Sequence[Epoch]]) -> str:
    """Loss of every epoch on the clips learnt from (dashed) and on those held out (solid), best epochs marked."""
    with rc_context(_STYLE):
        figure, axes = _figure()
        for (name, history), colour in zip(history_by_name.items(), cycle(COLOURS), strict=False):
            numbers = [epoch.number for epoch in history]
            axes.plot(
                numbers, [epoch.train_loss for epoch in history], "--", color=colour, label=f"{name}, learnt from"
            )
            held_out = [(e.number, e.validation_loss) for e in history if e.validation_loss is not None]
            if held_out:
                axes.plot(*zip(*held_out, strict=True), color=colour, label=f"{name}, held out")
                best = history[-1].best_epoch
                axes.plot(best, dict(held_out)[best], "o", color=colour)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        measured = any(epoch.validation_loss is not None for history in history_by_name.values() for epoch in history)
        axes.set_xlabel("epoch (dot: the one that was kept)" if measured else "epoch (the last was kept)")
        axes.set_ylabel("loss")
        axes.legend()
        return _svg(figure)


def reliability(parts: Mapping[str, Reliability]) -> str:
    """Share of right answers against score: on the diagonal a score means what it says; dots grow with their clips."""
    with rc_context(_STYLE):
        figure, axes = _figure()
        axes.plot([0, 1], [0, 1], ":", color=_PAGE, linewidth=1)
        for (name, part), colour in zip(parts.items(), cycle(COLOURS), strict=False):
            bins_N3 = np.array([(bin.mean_score, bin.share_right, bin.num) for bin in part.bins if bin.num])
            score_N, right_N, num_N = bins_N3.T
            axes.plot(score_N, right_N, color=colour, linewidth=1, label=f"{name}: ECE {part.ece:.3f}")
            axes.scatter(score_N, right_N, s=10 + 400 * num_N / num_N.sum(), color=colour, alpha=0.6)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score of the action that is called", ylabel="share right")
        axes.legend(loc="upper left")
        return _svg(figure)


def gradients(fade_by_name: Mapping[str, Fade], *, frames_per_second: float | None = None) -> str:
    """The gradient at each step back as a share of that 1 step back, on a logarithmic scale."""
    with rc_context(_STYLE):
        figure, axes = _figure()
        for (name, fade), colour in zip(fade_by_name.items(), cycle(COLOURS), strict=False):
            axes.plot(range(1, 1 + len(fade.ratio_K)), fade.ratio_K, color=colour, label=name)
        axes.axhline(FADED, linestyle=":", color=_PAGE, linewidth=1)
        axes.set_yscale("log")
        lowest = min(min(fade.ratio_K) for fade in fade_by_name.values())
        axes.set_ylim(bottom=max(lowest, 1e-12))
        axes.set_xlabel("steps back (sampled frames)")
        axes.set_ylabel("gradient, 1 step back = 1")
        if frames_per_second is not None:
            _seconds_above(axes, frames_per_second)
        axes.legend()
        return _svg(figure)


def _seconds_above(axes: Axes, frames_per_second: float) -> None:
    """A second scale for the same steps."""

    def to_seconds(steps: Any) -> Any:
        return steps / frames_per_second

    def to_steps(seconds: Any) -> Any:
        return seconds * frames_per_second

    axes.secondary_xaxis("top", functions=(to_seconds, to_steps)).set_xlabel("seconds back")


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes: Axes = figure.subplots()
    return figure, axes


def _svg(figure: Figure) -> str:
    """An element for a page: without prolog, date, address or font, in the page's own colour."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    _, _, drawing = buffer.getvalue().partition("<svg")
    for unwanted in _UNWANTED:
        drawing = unwanted.sub("", drawing)
    return f"<svg{drawing}".replace(_PAGE, "currentColor")


def as_file(drawing: str) -> str:
    """The same as a file of its own, black on white."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return drawing.replace("<svg", f'<svg {names} style="color: black; background: white; font-family: sans-serif"', 1)
