"""What a person sees of training: progress, warnings, tables. Knows nothing of how it is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from training.evaluate import Evaluation


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
    def progress(self, task: str, *, total: int) -> Iterator[Callable[[str], None]]:
        """A bar of `total` steps; what it yields is called after each, with a word on how it stands."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
        )
        with Progress(*columns, console=self.errors) as bar:
            handle = bar.add_task(task, total=total, state="")
            yield lambda state: bar.update(handle, advance=1, state=state)
            bar.update(handle, completed=total)  # a run may stop early

    def evaluation(self, evaluation: Evaluation, *, title: str) -> None:
        """Two tables, model above baseline, and the confusion of the clips."""
        if evaluation.clips is not None:
            clips = evaluation.clips
            table = Table("clips", "num", "accuracy", "top 5", "macro F1", title=title)
            for name, row in (("model", clips), ("mean-pool baseline", clips.baseline)):
                if row is not None:
                    table.add_row(name, str(row.num), _share(row.accuracy), _share(row.top5), _share(row.macro_f1))
            self.results.print(table)
            self._confusion(clips.labels, clips.confusion)
        if evaluation.frames is not None:
            frames = evaluation.frames
            table = Table("frames", "num", "accuracy", "without background", "macro F1")
            for name, frame_row in (("model", frames), ("mean-pool baseline", frames.baseline)):
                if frame_row is not None:
                    foreground = frame_row.accuracy_foreground
                    table.add_row(
                        name,
                        str(frame_row.num),
                        _share(frame_row.accuracy),
                        _share(foreground),
                        _share(frame_row.macro_f1),
                    )
            self.results.print(table)

    def _confusion(self, labels: tuple[str, ...], confusion: tuple[tuple[int, ...], ...]) -> None:
        table = Table("truth \\ called", *labels, title="confusion of clips")
        for label, row in zip(labels, confusion, strict=True):
            table.add_row(label, *map(str, row))
        self.results.print(table)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
