"""What a person sees of training: progress and warnings, and where tables go. Knows nothing of how it is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.measure.figures import Comparison, Evaluation
from training.tables import comparison_tables, evaluation_tables


class Advance(Protocol):
    """Told after each step, or after several at once, with a word on how it stands."""

    def __call__(self, state: str, num_steps: int = 1) -> None: ...


class Show:
    """Progress and warnings go to standard error, results to standard output."""

    def __init__(self) -> None:
        self.errors = Console(stderr=True, highlight=False)
        self.results = Console(highlight=False)
        self.warned: list[str] = []  # for the documents of the model

    def warn(self, text: str) -> None:
        self.warned.append(text)
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
        """Its tables, the most important first."""
        for part in evaluation_tables(evaluation, title=title):
            self.results.print(part)

    def comparison(self, comparison: Comparison) -> None:
        """Its tables: who is better, what changed, what it costs."""
        for part in comparison_tables(comparison):
            self.results.print(part)
