"""Shards worked on by Ray Data: numbers in, what came of each out, in any order. Knows nothing of people.

    numbers of shards -> workers, a started job each -> parts (serving.batch.unfinished)

A clip of which nothing comes has a row with its error. A worker that dies takes its shards with it: their clips are
tried once more, each alone, and those that kill again have a row that says so.
"""

import errno
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch
from ray.data.exceptions import SystemException
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from serving.batch.clips import FILE, PATH
from serving.batch.crew import Crew, plan
from serving.batch.job import Job
from serving.batch.rows import INDEX, LOST, Row, as_text, failed, refused, to_table
from serving.batch.sources import opened
from serving.batch.unfinished import Unfinished
from vidseq.errors import SandboxError, VidseqError
from vidseq.features.legs import Leg

_NUMBER = pa.int64()
_TASK = {"shard": _NUMBER, "leg": _NUMBER, "of": _NUMBER, "alone": _NUMBER}
_DONE = pa.schema({**_TASK, "video_seconds": pa.float64(), "rows": pa.binary(), "error": pa.string()})
_CANNOT_KEEP = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # of a disk, and never of what is read
_SILENCE_SECONDS = 12 * 3600.0  # without a row from anyone; a clip may be six hours long, and take longer


class JobFailed(VidseqError):
    """Not a clip's fault: what was done is kept, and --resume goes on when it has been mended."""

    code = "job/failed"


@dataclass(frozen=True)
class Finished:
    """So much of a shard's work is done; with `complete` its rows are on the disk.

    `video_seconds` are those that were looked at.
    """

    shard: int
    share: float = 1.0
    complete: bool = True
    video_seconds: float = 0.0


@dataclass(frozen=True)
class Task:
    """What a worker is given: a shard; or of its one clip a leg, or what is made of all legs; or a clip alone."""

    shard: int
    leg: int | None = None
    of: int | None = None  # with a leg, and of what is made of them
    alone: int | None = None


def crew_for(num_tasks: int, *, num_workers: int | None) -> Crew:
    """Who works here, on the Ray that is connected."""
    resources: dict[str, float] = ray.cluster_resources()
    return plan(resources, num_shards=num_tasks, num_workers=num_workers)


def work_on(
    shards: Sequence[int], unfinished: Unfinished, job: Job, crew: Crew, *, legs: Mapping[int, int]
) -> Iterator[Finished]:
    """The parts of these shards, in this order as far as workers are free; each is told once it is on the disk.

    Args:
        legs: in how many the clips of some shards are encoded, before anything is made of them.
    """
    waiting = dict.fromkeys(shards)
    tasks = [task for shard in shards for task in _tasks(shard, legs.get(shard))]
    num_legs: Counter[int] = Counter()
    for done in _run(tasks, unfinished, job, _Attempt(crew, queued=1)):
        if done["leg"] is not None:
            num_legs[done["shard"]] += 1
            yield Finished(done["shard"], share=1 / done["of"], complete=False)
        else:
            del waiting[done["shard"]]
            yield Finished(done["shard"], video_seconds=done["video_seconds"])
    if joined := [Task(shard, of=of) for shard, of in legs.items() if num_legs[shard] == of]:
        for done in _run(joined, unfinished, job, _Attempt(crew, queued=1)):
            del waiting[done["shard"]]
            yield Finished(done["shard"], share=0.0, video_seconds=done["video_seconds"])
    if waiting:
        yield from _each_alone(list(waiting), unfinished, job, replace(crew, clips_at_once=1))


def _tasks(shard: int, num_legs: int | None) -> list[Task]:
    return [Task(shard)] if num_legs is None else [Task(shard, leg, num_legs) for leg in range(num_legs)]


def _each_alone(shards: Sequence[int], unfinished: Unfinished, job: Job, crew: Crew) -> Iterator[Finished]:
    """Shards whose workers died: by the clips that are innocent, and by those that kill again."""
    clips = {shard: unfinished.clips(shard).select([INDEX, PATH]).to_pylist() for shard in shards}
    rows: dict[int, dict[int, pa.Table]] = {shard: {} for shard in shards}

    def finished(shard: int) -> Finished:
        part = pa.concat_tables([rows[shard][clip[INDEX]] for clip in clips[shard]])
        unfinished.write_part(shard, part)
        del rows[shard]
        return Finished(shard, video_seconds=_video_seconds(part))

    tasks = [Task(shard, alone=clip[INDEX]) for shard in shards for clip in clips[shard]]
    for done in _run(tasks, unfinished, job, _Attempt(crew, queued=0)):
        shard = done["shard"]
        rows[shard][done["alone"]] = pa.ipc.open_stream(done["rows"]).read_all()
        if len(rows[shard]) == len(clips[shard]):
            yield finished(shard)
    detail = "the worker died of this clip, twice: of too little memory, or of a crash while decoding it"
    lost = [constant | refused(LOST, detail) for constant in job.constants]
    for shard in list(rows):
        for clip in clips[shard]:
            rows[shard].setdefault(clip[INDEX], to_table([clip | row for row in lost], job.columns))
        yield finished(shard)


class Worker:
    """One worker: Ray Data makes it in a process of its own and gives it one shard after another."""

    def __init__(self, unfinished: Unfinished, job: Job, *, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._unfinished, self._job = unfinished, job
        self._started = job.start("cuda" if ray.get_gpu_ids() else "cpu")

    def __call__(self, tasks: pa.Table) -> pa.Table:
        """Writes the part of a shard; of a clip that is to be tried alone, the rows come back.

        What goes wrong with the job itself (a full disk, a plan that cannot be read) comes back, too: for Ray Data an
        exception would be one more block to pass over.
        """
        (given,) = tasks.to_pylist()
        try:
            done = self._work(Task(**given))
        except Exception as error:
            done = {"error": as_text(f"{type(error).__name__}: {error}")}
        return pa.Table.from_pylist([given | done], schema=_DONE)

    def _work(self, task: Task) -> Row:
        clips = self._unfinished.clips(task.shard).select([INDEX, PATH, FILE]).to_pylist()
        if task.leg is not None and task.of is not None:
            self._encode(task.shard, clips[0], Leg(task.leg, task.of))
            return {}
        rows = self._rows if task.of is None else partial(self._rows_of_legs, task)
        part = pa.concat_tables([self._table(clip, rows) for clip in clips if task.alone in (None, clip[INDEX])])
        if task.alone is None:
            self._unfinished.write_part(task.shard, part)
        return {"video_seconds": _video_seconds(part), "rows": None if task.alone is None else _as_bytes(part)}

    def _encode(self, shard: int, clip: Row, leg: Leg) -> None:
        """A leg that is there was made before a kill. Of one that cannot be made, the whole clip will say why."""
        with suppress(Exception), self._opened(clip) as (source, sha256):
            out = self._unfinished.leg(shard, leg, sha256=sha256)
            if not out.exists():
                self._started.encode_leg(source, sha256, leg, out)

    def _rows(self, source: str, sha256: str) -> list[Row]:
        return self._started.rows(source, sha256)

    def _rows_of_legs(self, task: Task, source: str, sha256: str) -> list[Row]:
        assert task.of is not None
        legs = (Leg(number, task.of) for number in range(task.of))
        files = [self._unfinished.leg(task.shard, leg, sha256=sha256) for leg in legs]
        rows = self._started.rows_of_legs(files, sha256)
        return self._rows(source, sha256) if rows is None else rows

    def _table(self, clip: Row, handle: Callable[[str, str], list[Row]]) -> pa.Table:
        """The rows of one clip. Raises what is the machine's fault: as a row it would stay, where --resume mends it."""
        known: Row = {name: clip[name] for name in (INDEX, PATH)}
        constants, columns = self._job.constants, self._job.columns
        try:
            with self._opened(clip) as (source, sha256):
                known["clip_sha256"] = sha256
                rows = handle(source, sha256)
            return to_table([constant | known | row for constant, row in zip(constants, rows, strict=True)], columns)
        except Exception as error:  # one clip does not stop a million: its row says what happened
            if _is_of_the_machine(error):
                raise
            return to_table([constant | known | failed(error) for constant in constants], columns)

    def _opened(self, clip: Row) -> AbstractContextManager[tuple[str, str]]:
        return opened(os.fsdecode(clip[FILE]), max_bytes=self._job.limits.max_bytes)


def _is_of_the_machine(error: Exception) -> bool:
    """Whether the next clips would fail of it, too: of a full disk, of a GPU after an error, of a box that is none."""
    if isinstance(error, OSError):
        return error.errno in _CANNOT_KEEP
    return isinstance(error, SandboxError | torch.AcceleratorError)


def _video_seconds(part: pa.Table) -> float:
    """From the first frame that was looked at to the last, of all clips, each once."""
    spans = pc.subtract(part["sampled_end_seconds"], part["sampled_start_seconds"])
    seen: dict[int, float | None] = dict(zip(part[INDEX].to_pylist(), spans.to_pylist(), strict=True))
    return sum(span for span in seen.values() if span is not None)


def _as_bytes(table: pa.Table) -> bytes:
    """For its way through Ray, beside numbers."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    data: bytes = buffer.getvalue().to_pybytes()
    return data


@dataclass(frozen=True)
class _Attempt:
    """`queued` tasks wait at a worker while it works on others, and are lost with it."""

    crew: Crew
    queued: int


def _run(tasks: Sequence[Task], unfinished: Unfinished, job: Job, attempt: _Attempt) -> Iterator[Row]:
    """One execution of Ray Data. Of a task whose worker died nothing comes back."""
    crew = attempt.crew
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # of dead workers: errors are rows
    context.max_consecutive_actor_init_deaths = 2  # of too little memory, say; each is replaced
    context.execution_no_progress_timeout_s = _SILENCE_SECONDS
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a dead worker is told by the rows
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        # Ray 2.64 will name these arguments anew.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        done = ray.data.from_items([asdict(task) for task in tasks], override_num_blocks=len(tasks)).map_batches(
            Worker,
            fn_constructor_args=(unfinished, job),
            fn_constructor_kwargs={"num_threads": crew.num_threads},
            compute=ray.data.ActorPoolStrategy(
                size=min(crew.num_workers, len(tasks)),
                max_tasks_in_flight_per_actor=crew.clips_at_once + attempt.queued,
                max_concurrent_calls_per_actor=crew.clips_at_once,
                enable_true_multi_threading=crew.clips_at_once > 1,
            ),
            batch_format="pyarrow",
            num_cpus=crew.num_cpus,
            num_gpus=crew.num_gpus,
            max_task_retries=0,  # by default a clip that kills its worker would kill the next, for ever
        )
    for row in _told(done.iter_rows()):
        if row["error"] is not None:
            raise JobFailed(f"a worker cannot go on: {row['error']}")
        yield row


def _told(rows: Iterable[Row]) -> Iterator[Row]:
    """What Ray itself cannot go on with, as of workers that do not start, in a sentence."""
    try:
        yield from rows
    except (RayError, SystemException) as error:
        raise JobFailed(f"the workers cannot go on: {_last_line(str(error))}") from error


def _last_line(text: str) -> str:
    """Of a traceback, what was raised."""
    return as_text(next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "Ray says no more"))
