"""CPU-seconds a clip of `vidseq score` against a bare loop over the same classifier, side by side.

    python -m benchmarks.batch

The job is run on few and on many clips: the difference is what a clip costs, the rest is what starting costs. Two
workers share caches and memory: two loops side by side are what they compare with. One worker alone has threads.

All processes of the job count, Ray's own too; they are read from /proc as long as they live, ten times a second.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from tests.running import VIDSEQ, descendants
from tests.toy_videos import write_clip
from vidseq.checkpoint import save_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import HeadsConfig, ModelConfig
from vidseq.encoder import load_default_weights
from vidseq.memory import keep_freed_memory
from vidseq.model import SequenceModel, VideoModel

FEW, MANY = 8, 168
LOOPED = 24
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model, clips = Path(folder) / "model", Path(folder) / "clips"
        save_model(model)
        clips.mkdir()
        for number in range(MANY):
            write_clip(clips / f"{number:03}.mp4", num_frames=125, frames_per_second=25, height=240, width=320)
        every = sorted(clips.iterdir())
        given_back, one = _loops(model, every, num_loops=1, keep=False), _loops(model, every, num_loops=1)
        few, many = _job(model, every[:FEW], num_workers=2), _job(model, every, num_workers=2)
        two = _loops(model, every, num_loops=2)
        alone = _job(model, every, num_workers=1).wall_seconds - _job(model, every[:FEW], num_workers=1).wall_seconds
    job, together = (many.cpu_seconds - few.cpu_seconds) / (MANY - FEW), many.wall_seconds - few.wall_seconds
    print("| 5 s of 320x240 H.264, efficientnet-lite0 | CPU-seconds a clip | the job's of it |\n|---|---|---|")
    print(f"| a bare loop | {given_back:.3f} | {job / given_back:.2f} |")
    print(f"| a bare loop that keeps freed memory | {one:.3f} | {job / one:.2f} |")
    print(f"| two of these side by side | {two:.3f} | {job / two:.2f} |")
    print(f"| the job, two workers | {job:.3f} | 1.00 |")
    print(f"\nStarting and stopping the job costs {few.cpu_seconds - FEW * job:.1f} CPU-seconds.")
    print(f"{MANY - FEW} clips take one worker {alone:.0f} s, and two {together:.0f} s ({alone / together:.2f} times).")
    print(f"The largest process of the job has {many.peak_bytes / 2**20:.0f} MiB.")


@dataclass(frozen=True)
class _Cost:
    """Of all processes of a job, and the peak memory of the largest."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


def save_model(folder: Path) -> None:
    config = ModelConfig(heads=HeadsConfig(action_labels=("a", "b"), frame_labels=("c", "d")))
    model = VideoModel.build(config)
    load_default_weights(model.encoder)
    baseline = SequenceModel(config.baseline(), feature_size=model.encoder.feature_size)
    save_checkpoint(
        folder, config=config, model=model, baseline=baseline, documents={"card.md": "# Untrained"}, version="1"
    )


def _loops(model: Path, clips: list[Path], *, num_loops: int, keep: bool = True) -> float:
    """CPU-seconds a clip of so many processes at once, each with clips of its own."""
    with ProcessPoolExecutor(num_loops, mp_context=get_context("spawn")) as processes:
        asked = [
            processes.submit(_loop, model, clips[first : first + LOOPED], keep=keep)
            for first in range(0, num_loops * LOOPED, LOOPED)
        ]
        return sum(each.result() for each in asked) / (num_loops * LOOPED)


def _loop(model: Path, clips: list[Path], *, keep: bool) -> float:
    """CPU-seconds of this process for all clips; the first is classified once before, to warm up."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(1)
    classifier = Classifier.load(model)
    classifier.classify(clips[0])
    begun = time.process_time()
    for clip in clips:
        classifier.classify(clip)
    return time.process_time() - begun


def _job(model: Path, clips: list[Path], *, num_workers: int) -> _Cost:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(VIDSEQ), "score", str(model), *map(str, clips), "--out", f"{folder}/scores.parquet"]
        begun = time.monotonic()
        process = subprocess.Popen([*command, "--workers", str(num_workers)], stdout=sys.stderr)
        ticks: dict[int, int] = {}
        peak_bytes = 0
        while process.poll() is None:
            for pid in {process.pid, *descendants(process.pid)}:
                with suppress(FileNotFoundError, ProcessLookupError):
                    ticks[pid], process_bytes = _cost(pid)
                    peak_bytes = max(peak_bytes, process_bytes)
            time.sleep(0.1)
        assert process.returncode == 0
    return _Cost(sum(ticks.values()) / TICKS_A_SECOND, time.monotonic() - begun, peak_bytes)


def _cost(pid: int) -> tuple[int, int]:
    """Ticks of CPU and peak resident bytes of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    _, _, peak = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")
    return int(fields[11]) + int(fields[12]), 1024 * int((peak or "0").split()[0])  # a zombie has no memory


if __name__ == "__main__":
    main()
