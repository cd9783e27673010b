"""A launcher that is killed leaves no process of its own and no folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.aftermath import clean_up
from tests.running import alive

LAUNCHER = """
import os, subprocess, sys, time
from serving.aftermath import cleaned_up
folder = sys.argv[1]
with cleaned_up(folder):
    told = {**os.environ, "TMPDIR": folder}
    grandchild = "import subprocess; p = subprocess.Popen(['sleep', '300']); print(p.pid, flush=True); p.wait()"
    child = subprocess.Popen([sys.executable, "-c", grandchild], env=told, stdout=subprocess.PIPE, text=True)
    print(child.pid, child.stdout.readline().strip(), flush=True)
    sys.stdin.read()
    subprocess.run(["kill", "-9", str(child.pid)])
"""


@pytest.fixture
def launched(tmp_path: Path) -> "tuple[subprocess.Popen[str], Path, list[int]]":
    """A launcher, its folder, and the child and the grandchild that it began."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "log").write_text("a line")
    command = [sys.executable, "-c", LAUNCHER, str(folder)]
    launcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    return launcher, folder, [int(word) for word in launcher.stdout.readline().split()]


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_after_a_kill_nothing_is_left(launched: "tuple[subprocess.Popen[str], Path, list[int]]") -> None:
    launcher, folder, begun = launched
    launcher.kill()
    launcher.communicate()
    await_that(lambda: not folder.exists())
    assert [pid for pid in begun if alive(pid)] == []


def test_after_a_good_end_nothing_is_touched(launched: "tuple[subprocess.Popen[str], Path, list[int]]") -> None:
    launcher, folder, (_, grandchild) = launched
    launcher.communicate("")
    assert launcher.returncode == 0
    assert (folder / "log").read_text() == "a line"
    assert alive(grandchild)
    os.kill(grandchild, signal.SIGKILL)


def test_who_writes_into_the_folder_is_ended_and_who_reads_there_is_not(tmp_path: Path) -> None:
    """Nor is whoever cleans up, though it writes there, too."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "log").write_text("a line")
    with (folder / "own").open("w"), (folder / "log").open() as reading, (folder / "log").open("a") as writing:
        reader = subprocess.Popen(["sleep", "300"], stdin=reading)
        writer = subprocess.Popen(["sleep", "300"], stdout=writing)
        clean_up(str(folder))
        assert writer.wait() == -signal.SIGKILL
        assert reader.poll() is None
        reader.kill()
        reader.wait()
    assert not folder.exists()
