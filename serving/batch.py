"""Batch scoring: `vidseq score`. Many clips in, a file with a row for each out. Knows nothing of how Ray does it.

    inputs -> find_clips -> score_clips (Ray Data) -> in order -> Parquet or JSON Lines

The rows stand in the order of the sorted paths.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from serving.inputs import check_output, find_clips
from serving.local_ray import local_ray
from serving.rows import INDEX, columns
from serving.sink import FORMATS, open_sink
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.errors import OptionError


@dataclass(frozen=True)
class ScoreSummary:
    """How a job ended: every clip that went in has come out, answered or failed."""

    num_in: int
    num_ok: int
    num_failed: int
    failures: Mapping[str, int]  # error code -> clips

    def __post_init__(self) -> None:
        assert self.num_in == self.num_ok + self.num_failed, self


def score(
    model: Path,
    inputs: Sequence[str],
    out: Path,
    *,
    num_workers: int | None = None,
    top_k: int = 5,
    frames: bool = False,
    limits: Limits = Limits(),
    console: Console | None = None,
) -> ScoreSummary:
    """Score clips with the model in a folder and write a row for each (serving.rows) to `out`, whole or not at all.

    Args:
        inputs: files, folders (the videos in them) and globs.
        out: ends in .parquet or .jsonl; an older file there is replaced.
        num_workers: processes; None for one a GPU, or one a CPU as far as memory goes.
        top_k: how many actions each row names.
        frames: with the label of every sampled frame.
        limits: what a clip may cost, and how much of it must be seen for a label.
        console: where progress and the closing count are shown; None for standard error.

    Raises:
        OptionError: an input stands for nothing, or `out` or a number is wrong; before any work.
        CheckpointError: `model` is not one; before any work.
    """
    for name, number in (("top_k", top_k), ("the number of workers", num_workers)):
        if number is not None and number < 1:
            raise OptionError(f"{name} is {number}; at least 1 is needed")
    clips = find_clips(inputs)
    check_output(out, suffixes=list(FORMATS), clips=clips)
    info = load_checkpoint(model).info
    schema = columns(frames=frames)
    console = console or Console(stderr=True)
    codes: Counter[str | None] = Counter()
    with _progress(console, num_clips=len(clips)) as advance, local_ray(), open_sink(out, schema) as sink:
        from serving.ray_job import Job, score_clips  # brings Ray, after local_ray has told it where to listen

        job = Job(model=model.resolve(), info=info, top_k=top_k, frames=frames, limits=limits)
        for table in _in_order(score_clips(clips, job, num_workers=num_workers), arrived=advance):
            codes.update(table["error_code"].to_pylist())
            sink.write(table.drop_columns(INDEX))
    num_ok = codes.pop(None, 0)
    failures = {code: num for code, num in codes.most_common() if code is not None}
    summary = ScoreSummary(num_in=len(clips), num_ok=num_ok, num_failed=codes.total(), failures=failures)
    _show(summary, console)
    return summary


def _in_order(tables: Iterable[pa.Table], *, arrived: Callable[[int], None]) -> Iterator[pa.Table]:
    """The same tables, each a run of neighbours, by their first index; what comes too early is held."""
    held: dict[int, pa.Table] = {}
    next_index = 0
    for table in tables:
        arrived(len(table))
        held[table[INDEX][0].as_py()] = table
        while (ready := held.pop(next_index, None)) is not None:
            yield ready
            next_index += len(ready)
    assert not held, f"no row for clip {next_index}"


class _Rate(ProgressColumn):
    """Clips a second; until the first is there, workers are starting."""

    def render(self, task: Task) -> Text:
        return Text("starting" if task.speed is None else f"{task.speed:.2f} clips/s")


@contextmanager
def _progress(console: Console, *, num_clips: int) -> Iterator[Callable[[int], None]]:
    """A bar on the console; call what it gives with the number of clips that are done."""
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*shown, console=console) as progress:
        bar = progress.add_task("scoring", total=num_clips)
        yield lambda num: progress.advance(bar, num)


def _show(summary: ScoreSummary, console: Console) -> None:
    """`in 200 = ok 198 + failed 2`, and which failures they were."""
    console.print(f"in {summary.num_in} = ok {summary.num_ok} + failed {summary.num_failed}", highlight=False)
    if summary.failures:
        table = Table("failed because", "clips", box=None)
        for code, num_clips in summary.failures.items():
            table.add_row(code, str(num_clips))
        console.print(table)
