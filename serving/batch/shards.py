"""A job is divided into shards by what its clips are expected to cost: bytes. Knows nothing of files or workers.

A shard is what a worker is given at once, what is on the disk at once, and so what is done again at most after a kill.
Its clips follow one another, and a long clip has a shard to itself. Costly shards are worked on first: what is left at
the end, when some workers are idle already, is small. A clip that would keep one worker busy when all others are done
is encoded in legs (vidseq.features.legs), side by side.
"""

from collections.abc import Mapping, Sequence

MAX_TASKS = 10**9  # more than any job has: who works is asked before what is to be done is known
MAX_CLIPS = 64  # of a shard: at a second a clip, a minute that a kill may cost
_MIN_SHARDS = 256  # of a job that has as many clips: workers end together, and a kill costs a small job little
_LEG_BYTES = 2.0**25  # a leg is worth its start: some minutes of video
_LEAST_BYTES = 2.0**16  # what opening a clip costs, however small it is


def expected_costs(num_bytes: Sequence[int | None]) -> list[float]:
    """Of each clip, in bytes. One of unknown size counts as the others' mean."""
    known = [size for size in num_bytes if size is not None]
    mean = sum(known) / len(known) if known else 0.0
    return [max(_LEAST_BYTES, mean if size is None else size) for size in num_bytes]


def divide(costs: Sequence[float]) -> list[range]:
    """The shards, as runs of clips in their order."""
    most = sum(costs) / max(_MIN_SHARDS, len(costs) / MAX_CLIPS)
    shards, begun, cost = [], 0, 0.0
    for index, own in enumerate(costs):
        if index > begun and (cost + own > most or index - begun == MAX_CLIPS):
            shards.append(range(begun, index))
            begun, cost = index, 0.0
        cost += own
    return [*shards, range(begun, len(costs))]


def legs_of(shards: Mapping[int, range], costs: Mapping[int, float], *, num_workers: int) -> dict[int, int]:
    """How many legs the long clips have, that would hold up the others' end: at most one for each worker.

    Args:
        shards: what is left to do, by number.
        costs: of these shards.
    """
    share = sum(costs.values()) / num_workers
    legs = {
        number: min(num_workers, int(2 * costs[number] / share), int(costs[number] / _LEG_BYTES))
        for number, shard in shards.items()
        if len(shard) == 1
    }
    return {number: num_legs for number, num_legs in legs.items() if num_legs > 1}
