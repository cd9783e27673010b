"""Clips scored by Ray Data: paths in, tables of rows out, in any order. Knows nothing of files of rows or of people.

    blocks of paths -> workers, a model each -> rows (serving.rows)

A clip that cannot be scored has a row with its error. A worker that dies takes its clips with it: they are tried once
more, each alone, and those that kill again have a row that says so.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import ray
import ray.data
import torch
from ray.util.annotations import RayDeprecationWarning

from serving.rows import INDEX, LOST, Row, answered, as_text, failed, refused, to_table
from vidseq.checkpoint import load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.engine import Engine
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import ModelInfo

_WORKER_BYTES = 1.5 * 2**30  # torch, efficientnet-lite0 and a clip that is being decoded: benchmarks/batch.py
_MAX_CLIPS_AT_ONCE = 16  # decoded by the threads of a worker that has a GPU
_MAX_BLOCKS = 4096  # Ray's driver spends milliseconds on a block: a small job has one a clip, a large one has this many
_SILENCE_SECONDS = 12 * 3600.0  # without a row from anyone; a clip may be six hours long, and take longer


@dataclass(frozen=True)
class Job:
    """What every worker is told: the model, what of its answers is kept, and what a clip may cost."""

    model: Path
    info: ModelInfo
    top_k: int
    frames: bool
    limits: Limits


@dataclass(frozen=True)
class Crew:
    """How many workers there are, and what each takes: CPUs and GPUs from Ray, threads for torch, clips at once."""

    num_workers: int
    num_cpus: float
    num_gpus: float
    num_threads: int
    clips_at_once: int


def plan(resources: Mapping[str, float], *, num_clips: int, num_workers: int | None) -> Crew:
    """Who works, given what Ray has (`ray.cluster_resources()`).

    None is one worker a GPU; without one, one a CPU as far as memory goes. Only a GPU is worth several clips at once.
    """
    num_cpus, num_gpus = resources["CPU"], resources.get("GPU", 0)
    affordable = max(1, int(num_gpus or min(num_cpus, resources["memory"] / _WORKER_BYTES)))
    num_workers = min(num_workers or affordable, num_clips)
    cpus_each = num_cpus / num_workers
    return Crew(
        num_workers=num_workers,
        num_cpus=min(1, cpus_each),
        num_gpus=min(1, num_gpus / num_workers),
        num_threads=max(1, int(cpus_each)),
        clips_at_once=max(1, min(int(cpus_each), _MAX_CLIPS_AT_ONCE)) if num_gpus else 1,
    )


def score_clips(clips: Sequence[str], job: Job, *, num_workers: int | None) -> Iterator[pa.Table]:
    """A row for every clip, as they come; `INDEX` is the clip's place in `clips`. Ray is connected."""
    resources: dict[str, float] = ray.cluster_resources()
    crew = plan(resources, num_clips=len(clips), num_workers=num_workers)
    waiting = {
        index: {INDEX: index, "path": as_text(clip), "file": os.fsencode(os.path.abspath(clip))}
        for index, clip in enumerate(clips)
    }
    together = _Attempt(crew, max_blocks=_MAX_BLOCKS, queued=1)
    alone = _Attempt(replace(crew, clips_at_once=1), max_blocks=len(clips), queued=0)
    for attempt in (together, alone):
        for table in _run(list(waiting.values()), job, attempt):
            for index in table[INDEX].to_pylist():
                del waiting[index]
            yield table
        if not waiting:
            return
    detail = "the worker died of this clip, twice: of too little memory, or of a crash while decoding it"
    for index, clip in waiting.items():
        yield to_table([{INDEX: index, "path": clip["path"]} | refused(LOST, detail, job.info)], frames=job.frames)


class Scorer:
    """One worker: Ray Data makes it in a process of its own and gives it one block of clips after another."""

    def __init__(self, job: Job, *, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        checkpoint = load_checkpoint(job.model)
        engine = Engine(checkpoint.model.to("cuda" if ray.get_gpu_ids() else "cpu"))
        self._classifier = Classifier(checkpoint, compute=engine.submit, limits=job.limits, sandbox=Sandbox())
        self._job = job

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows of the clips at `file`: a name's bytes, as the file system has them."""
        return pa.concat_tables([self._score(clip) for clip in block.to_pylist()])

    def _score(self, clip: Row) -> pa.Table:
        frames, known = self._job.frames, {name: clip[name] for name in (INDEX, "path")}
        try:
            prediction = self._classifier.classify(os.fsdecode(clip["file"]), top_k=self._job.top_k)
            return to_table([known | answered(prediction, frames=frames)], frames=frames)
        except Exception as error:  # one clip does not stop a million: its row says what happened
            return to_table([known | failed(error, self._job.info)], frames=frames)


@dataclass(frozen=True)
class _Attempt:
    """`queued` blocks wait at a worker while it works on others, and are lost with it."""

    crew: Crew
    max_blocks: int
    queued: int


def _run(clips: list[Row], job: Job, attempt: _Attempt) -> Iterator[pa.Table]:
    """One execution of Ray Data. A clip whose worker died has no row."""
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
        paths = ray.data.from_items(clips, override_num_blocks=min(len(clips), attempt.max_blocks))
        rows = paths.map_batches(
            Scorer,
            fn_constructor_args=(job,),
            fn_constructor_kwargs={"num_threads": crew.num_threads},
            compute=ray.data.ActorPoolStrategy(
                size=crew.num_workers,
                max_tasks_in_flight_per_actor=crew.clips_at_once + attempt.queued,
                max_concurrent_calls_per_actor=crew.clips_at_once,
                enable_true_multi_threading=crew.clips_at_once > 1,
            ),
            batch_format="pyarrow",
            num_cpus=crew.num_cpus,
            num_gpus=crew.num_gpus,
            max_task_retries=0,  # by default a clip that kills its worker would kill the next, for ever
        )
    yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")
