"""A Prediction for people: a timeline in the terminal or in a picture. Knows nothing of how it was made."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vidseq.errors import OptionError
from vidseq.schemas import Prediction, Scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 60
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Paul Tol's bright scheme


def in_words(actions: Sequence[Scored], *, several: bool) -> str:
    """What is said by a model that knows actions: each with its score, or that it is unknown, or none of several."""
    return ", ".join(f"{scored.label} {scored.score:.2f}" for scored in actions) or ("none" if several else "unknown")


def show(prediction: Prediction, *, title: str) -> None:
    """Print the action, a ribbon for each frame label, and the segments, on standard output."""
    console = Console(highlight=False)
    video, sampled = prediction.video, prediction.sampled
    rate = "every frame" if sampled.frames_per_second is None else f"{sampled.frames_per_second:g} a second"
    console.print(
        f"[bold]{escape(title)}[/bold]  {video.width}x{video.height} {escape(video.codec)}, "
        f"{sampled.num_frames} frames looked at ({rate}), {sampled.start_seconds:.2f} to {sampled.end_seconds:.2f} s"
    )
    if prediction.early_exit is not None:
        exited = prediction.early_exit
        console.print(f"stopped at {exited.seconds:.2f} s: sure enough by then ({exited.score:.2f}, calibrated)")
    for warning in video.warnings:
        console.print(f"[yellow]warning[/yellow] {escape(warning)}")
    if prediction.top:
        console.print(_actions(prediction), markup=False)
    if prediction.frames:
        console.print(_ribbons(prediction))
    for segment in prediction.segments:
        console.print(
            f"  {segment.start_seconds:7.2f} to {segment.end_seconds:7.2f} s  {segment.label} {segment.score:.2f}",
            markup=False,
        )


def draw(prediction: Prediction, path: Path, *, title: str) -> None:
    """Draw frame scores and segments over time into a PNG, SVG or PDF; the top actions where frames have no labels.

    Raises:
        OptionError: another suffix, or a folder that does not exist.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise OptionError(f"{path.name} is not a .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise OptionError(f"there is no folder {path.parent}")
    from matplotlib.figure import Figure  # a second of import that only pictures need

    labels = _labels(prediction) or [scored.label for scored in prediction.top]
    figure = Figure(figsize=(9, 1.6 + 0.45 * len(labels)), layout="constrained")
    axes = figure.subplots()
    if prediction.frames:
        _draw_frames(axes, prediction, labels)
    else:
        _draw_actions(axes, prediction)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    said = f":  {in_words(prediction.actions, several=prediction.model.several)}" if prediction.top else ""
    axes.set_title(f"{title}{said}", loc="left", parse_math=False)
    figure.savefig(path, dpi=150)


def _draw_frames(axes: "Axes", prediction: Prediction, labels: list[str]) -> None:
    """One row a label: dots for its frames, bars for its segments."""
    for row, label in enumerate(labels):
        colour = _COLOURS[row % len(_COLOURS)]
        own = [frame for frame in prediction.frames if frame.label == label]
        axes.scatter([f.seconds for f in own], [row] * len(own), s=[60 * f.score for f in own], color=colour, zorder=3)
        spans = [(s.start_seconds, s.end_seconds - s.start_seconds) for s in prediction.segments if s.label == label]
        axes.broken_barh(spans, (row - 0.35, 0.7), color=colour, alpha=0.35)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.set_xlabel("seconds (dots: frames, larger is surer; bars: segments)")


def _draw_actions(axes: "Axes", prediction: Prediction) -> None:
    """One bar an action, the best on top; those that are not said are grey."""
    colours = [_COLOURS[0] if scored in prediction.actions else _COLOURS[-1] for scored in prediction.top]
    axes.barh(range(len(prediction.top)), [scored.score for scored in prediction.top], color=colours)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("score (blue: said)")


def _actions(prediction: Prediction) -> str:
    """What is said, and in brackets the runners-up."""
    several = prediction.model.several
    left = ", ".join(f"{one.label} {one.score:.2f}" for one in prediction.top if one not in prediction.actions)
    before = "not " if several else "" if prediction.actions else "perhaps "
    name = "actions" if several else "action"
    return f"{name}  {in_words(prediction.actions, several=several)}{f'   ({before}{left})' if left else ''}"


def _labels(prediction: Prediction) -> list[str]:
    return list(dict.fromkeys(frame.label for frame in prediction.frames))


def _ribbons(prediction: Prediction) -> Table:
    """One row a label: a block where that label holds, in as many columns as fit a line."""
    sampled = prediction.sampled
    span_seconds = max(sampled.end_seconds - sampled.start_seconds, 1e-9)
    num_columns = min(_COLUMNS, sampled.num_frames)
    held: dict[str, set[int]] = {}
    for frame in prediction.frames:
        column = int((frame.seconds - sampled.start_seconds) / span_seconds * (num_columns - 1) + 0.5)
        held.setdefault(frame.label, set()).add(column)
    table = Table.grid(padding=(0, 2))
    for row, (label, columns) in enumerate(held.items()):
        ribbon = "".join("█" if column in columns else "·" for column in range(num_columns))
        table.add_row(Text(label), Text(ribbon, style=_COLOURS[row % len(_COLOURS)]))
    table.add_row("", f"{sampled.start_seconds:.1f} s".ljust(num_columns - 6) + f"{sampled.end_seconds:.1f} s")
    return table
