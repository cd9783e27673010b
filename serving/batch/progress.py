"""How far a job is, on a terminal: clips done, how fast, and the time that is left. Knows nothing of what is done.

Time is estimated by bytes: a long clip counts for what it costs.
"""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text


class Progress:
    """A bar; use it as a context manager.

    Args:
        num_done: clips that were done before: they say nothing of how fast it goes.
        cost: of all clips that are left, in bytes.
    """

    def __init__(self, console: Console, *, title: str, num_clips: int, num_done: int, cost: float) -> None:
        shown = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[num_done]}/{task.fields[num_clips]} clips"),
            _Rate(),
            TimeRemainingColumn(),
        )
        self._bars = Bars(*shown, console=console)
        self._task = self._bars.add_task(
            title, start=False, total=cost, num_done=num_done, num_clips=num_clips, before=num_done
        )
        self.num_done = num_done

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self) -> None:
        """From here on it counts how fast it goes."""
        self._bars.start_task(self._task)

    def advance(self, num_clips: int, cost: float) -> None:
        self.num_done += num_clips
        self._bars.update(self._task, advance=cost, num_done=self.num_done)


class _Rate(ProgressColumn):
    """Clips a second; until the first is there, workers are starting."""

    def render(self, task: Task) -> Text:
        num_new = task.fields["num_done"] - task.fields["before"]
        if not num_new or not task.elapsed:
            return Text("starting")
        return Text(f"{num_new / task.elapsed:.2f} clips/s")
