"""No process outlives the one that began it, however that ends. Linux only; knows nothing of Ray.

Ray's processes start processes of their own, and one that loses its parent would be adopted by the system.
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GRACE_SECONDS = 5.0
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@contextmanager
def none_left_over() -> Iterator[None]:
    """At the end every descendant of this process is gone: by itself within a grace period, else it is killed."""
    _adopt_orphans(True)
    try:
        yield
    finally:
        _end_children(time.monotonic() + GRACE_SECONDS)
        _adopt_orphans(False)


def _adopt_orphans(adopt: bool) -> None:
    """Grandchildren whose parent ends become children of this process, not of the system."""
    status = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)
    assert status == 0, "the kernel is older than 3.4"


def _end_children(deadline: float) -> None:
    with suppress(ChildProcessError):  # no child is left
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:  # some live
                if time.monotonic() > deadline:
                    _kill_children()
                time.sleep(0.05)


def _kill_children() -> None:
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            os.kill(int(pid), signal.SIGKILL)  # a child that has ended keeps its number until it is waited for
