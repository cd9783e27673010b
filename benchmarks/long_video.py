"""Peak memory of training on one long labelled video, by its length: chunks with the state carried on, and whole.

    python -m benchmarks.long_video

The features are synthetic, 1,280 a frame at 8 frames a second, written to the cache's form and mapped from it, as those
of real clips are. What is measured is anonymous memory (RssAnon): pages of a mapped file can be dropped at any time and
are no burden. Each run is a process of its own; what it holds before training is taken off.
"""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from training.data.example import Example, one_hot
from training.loop.fit import fit
from training.measure.scores import score_clips
from training.settings import FitConfig
from vidseq.config import HeadsConfig, ModelConfig
from vidseq.features.row_files import read_rows, write_rows

MINUTES = (10, 60)
FRAMES_PER_SECOND = 8
FEATURE_SIZE = 1280
CONFIG = ModelConfig(heads=HeadsConfig(action_labels=("a", "b"), frame_labels=("a", "b", "c")))


def main() -> None:
    if len(sys.argv) == 3:
        _train(sys.argv[1], Path(sys.argv[2]))
        return
    print("| long | " + " | ".join(f"{minutes} min, MiB" for minutes in MINUTES) + " | difference |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        files = [_write(Path(folder) / f"{minutes}.safetensors", minutes) for minutes in MINUTES]
        for long in ("truncated", "window", "whole"):
            peaks = [_peak(long, file) for file in files]
            cells = " | ".join(f"{peak:.0f}" for peak in peaks)
            print(f"| {long} | {cells} | {peaks[-1] - peaks[0]:+.0f} |", flush=True)


def _write(path: Path, minutes: int) -> Path:
    chance = np.random.default_rng(0)

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for minute in range(minutes):
            seconds_T = 60 * minute + np.arange(60 * FRAMES_PER_SECOND) / FRAMES_PER_SECOND
            yield chance.standard_normal((len(seconds_T), FEATURE_SIZE), dtype=np.float32), seconds_T

    write_rows(path, (({"feature_TD": rows}, seconds_T) for rows, seconds_T in chunks()))
    return path


def _peak(long: str, file: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.long_video", long, str(file)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _train(long: str, file: Path) -> None:
    """One epoch with its validation, and the scores that an evaluation would take, on the same video."""
    torch.set_num_threads(1)
    settings = FitConfig.model_validate({"epochs": 1, "long": long, "batch_size": 4})
    found = read_rows(file, "feature_TD")
    assert found is not None
    feature_TD = torch.from_numpy(found[0])
    frame_T = torch.arange(len(feature_TD))
    example = Example(feature_TD, one_hot(0, num_labels=2), frame_T // FRAMES_PER_SECOND % 3)
    with _watched() as peaks:
        fitted = fit([example], [example], config=CONFIG, settings=settings, run_file=None, on_epoch=lambda _: None)
        score_clips(fitted.model, [example])
    print(max(peaks) / 2**20)


@contextmanager
def _watched() -> Iterator[list[int]]:
    """Anonymous bytes above those at the start, every few milliseconds."""
    before, peaks, over = _anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            peaks.append(_anonymous_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def _anonymous_bytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
