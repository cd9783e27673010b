"""What the process of all tests has open: what one of them leaves, and not what another does meanwhile."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def none_stays_open() -> Iterator[set[str]]:
    """Gives what is open now; at the end nothing else may be. Less may: what others have left is closed at any time."""
    gc.collect()
    before = descriptors()
    yield before
    assert descriptors() <= before
