"""Time to the first label: of an hour of video on a slow line, and of a stream of pictures.

    python -m benchmarks.first_label [--megabits 10]

A real `vidseq serve` with the default backbone at 224 pixels. The file is read as fast as such a line would take it;
what the whole upload would have taken is computed from its size, and the connection is closed after the first label.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, cast

import cv2
import numpy as np

from benchmarks.memory import draw
from tests.running import running_service
from vidseq.checkpoint import save_checkpoint
from vidseq.client import Client
from vidseq.config import HeadsConfig, ModelConfig
from vidseq.encoder import load_default_weights
from vidseq.model import SequenceModel, VideoModel

HOUR_SECONDS = 3600
STREAM_FRAMES = 16


class SlowLine(io.RawIOBase):
    """A file that is read no faster than a line of so many megabits a second."""

    def __init__(self, file: BinaryIO, *, megabits: float) -> None:
        self._file = file
        self._bytes_a_second = megabits * 1e6 / 8
        self._begun_seconds: float | None = None
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        now = time.monotonic()
        begun = self._begun_seconds = self._begun_seconds or now
        time.sleep(max(0.0, begun + self._num_bytes / self._bytes_a_second - now))
        piece = self._file.read(min(size, 16 * 1024) if size >= 0 else 16 * 1024)
        self._num_bytes += len(piece)
        return piece


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabits", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, clip = Path(folder) / "model", Path(folder) / "hour.avi"
        _save_model(model)
        draw(clip, num_frames=HOUR_SECONDS * 12)
        with running_service(model) as service:
            _warm_up(service.url)
            file_seconds = _first_of_file(service.url, clip, megabits=options.megabits)
            first_seconds, all_seconds = _first_of_stream(service.url)
        upload_seconds = clip.stat().st_size * 8 / (options.megabits * 1e6)
        megabytes = clip.stat().st_size / 1e6
    print("| | first label after | instead of |\n|---|---|---|")
    print(f"| 60-minute file, {megabytes:.0f} MB at {options.megabits:g} Mbit/s | {file_seconds:.2f} s ", end="")
    print(f"| {upload_seconds:.0f} s, the whole upload |")
    print(f"| stream of pictures, 8 a second | {first_seconds:.3f} s | - |")
    print(f"| {STREAM_FRAMES} pictures at once | {all_seconds:.3f} s to the label of the last | - |")


def _save_model(folder: Path) -> None:
    config = ModelConfig(heads=HeadsConfig(action_labels=("a", "b"), frame_labels=("a", "b", "c")))
    model = VideoModel.build(config)
    load_default_weights(model.encoder)
    baseline = SequenceModel(config.baseline(), feature_size=model.encoder.feature_size)
    save_checkpoint(folder, config=config, model=model, baseline=baseline, documents={}, version="1")


def _warm_up(url: str) -> None:
    with Client(url) as client, client.stream() as stream:
        stream.push_many(_pictures())
        stream.end()


def _first_of_file(url: str, clip: Path, *, megabits: float) -> float:
    begun = time.perf_counter()
    with Client(url) as client, clip.open("rb") as file:
        line = cast(BinaryIO, SlowLine(file, megabits=megabits))
        video = client.classify_stream(line)
        try:
            with video:
                next(iter(video))
                seconds = time.perf_counter() - begun
                raise InterruptedError
        except InterruptedError:
            return seconds


def _first_of_stream(url: str) -> tuple[float, float]:
    with Client(url) as client, client.stream() as stream:
        begun = time.perf_counter()
        stream.push(*_pictures()[0][1:], seconds=0.0)
        labels = iter(stream)
        next(labels)
        first_seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        stream.push_many([(1 + seconds, picture) for seconds, picture in _pictures()])
        for _ in range(STREAM_FRAMES):
            next(labels)
        return first_seconds, time.perf_counter() - begun


def _pictures() -> list[tuple[float, bytes]]:
    """JPEGs of 320 x 240."""
    noise = np.random.default_rng(0).integers(0, 256, (STREAM_FRAMES, 240, 320, 3), dtype=np.uint8)
    smooth = [cv2.GaussianBlur(frame, (31, 31), 0) for frame in noise]
    return [(index / 8, cv2.imencode(".jpg", frame)[1].tobytes()) for index, frame in enumerate(smooth)]


if __name__ == "__main__":
    main()
