"""How many workers a batch job has, and what each takes of the machine. Knows no Ray."""

from collections.abc import Mapping
from dataclasses import dataclass

_WORKER_BYTES = 1.5 * 2**30  # torch, efficientnet-lite0 and a clip that is being decoded: benchmarks/batch.py
_MAX_CLIPS_AT_ONCE = 16  # decoded by the threads of a worker that has a GPU


@dataclass(frozen=True)
class Crew:
    """How many workers there are, and what each takes: CPUs and GPUs from Ray, threads for torch, clips at once."""

    num_workers: int
    num_cpus: float
    num_gpus: float
    num_threads: int
    clips_at_once: int

    def bill(self, video_seconds: float, elapsed_seconds: float) -> str:
        """What was had for what: a line for whoever pays for machines, by the hour and whether they are busy or not."""
        unit, num = ("GPU", self.num_gpus) if self.num_gpus else ("CPU", self.num_cpus)
        paid_hours, video_hours = self.num_workers * num * elapsed_seconds / 3600, video_seconds / 3600
        return (
            f"{video_hours:.3g} hours of video in {paid_hours:.3g} {unit}-hours: "
            f"{video_hours / paid_hours:.3g} for each {unit}-hour"
        )


def plan(resources: Mapping[str, float], *, num_shards: int, num_workers: int | None) -> Crew:
    """Who works, given what Ray has (`ray.cluster_resources()`).

    None is one worker a GPU; without one, one a CPU as far as memory goes. Only a GPU is worth several clips at once.
    """
    num_cpus, num_gpus = resources["CPU"], resources.get("GPU", 0)
    affordable = max(1, int(num_gpus or min(num_cpus, resources["memory"] / _WORKER_BYTES)))
    num_workers = min(num_workers or affordable, num_shards)
    cpus_each = num_cpus / num_workers
    return Crew(
        num_workers=num_workers,
        num_cpus=min(1, cpus_each),
        num_gpus=min(1, num_gpus / num_workers),
        num_threads=max(1, int(cpus_each)),
        clips_at_once=max(1, min(int(cpus_each), _MAX_CLIPS_AT_ONCE)) if num_gpus else 1,
    )
