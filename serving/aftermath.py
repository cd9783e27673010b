"""What is left of somebody that was killed is ended all the same, and its scratch folder goes. Knows nothing of Ray.

    with cleaned_up(folder):      a child waits at a pipe
        ...                       the end of the block: it hears so, and has nothing to do
        SIGKILL                   the pipe ends without a word: it kills whoever works in folder, and removes it

Linux only: processes are found in /proc.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ALL_IS_WELL = b"."
PATIENCE_SECONDS = 10.0


@contextmanager
def cleaned_up(folder: str) -> Iterator[None]:
    """For as long as this lasts, whatever begins must have TMPDIR=`folder`, or files there that it writes."""
    # No site packages, no environment: it stays for as long as the service does, and shall be small.
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, folder], stdin=subprocess.PIPE, env={}, start_new_session=True
    )
    assert watcher.stdin is not None
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            watcher.stdin.write(ALL_IS_WELL)
            watcher.stdin.close()
        watcher.wait()


def clean_up(folder: str) -> None:
    """End who is left but this process; then remove the folder: nobody writes into it again."""
    end_all(folder)
    shutil.rmtree(folder, ignore_errors=True)


def end_all(folder: str) -> None:
    """Kill whoever works in the folder, this process apart, until nobody does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := _left_over(folder)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _left_over(folder: str) -> set[int]:
    """Processes that work in this folder, this one apart: they were told to, or have a file there open to write."""
    told = f"TMPDIR={folder}".encode()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has gone, or is somebody else's
            if told in (process / "environ").read_bytes().split(b"\0") or _writes_into(folder, process):
                found.add(int(process.name))
    return found - {os.getpid()}


def _writes_into(folder: str, process: Path) -> bool:
    """Some write their title over their environment, and can be known by their files alone."""
    for file in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(file).startswith(f"{folder}/") and file.lstat().st_mode & stat.S_IWUSR:
                return True
    return False


if __name__ == "__main__":
    if sys.stdin.buffer.read() != ALL_IS_WELL:
        clean_up(sys.argv[1])
