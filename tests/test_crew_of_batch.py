"""How many workers a batch job has, and what each takes of the machine."""

import pytest

from serving.batch.crew import Crew, plan

GIB = 2**30


def resources(*, cpus: float, gib: float = 100.0, gpus: float = 0) -> dict[str, float]:
    """What Ray says of a machine; it has no key for what there is none of."""
    return {"CPU": cpus, "memory": gib * GIB} | ({"GPU": gpus} if gpus else {})


def test_without_a_gpu_every_cpu_has_a_worker_of_one_thread() -> None:
    crew = plan(resources(cpus=8), num_shards=1000, num_workers=None)
    assert crew == Crew(num_workers=8, num_cpus=1, num_gpus=0, num_threads=1, clips_at_once=1)


def test_there_are_no_more_workers_than_memory_has_room_for() -> None:
    crew = plan(resources(cpus=64, gib=6), num_shards=1000, num_workers=None)
    assert (crew.num_workers, crew.num_threads) == (4, 16)


def test_a_gpu_has_one_worker_that_decodes_several_clips_at_once() -> None:
    crew = plan(resources(cpus=16, gpus=2), num_shards=1000, num_workers=None)
    assert (crew.num_workers, crew.num_gpus, crew.clips_at_once) == (2, 1, 8)


@pytest.mark.parametrize("num_workers", [None, 5])
def test_there_are_no_more_workers_than_clips(num_workers: int | None) -> None:
    assert plan(resources(cpus=8), num_shards=3, num_workers=num_workers).num_workers == 3


def test_more_workers_than_cpus_share_them() -> None:
    crew = plan(resources(cpus=2, gpus=1), num_shards=1000, num_workers=8)
    assert (8 * crew.num_cpus, 8 * crew.num_gpus, crew.num_threads, crew.clips_at_once) == (2, 1, 1, 1)


def test_the_smallest_machine_has_a_worker() -> None:
    assert plan(resources(cpus=1, gib=0.5), num_shards=1, num_workers=None).num_workers == 1
