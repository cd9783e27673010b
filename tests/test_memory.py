"""Memory that was freed comes back without a page fault, in whichever thread, here and in processes begun from here."""

import os
import platform
import subprocess
import sys

import pytest

from vidseq.memory import ENVIRONMENT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc gives it back as it likes")

PROGRAM = """
import resource, sys, threading
if "here" in sys.argv:
    from vidseq.memory import keep_freed_memory
    keep_freed_memory()

def batch():
    buffers = [bytearray(9 * 2**20) for _ in range(8)]
    for buffer in buffers:
        buffer[::4096] = b"x" * len(buffer[::4096])

def batches():
    batch()
    begun = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        batch()
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - begun)

for _ in range(3):
    thread = threading.Thread(target=batches)
    thread.start()
    thread.join()
"""


def page_faults(*arguments: str, environment: dict[str, str] | None = None) -> list[int]:
    """Of ten batches after the first, of 72 MiB each, in three threads, one after the other."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    run = subprocess.run(command, env=clean | (environment or {}), capture_output=True, text=True, check=True)
    return list(map(int, run.stdout.split()))


def test_without_it_nearly_every_page_is_asked_for_again() -> None:
    assert min(page_faults()) > 10_000


def test_a_process_keeps_what_it_has_freed() -> None:
    assert max(page_faults("here")) < 1_000


def test_so_does_one_that_is_started_with_the_environment() -> None:
    assert max(page_faults(environment=dict(ENVIRONMENT))) < 1_000
