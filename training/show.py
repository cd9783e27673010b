"""What a person sees of training: progress, warnings, tables. Knows nothing of how it is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from training.card import BASELINE
from training.figures import ClipMetrics, Evaluation, FrameMetrics


class Advance(Protocol):
    """Told after each step, or after several at once, with a word on how it stands."""

    def __call__(self, state: str, num_steps: int = 1) -> None: ...


class Show:
    """Progress and warnings go to standard error, results to standard output."""

    def __init__(self) -> None:
        self.errors = Console(stderr=True, highlight=False)
        self.results = Console(highlight=False)

    def warn(self, text: str) -> None:
        self.errors.print(f"[yellow]warning[/yellow] {escape(text)}", soft_wrap=True)

    def say(self, text: str) -> None:
        self.errors.print(escape(text), soft_wrap=True)

    @contextmanager
    def progress(self, task: str, *, total: int) -> Iterator[Advance]:
        """A bar of `total` steps; what it yields moves it."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
        )
        with Progress(*columns, console=self.errors) as bar:
            handle = bar.add_task(task, total=total, state="")

            def advance(state: str, num_steps: int = 1) -> None:
                bar.update(handle, advance=num_steps, state=state)

            yield advance
            bar.update(handle, completed=total)  # a run may stop early

    def evaluation(self, evaluation: Evaluation, *, title: str) -> None:
        """Two tables, model above baseline, and the confusion of the clips."""
        if evaluation.clips is not None:
            self.results.print(_clip_table(evaluation.clips, evaluation.clips.baseline, title=title))
            self.results.print(_confusion(evaluation.clips))
        if evaluation.frames is not None:
            self.results.print(_frame_table(evaluation.frames, evaluation.frames.baseline, title=title))


def _clip_table(model: ClipMetrics, baseline: ClipMetrics | None, *, title: str) -> Table:
    telling = len(model.labels) > 5  # else all are among the top 5
    table = Table("clips", "num", "accuracy", *(["top 5"] if telling else []), "macro F1", title=escape(title))
    for name, row in (("model", model), (BASELINE, baseline)):
        if row is not None:
            shares = [row.accuracy, *([row.top5] if telling else []), row.macro_f1]
            table.add_row(name, str(row.num), *map(_share, shares))
    return table


def _frame_table(model: FrameMetrics, baseline: FrameMetrics | None, *, title: str) -> Table:
    table = Table("frames", "num", "accuracy", "without background", "macro F1", title=escape(title))
    for name, row in (("model", model), (BASELINE, baseline)):
        if row is not None:
            table.add_row(name, str(row.num), *map(_share, (row.accuracy, row.accuracy_foreground, row.macro_f1)))
    return table


def _confusion(clips: ClipMetrics) -> Table:
    table = Table("truth \\ called", *map(escape, clips.labels), title="confusion of clips")
    for label, row in zip(clips.labels, clips.confusion, strict=True):
        table.add_row(escape(label), *map(str, row))
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
