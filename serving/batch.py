"""A Ray Data job: many clips, a row for each, over the same Classifier that serves. Knows nothing of HTTP.

    inputs -> find_clips -> blocks of paths -> workers, one model each -> rows -> in order -> Parquet or JSON Lines

A clip that cannot be scored has a row with its error, and the job goes on. A worker that dies takes its clips with
it: they are tried once more, each alone, and those that kill again have a row that says so.
"""

import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import ray
import ray.data
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from serving.inputs import check_output, find_clips
from serving.local_ray import local_ray
from serving.rows import INDEX, LOST, Row, answered, as_text, columns, failed, refused, to_table
from serving.sink import FORMATS, open_sink
from vidseq.checkpoint import load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.engine import Engine
from vidseq.errors import OptionError
from vidseq.schemas import ModelInfo

_WORKER_BYTES = 2**30  # a worker: torch, the model, a clip that is being decoded
_MAX_CLIPS_AT_ONCE = 16  # decoded by the threads of a worker that has a GPU
_SILENCE_SECONDS = 12 * 3600  # without a row from anyone: a clip may be six hours long, and take longer
_MAX_BLOCKS = 4096  # Ray's driver spends milliseconds on a block: a small job has one a clip, a large one has this many


@dataclass(frozen=True)
class ScoreSummary:
    """How a job ended: every clip that went in has come out, answered or failed."""

    num_in: int
    num_ok: int
    num_failed: int
    failures: Mapping[str, int]  # error code -> clips

    def __post_init__(self) -> None:
        assert self.num_in == self.num_ok + self.num_failed, self


@dataclass(frozen=True)
class Job:
    """What every worker is told."""

    model: Path
    top_k: int
    frames: bool


@dataclass(frozen=True)
class Crew:
    """How many workers there are, and what each takes: CPUs and GPUs to Ray, threads to torch, clips to itself."""

    num_workers: int
    num_cpus: float
    num_gpus: float
    num_threads: int
    clips_at_once: int


def score(
    model: Path,
    inputs: Sequence[str],
    out: Path,
    *,
    console: Console,
    num_workers: int | None = None,
    top_k: int = 5,
    frames: bool = False,
) -> ScoreSummary:
    """Score clips with the model in a folder and write a row for each (serving.rows) to `out`, whole or not at all.

    The rows stand in the order of the sorted paths.

    Args:
        inputs: files, folders (the videos in them) and globs.
        out: ends in .parquet or .jsonl; an older file there is replaced.
        console: where progress and the closing count are shown.
        num_workers: processes; None for one a GPU, or one a CPU as far as memory goes.
        top_k: how many actions each row names.
        frames: with the label of every sampled frame.

    Raises:
        OptionError: an input stands for nothing, or `out` or a number is wrong; before any work.
        CheckpointError: `model` is not one; before any work.
    """
    for name, number in (("top_k", top_k), ("the number of workers", num_workers)):
        if number is not None and number < 1:
            raise OptionError(f"{name} is {number}; at least 1 is needed")
    clips = find_clips(inputs)
    check_output(out, suffixes=list(FORMATS), clips=clips)
    job = Job(model=model.resolve(), top_k=top_k, frames=frames)
    info = load_checkpoint(job.model).info
    failures: Counter[str] = Counter()
    num_rows = 0
    codes: Counter[str | None] = Counter()
    with open_sink(out, columns(frames=frames)) as sink, _progress(console) as progress, local_ray():
        bar = progress.add_task("scoring", total=len(clips))
        crew = plan(ray.cluster_resources(), num_clips=len(clips), num_workers=num_workers)
        rows = _counted(_score_all(clips, job, crew, info), lambda num: progress.advance(bar, num))
        for table in _in_order(rows):
            codes.update(table["error_code"].to_pylist())
            sink.write(table.drop_columns(INDEX))
    num_ok = codes.pop(None, 0)
    summary = ScoreSummary(num_in=len(clips), num_ok=num_ok, num_failed=codes.total(), failures=dict(codes))
    _show(summary, console)
    return summary


def plan(resources: Mapping[str, float], *, num_clips: int, num_workers: int | None) -> Crew:
    """Who works, from what Ray has to give (`ray.cluster_resources()`)."""
    num_cpus, num_gpus = resources["CPU"], resources.get("GPU", 0)
    if num_workers is None:
        affordable = min(num_cpus, resources["memory"] / _WORKER_BYTES)
        num_workers = max(1, min(int(num_gpus or affordable), num_clips))
    cpus_each = num_cpus / num_workers
    return Crew(
        num_workers=num_workers,
        num_cpus=min(1, cpus_each),
        num_gpus=min(1, num_gpus / num_workers),
        num_threads=max(1, int(cpus_each)),
        clips_at_once=max(1, min(int(cpus_each), _MAX_CLIPS_AT_ONCE)) if num_gpus else 1,
    )


class Scorer:
    """One worker: Ray Data makes it in a process of its own and gives it one block of clips after another."""

    def __init__(self, job: Job, *, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        checkpoint = load_checkpoint(job.model)
        engine = Engine(checkpoint.model.to("cuda" if ray.get_gpu_ids() else "cpu"))
        self._classifier = Classifier(checkpoint, compute=engine.submit, limits=Limits())
        self._job = job

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows (serving.rows) of the clips at `file`, the name's bytes as the file system has them."""
        return pa.concat_tables(self._table(clip) for clip in block.to_pylist())

    def _table(self, clip: Row) -> pa.Table:
        frames, known = self._job.frames, {name: clip[name] for name in (INDEX, "path")}
        try:
            prediction = self._classifier.classify(os.fsdecode(clip["file"]), top_k=self._job.top_k)
            return to_table([known | answered(prediction, frames=frames)], frames=frames)
        except Exception as error:  # one clip does not stop a million: its row says what happened
            return to_table([known | failed(error, self._classifier.info)], frames=frames)


def _score_all(clips: Sequence[str], job: Job, crew: Crew, info: ModelInfo) -> Iterator[pa.Table]:
    """A row for every clip, as they come; `INDEX` is the clip's place in `clips`."""
    waiting = {
        index: {INDEX: index, "path": as_text(clip), "file": os.fsencode(os.path.abspath(clip))}
        for index, clip in enumerate(clips)
    }
    one_by_one = replace(crew, clips_at_once=1)
    for attempt in (crew, one_by_one):
        blocks = min(len(waiting), _MAX_BLOCKS if attempt is crew else len(waiting))
        for table in _run(list(waiting.values()), job, attempt, num_blocks=blocks, spare=int(attempt is crew)):
            for index in table[INDEX].to_pylist():
                del waiting[index]
            yield table
        if not waiting:
            return
    detail = "the worker died of this clip, twice: of too little memory, or of a crash while decoding it"
    for index, clip in waiting.items():
        yield to_table([{INDEX: index, "path": clip["path"]} | refused(LOST, detail, info)], frames=job.frames)


def _run(clips: list[dict[str, object]], job: Job, crew: Crew, *, num_blocks: int, spare: int) -> Iterator[pa.Table]:
    """One Ray Data execution. Clips whose worker dies have no row."""
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what is lost with a worker is missed by the caller
    context.execution_no_progress_timeout_s = _SILENCE_SECONDS
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # rows and errors say what there is to say
    with ray.data.DataContext.current(context):
        rows = ray.data.from_items(clips, override_num_blocks=num_blocks).map_batches(
            Scorer,
            fn_constructor_args=(job,),
            fn_constructor_kwargs={"num_threads": crew.num_threads},
            compute=ray.data.ActorPoolStrategy(
                size=crew.num_workers,
                max_tasks_in_flight_per_actor=crew.clips_at_once + spare,
                max_concurrent_calls_per_actor=crew.clips_at_once,
                enable_true_multi_threading=crew.clips_at_once > 1,
            ),
            batch_format="pyarrow",
            num_cpus=crew.num_cpus,
            num_gpus=crew.num_gpus,
            ray_remote_args_fn=lambda: {"max_task_retries": 0},  # else a clip that kills workers kills them for ever
        )
    yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")


def _counted(tables: Iterable[pa.Table], on_rows: Callable[[int], None]) -> Iterator[pa.Table]:
    for table in tables:
        on_rows(len(table))
        yield table


def _in_order(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, each a run of neighbours, by their first index; what comes too early is held."""
    held: dict[int, pa.Table] = {}
    next_index = 0
    for table in tables:
        held[table[INDEX][0].as_py()] = table
        while (ready := held.pop(next_index, None)) is not None:
            yield ready
            next_index += len(ready)
    assert not held, f"no row for clip {next_index}"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("starting" if task.speed is None else f"{task.speed:.2f} clips/s")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
    )


def _show(summary: ScoreSummary, console: Console) -> None:
    """`in 200 = ok 198 + failed 2`, and which failures they were."""
    console.print(f"in {summary.num_in} = ok {summary.num_ok} + failed {summary.num_failed}", highlight=False)
    if summary.failures:
        table = Table("failed because", "clips", box=None)
        for code, num_clips in sorted(summary.failures.items(), key=lambda item: -item[1]):
            table.add_row(code, str(num_clips))
        console.print(table)
