"""Memory that was freed is kept for what comes next. glibc alone knows how; elsewhere nothing is changed.

What a CNN needs for a batch of frames it frees after it. glibc gives that back to the system, from which the next batch
asks for it again, page by page: a quarter of the encoder's time on a CPU (benchmarks.batch_heads). With an arena for
each thread that would change for the first threads alone.
"""

import ctypes
from collections.abc import Mapping

_BYTES = 1_000_000_000
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": (-1, _BYTES), "MALLOC_MMAP_THRESHOLD_": (-3, _BYTES), "MALLOC_ARENA_MAX": (-8, 1)}

ENVIRONMENT: Mapping[str, str] = {name: str(value) for name, (_, value) in _MALLOPT.items()}
"""For processes that are still to be started."""


def keep_freed_memory() -> None:
    """From now on, in this process: before it has begun other threads."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another libc; Windows
        return
    for parameter, value in _MALLOPT.values():
        mallopt(parameter, value)
