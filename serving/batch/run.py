"""A batch job from its first clip to its last row, whatever is done with each. Knows nothing of how Ray does it.

    inputs -> find_clips -> shards -> work_on (Ray Data) -> parts -> in order -> one output

The rows stand in the order of the sorted paths. Until all are there, what has been done is kept beside the output
(serving.batch.unfinished): whatever kills the job, it goes on from there.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from serving.batch.clips import FILE, NUM_BYTES, addresses, extras
from serving.batch.inputs import find_clips
from serving.batch.job import Job
from serving.batch.manifests import is_manifest, manifest_hash
from serving.batch.outputs import Output
from serving.batch.places import Place, has_secrets, without_secrets
from serving.batch.progress import Progress
from serving.batch.rows import INDEX
from serving.batch.shards import MAX_TASKS, divide, expected_costs, legs_of
from serving.batch.unfinished import Unfinished
from serving.local_ray import local_ray
from vidseq.errors import OptionError, VidseqError


class NotReconciled(VidseqError):
    """The rows are not those of the clips that went in: nothing was written."""

    code = "job/not-reconciled"


@dataclass(frozen=True)
class Summary:
    """How a job ended: every clip that went in has come out, answered or failed; with several models, once for each."""

    num_in: int
    num_ok: int
    num_failed: int
    failures: Mapping[str, int]  # error code -> clips

    def __post_init__(self) -> None:
        assert self.num_in == self.num_ok + self.num_failed, self


@dataclass(frozen=True)
class Batch:
    """Which clips, where to, and how.

    Args:
        inputs: files, folders (the videos in them), globs and manifests, here or as URLs (serving.batch.inputs).
        output: where the rows go; None if nobody wants them.
        beside: what lies beside this place until the job is finished.
        resume: go on with the job that was begun there; without one it is begun.
        num_workers: processes; None for one a GPU, or one a CPU as far as memory goes.
    """

    inputs: Sequence[str]
    output: Output | None
    beside: Place
    resume: bool
    num_workers: int | None

    def run(self, job: Job, *, title: str, console: Console) -> Summary:
        """
        Raises:
            OptionError: an input stands for nothing; an unfinished job is there that is to be resumed, or is another
                one; before any work.
            NotReconciled: a row is missing, or there twice.
        """
        if self.num_workers is not None and self.num_workers < 1:
            raise OptionError(f"the number of workers is {self.num_workers}; at least 1 is needed")
        inputs = [without_secrets(item) for item in self.inputs]
        partition_by = None if self.output is None else self.output.partition_by
        manifests = {without_secrets(item): manifest_hash(item) for item in self.inputs if is_manifest(item)}
        asked = {"inputs": inputs, "manifests": manifests, "partition_by": partition_by, **job.asked()}
        unfinished = Unfinished.beside(self.beside)
        with unfinished.locked():
            if unfinished.begun and (self.resume or unfinished.done()):
                _go_on(unfinished, asked, self.inputs, resume=self.resume)
            else:
                _begin(unfinished, asked, self.output, self.inputs)
            _work(unfinished, job, title=title, num_workers=self.num_workers, console=console)
            summary = _write(unfinished, job, self.output, asked)
            unfinished.discard()
        _show(summary, console)
        return summary


def _begin(unfinished: Unfinished, asked: Mapping[str, Any], output: Output | None, inputs: Sequence[str]) -> None:
    clips = find_clips(inputs)
    if output is not None:
        output.refuse_inputs([*map(os.fsdecode, clips[FILE].to_pylist()), *inputs])
    column = None if output is None else output.partition_by
    if column is not None and column not in extras(clips.column_names):
        raise OptionError(f"--partition-by: no manifest has a column {column!r}")
    if output is not None and column is not None:
        output.refuse_partition(clips.schema.field(column).type, clips[column])
    unfinished.begin(asked, clips, divide(expected_costs(clips[NUM_BYTES].to_pylist())))


def _go_on(unfinished: Unfinished, asked: Mapping[str, Any], inputs: Sequence[str], *, resume: bool) -> None:
    where = f"there is an unfinished job in {unfinished.shown!r}"
    if not resume:
        raise OptionError(f"{where}: go on with --resume, or remove it to begin anew")
    begun = unfinished.job()
    if other := sorted(name for name in begun.keys() | asked.keys() if begun.get(name) != asked.get(name)):
        name = other[0]
        raise OptionError(f"{where}, of another job: {name} was {begun.get(name)}, and is {asked.get(name)}")
    if any(has_secrets(os.fsdecode(file)) for file in unfinished.column(FILE)):
        unfinished.renew(addresses(find_clips(inputs)))


def _work(unfinished: Unfinished, job: Job, *, title: str, num_workers: int | None, console: Console) -> None:
    """What is left to do, the costly first; and what it has cost."""
    shards, costs = unfinished.shards(), expected_costs(unfinished.column(NUM_BYTES))
    done, num_clips = unfinished.done(), sum(map(len, shards))
    cost = {number: sum(costs[index] for index in shard) for number, shard in enumerate(shards) if number not in done}
    if not cost:
        return
    num_done = num_clips - sum(len(shards[number]) for number in cost)
    bar = Progress(console, title=title, num_clips=num_clips, num_done=num_done, cost=sum(cost.values()))
    try:
        with bar, local_ray():
            from serving.batch.ray_job import crew_for, work_on  # bring Ray, once it is told where to listen

            begun, video_seconds = time.monotonic(), 0.0
            crew = crew_for(MAX_TASKS, num_workers=num_workers)
            left = {number: shards[number] for number in cost}
            legs = legs_of(left, cost, num_workers=crew.num_workers) if unfinished.place.is_local else {}
            crew = crew_for(len(cost) - len(legs) + sum(legs.values()), num_workers=num_workers)
            bar.begin()
            costly_first = sorted(cost, key=lambda number: -cost[number])
            for finished in work_on(costly_first, unfinished, job, crew, legs=legs):
                num_finished = len(shards[finished.shard]) if finished.complete else 0
                bar.advance(num_finished, finished.share * cost[finished.shard])
                video_seconds += finished.video_seconds
            bill = crew.bill(video_seconds, time.monotonic() - begun)
    except (KeyboardInterrupt, SystemExit):
        console.print(f"stopped at {bar.num_done} of {num_clips} clips: --resume goes on from there", highlight=False)
        raise
    console.print(bill, highlight=False)


def _write(unfinished: Unfinished, job: Job, output: Output | None, asked: Mapping[str, Any]) -> Summary:
    """All parts become the output, in the order of the clips; without one they are counted."""
    carried = [unfinished.schema.field(name) for name in extras(unfinished.schema.names)]
    path, *rest = job.columns
    codes: Counter[str | None] = Counter()

    def tables() -> Iterator[pa.Table]:
        for shard in range(unfinished.num_shards):
            clips, part = unfinished.clips(shard), unfinished.read_part(shard)
            clips = clips.take([row for row in range(len(clips)) for _ in job.constants])
            if part[INDEX].to_pylist() != clips[INDEX].to_pylist():
                raise NotReconciled(f"shard {shard} has {len(part)} rows that are not the {len(clips)} of its clips")
            codes.update(part["error_code"].to_pylist())
            for field in carried:
                part = part.append_column(field, clips[field.name])
            yield part.select(schema.names)

    schema = pa.schema([path, *carried, *rest])
    if output is None:
        deque(tables(), maxlen=0)
    else:
        output.write(tables(), schema, asked)
    num_in, num_ok = codes.total(), codes.pop(None, 0)
    failures = {code: num for code, num in codes.most_common() if code is not None}
    return Summary(num_in=num_in, num_ok=num_ok, num_failed=codes.total(), failures=failures)


def _show(summary: Summary, console: Console) -> None:
    """`in 200 = ok 198 + failed 2`, and which failures they were."""
    console.print(f"in {summary.num_in} = ok {summary.num_ok} + failed {summary.num_failed}", highlight=False)
    if summary.failures:
        table = Table("failed because", "clips", box=None)
        for code, num_clips in summary.failures.items():
            table.add_row(code, str(num_clips))
        console.print(table)
