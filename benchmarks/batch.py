"""CPU-seconds a clip of `vidseq score` against a bare loop over the same classifier, side by side.

    python -m benchmarks.batch

The job is run on few and on many clips: the difference is what a clip costs, the rest is what starting costs. With one
worker, as the loop is one, and with two, which may have to share a core and its caches.
All processes of the job count, Ray's own too; they are read from /proc as long as they live, ten times a second.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
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
    keep_freed_memory()  # as the job does: what is compared is the job
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, clips = Path(folder) / "model", Path(folder) / "clips"
        save_model(model)
        clips.mkdir()
        for number in range(MANY):
            write_clip(clips / f"{number:03}.mp4", num_frames=125, frames_per_second=25, height=240, width=320)
        every = sorted(clips.iterdir())
        before = _loop(model, every[:LOOPED])
        few, many = _job(model, every[:FEW], num_workers=1), _job(model, every, num_workers=1)
        loop_seconds = (before + _loop(model, every[:LOOPED])) / (2 * LOOPED)
        few_by_two, many_by_two = _job(model, every[:FEW], num_workers=2), _job(model, every, num_workers=2)
    job_seconds = (many.cpu_seconds - few.cpu_seconds) / (MANY - FEW)
    job_by_two_seconds = (many_by_two.cpu_seconds - few_by_two.cpu_seconds) / (MANY - FEW)
    alone, together = many.wall_seconds - few.wall_seconds, many_by_two.wall_seconds - few_by_two.wall_seconds
    print("| 5 s of 320x240 H.264, efficientnet-lite0 | CPU-seconds | of the loop |\n|---|---|---|")
    print(f"| a clip in a bare loop | {loop_seconds:.3f} | 1.00 |")
    print(f"| a clip in the job, one worker | {job_seconds:.3f} | {job_seconds / loop_seconds:.2f} |")
    print(f"| a clip in the job, two workers | {job_by_two_seconds:.3f} | {job_by_two_seconds / loop_seconds:.2f} |")
    print(f"| starting and stopping the job | {few.cpu_seconds - FEW * job_seconds:.1f} | |")
    print(
        f"\n{MANY - FEW} clips take one worker {alone:.0f} s, and two {together:.0f} s ({alone / together:.2f} times)"
    )
    print(f"largest process of the job: {many.peak_bytes / 2**20:.0f} MiB")


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


def _loop(model: Path, clips: list[Path]) -> float:
    """CPU-seconds of this process for all clips; the first is classified once before, to warm up."""
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
