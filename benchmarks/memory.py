"""Peak memory of classifying a 60-minute video against a 10-second one, each in a process of its own.

    python -m benchmarks.memory

The clips are drawn here at one size and rate, so that only the length differs. The backbone is a small one with random
weights: what is measured is what grows with the length, not what a backbone weighs.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from vidseq.checkpoint import save_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import EncoderConfig, HeadsConfig, ModelConfig, Picture
from vidseq.model import SequenceModel, VideoModel

LENGTHS_SECONDS = (10, 3600)
FRAMES_PER_SECOND = 12
TOY_ENCODER = EncoderConfig(backbone="timm:test_efficientnet", weights="none")


def main() -> None:
    if len(sys.argv) == 3:
        _classify(Path(sys.argv[1]), Path(sys.argv[2]))
        return
    print("| video | frames sampled | peak MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save_model(model)
        peaks = []
        for seconds in LENGTHS_SECONDS:
            clip = Path(folder) / f"{seconds}.mp4"
            draw(clip, num_frames=seconds * FRAMES_PER_SECOND)
            command = [sys.executable, "-m", "benchmarks.memory", str(model), str(clip)]
            sampled, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            peaks.append(float(peak))
            print(f"| {seconds} s | {sampled} | {peaks[-1]:.0f} |", flush=True)
    print(f"\ndifference {peaks[1] - peaks[0]:.1f} MiB (at most 50 asked for)")


def _classify(model: Path, clip: Path) -> None:
    prediction = Classifier.load(model).classify(clip)
    assert len(prediction.frames) == prediction.sampled.num_frames
    print(prediction.sampled.num_frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def save_model(folder: Path, *, size: int = 64, encoder: EncoderConfig = TOY_ENCODER) -> None:
    config = ModelConfig(
        picture=Picture(size=size),
        encoder=encoder,
        heads=HeadsConfig(action_labels=("a", "b"), frame_labels=("a", "b", "c")),
    )
    model = VideoModel.build(config)
    baseline = SequenceModel(config.baseline(), feature_size=model.encoder.feature_size)
    save_checkpoint(folder, config=config, model=model, baseline=baseline, documents={}, version="1")


def draw(path: Path, *, num_frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FRAMES_PER_SECOND, (320, 240))
    noise = np.random.default_rng(0).integers(0, 256, (32, 240, 320, 3), dtype=np.uint8)
    for index in range(num_frames):
        frame = noise[index % 32] // 8
        cv2.circle(frame, (index % 320, 120), 40, (0, 200, 255), -1)
        writer.write(frame)
    writer.release()


if __name__ == "__main__":
    main()
