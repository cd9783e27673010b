"""A batch job whose processes are killed again and again: rows lost, rows doubled, and work that was done twice.

    python -m benchmarks.batch_kill [--clips 300] [--kills 10] [--real ../shared/data/fight] [--bad ../shared/data/odd]

`vidseq score` over copies of clips under other names and with other bytes; SIGKILL to the job or to one of its workers,
by chance, at random moments while work goes on; then the same command with --resume. Clips of `--bad` are mixed in, one
in five, and the code in the row of each is compared with what the same model says in this process.

Executions are counted by the kernel: each opens its clip's file twice (to hash it, and to decode it), which inotify
tells. The model has the packaged backbone and heads that were never trained.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import CDLL, get_errno
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.batch import save_model
from serving.batch.places import Place
from serving.batch.unfinished import Unfinished
from tests.running import VIDSEQ, descendants
from tests.toy_videos import write_clip
from vidseq.classifier import Classifier
from vidseq.errors import VidseqError

WORKERS = 2
MAX_FRAMES = 1000
IN_OPEN = 0x20
EVENT_BYTES = 16


@dataclass
class Told:
    """What is known at the end."""

    num_clips: int
    num_kills: Counter[str] = field(default_factory=Counter)
    num_runs: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    codes: dict[str, str | None] = field(default_factory=dict)
    executions: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    largest_shard: int = 0

    def table(self) -> str:
        lost = self.num_clips - len(self.rows)
        doubled = self.rows.total() - len(self.rows)
        again = self.executions.total() - len(self.executions)
        kills = ", ".join(f"{number} x {name}" for name, number in self.num_kills.items())
        allowed = sum(
            number * self.largest_shard * (WORKERS if name == "job" else 1) for name, number in self.num_kills.items()
        )
        lines = [
            f"| clips | {self.num_clips}, of which {sum(code is not None for code in self.codes.values())} bad |",
            f"| killed | {kills}; the command was given {self.num_runs} times |",
            f"| rows lost, doubled | {lost}, {doubled} |",
            f"| rows with another code than this process finds | {self.wrong} |",
            f"| clips worked on again | {again}, at most {allowed} (a shard of {self.largest_shard} for each worker) |",
        ]
        return "\n".join(["| | |", "|---|---|", *lines])


def main() -> None:
    arguments = parsed()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        model, clips, out = (Path(scratch) / name for name in ("model", "clips", "scores.parquet"))
        save_model(model)
        expected = make_clips(clips, arguments, model=model)
        told = Told(num_clips=len(expected), codes=expected)
        with counted_opens(clips) as opens:
            killed_again_and_again(model, clips, out, told, num_kills=arguments.kills)
        told.executions = Counter({name: -(-number // 2) for name, number in opens.items()})
        for row in pq.read_table(out, columns=["path", "error_code"]).to_pylist():
            name = Path(row["path"]).name
            told.rows[name] += 1
            told.wrong += row["error_code"] != expected[name]
    print(told.table())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--real", type=Path, help="a folder of clips; without it some are drawn")
    parser.add_argument("--bad", type=Path, help="a folder of odd files with expected.json: one clip in five is a copy")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_clips(folder: Path, arguments: argparse.Namespace, *, model: Path) -> dict[str, str | None]:
    """Copies, each with bytes of its own; by name, the code that the model finds for each in this process."""
    folder.mkdir()
    if arguments.real is None:
        good = [write_clip(folder.parent / f"{n}.mp4", num_frames=20 + 5 * n, first_number=100 * n) for n in range(10)]
    else:
        good = sorted(arguments.real.rglob("*.mp4"))
    bad = [] if arguments.bad is None else short_files(arguments.bad)
    classifier, codes, expected = Classifier.load(model), dict[Path, str | None](), dict[str, str | None]()
    for number in range(arguments.clips):
        source = bad[number // 5 % len(bad)] if bad and number % 5 == 0 else good[number % len(good)]
        if source not in codes:
            codes[source] = code_of(classifier, source)
        name = f"{number:04}{source.suffix}"
        expected[name] = codes[source]
        shutil.copyfile(source, folder / name)
        if source.suffix == ".mp4" and codes[source] is None:
            with (folder / name).open("ab") as file:  # a box that every reader passes over
                file.write((24).to_bytes(4, "big") + b"free" + secrets.token_bytes(16))
    return expected


def short_files(folder: Path) -> list[Path]:
    """All of odd files but videos of many minutes, by `expected.json`: what they cost would hide what is counted."""
    expected = json.loads((folder / "expected.json").read_text())
    return sorted(folder / entry["file"] for entry in expected if (entry.get("frames") or 0) <= MAX_FRAMES)


def code_of(classifier: Classifier, clip: Path) -> str | None:
    try:
        classifier.classify(clip)
    except VidseqError as error:
        return error.code
    return None


def killed_again_and_again(model: Path, clips: Path, out: Path, told: Told, *, num_kills: int) -> None:
    unfinished = Unfinished.beside(Place.of(str(out)))
    command = [VIDSEQ, "score", model, f"{clips}/*", "--out", out, "--resume", "--workers", str(WORKERS)]
    while not out.exists():
        process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
        told.num_runs += 1
        while process.poll() is None:
            if told.num_kills.total() < num_kills and wait_for_progress(process, unfinished):
                told.largest_shard = max(map(len, unfinished.shards()))
                told.num_kills[kill_one(process)] += 1
            time.sleep(0.1)
        assert process.stderr is not None
        words = process.stderr.read()
        assert process.returncode in (0, -signal.SIGKILL), words
        print(f"run {told.num_runs}: {process.returncode}, {told.num_kills}", file=sys.stderr, flush=True)
    print(words, file=sys.stderr)


def wait_for_progress(process: "subprocess.Popen[str]", unfinished: Unfinished) -> bool:
    """Whether a part was added, and a random while has passed since, with the job still at work."""
    begun = len(unfinished.done())
    while process.poll() is None:
        if len(unfinished.done()) > begun and workers_of(process):
            time.sleep(random.uniform(0, 4))
            return process.poll() is None
        time.sleep(0.05)
    return False


def kill_one(process: "subprocess.Popen[str]") -> str:
    """The job with all that is its, or one worker."""
    workers = workers_of(process)
    if workers and random.random() < 0.5:
        with suppress(ProcessLookupError):
            os.kill(random.choice(workers), signal.SIGKILL)
        return "worker"
    tree = [process.pid, *descendants(process.pid)]
    for pid in tree:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return "job"


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    found = []
    for pid in descendants(process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@contextmanager
def counted_opens(folder: Path) -> Iterator[Counter[str]]:
    """How often each file of a folder was opened meanwhile, by anybody."""
    libc = CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    assert descriptor >= 0 and libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_OPEN) >= 0, get_errno()
    opens: Counter[str] = Counter()
    ended = threading.Event()

    def count() -> None:
        while not ended.wait(0.002):
            with suppress(BlockingIOError):
                opens.update(names_in(os.read(descriptor, 2**16)))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield opens
    finally:
        time.sleep(0.1)
        ended.set()
        thread.join()
        os.close(descriptor)


def names_in(events: bytes) -> Iterator[str]:
    """Of the files; an event of the folder itself has none."""
    while events:
        length = int.from_bytes(events[12:EVENT_BYTES], sys.byteorder)
        if name := events[EVENT_BYTES : EVENT_BYTES + length].rstrip(b"\0"):
            yield name.decode()
        events = events[EVENT_BYTES + length :]


if __name__ == "__main__":
    main()
