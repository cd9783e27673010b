"""New labels on old features: `vidseq score` from video and from a store, side by side, and what half precision costs.

    python -m benchmarks.batch_features [--real ../shared/data/fight] [--clips 60] [--rounds 3]

Two models share the packaged backbone; their heads have random weights of their own. CPU-seconds a clip are those of
this process and its decoders, one thread, in turns: the second model on videos, the same on features which the first
has left behind. Reading and checking the features and hashing the clip are counted. Then the labels are compared.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import torch

from benchmarks.batch import save_model
from tests.toy_videos import write_clip
from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.feature_classifier import FeatureClassifier
from vidseq.features.extract import Look
from vidseq.features.extractor import Extractor
from vidseq.features.hashes import content_hash
from vidseq.features.store import FeatureStore
from vidseq.memory import keep_freed_memory
from vidseq.runner import direct
from vidseq.schemas import Prediction

Say = Callable[[Path], Prediction]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="a folder of clips; without it some are drawn")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()  # as every job does
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips = find_clips(arguments.real, folder, arguments.clips)
        first, second = (loaded(folder / f"model{seed}", seed=seed) for seed in (0, 1))
        says = {"video": of_video(second)}
        for kind in ("float32", "float16"):
            store = FeatureStore(folder / kind, kind=kind)
            for clip in clips:
                from_store(first, store)(clip)
            says[kind] = from_store(second, store)
        costs = measured(says, clips, num_rounds=arguments.rounds)
        answers = {name: [say(clip) for clip in clips] for name, say in says.items()}
        sizes = {kind: sum(f.stat().st_size for f in (folder / kind).rglob("*.safetensors")) for kind in list(says)[1:]}
    print(f"{len(clips)} clips, {arguments.rounds} rounds in turns\n")
    print(
        "| a new model's labels from | CPU-ms a clip | faster | kB a clip | other actions, frames | scores differ by |"
    )
    print("|---|---|---|---|---|---|")
    for name, cost in costs.items():
        times = costs["video"] / cost
        size = "" if name == "video" else f"{sizes[name] / len(clips) / 1000:.0f}"
        print(f"| {name} | {1000 * cost:.2f} | {times:.0f} | {size} | {compared(answers['video'], answers[name])} |")


def find_clips(real: Path | None, folder: Path, num_clips: int) -> list[Path]:
    if real is not None:
        clips = sorted(real.rglob("*.mp4"))
        return clips[:: max(1, len(clips) // num_clips)][:num_clips]
    drawn = {"num_frames": 100, "frames_per_second": 25, "height": 240, "width": 320}
    return [write_clip(folder / f"{number}.mp4", first_number=number, **drawn) for number in range(num_clips)]


def loaded(folder: Path, *, seed: int) -> Checkpoint:
    return load_checkpoint(save_head(folder, seed=seed))


def save_head(folder: Path, *, seed: int) -> Path:
    """The packaged backbone, and heads of their own."""
    torch.manual_seed(seed)
    save_model(folder)
    return folder


def of_video(checkpoint: Checkpoint) -> Say:
    return Classifier(checkpoint, compute=direct(checkpoint.model), limits=Limits()).classify


def from_store(checkpoint: Checkpoint, store: FeatureStore) -> Say:
    extract = Extractor(checkpoint.model.encoder, Look.of(checkpoint.config), store=store)
    classifier = FeatureClassifier(checkpoint, limits=Limits())
    return lambda clip: classifier.classify(extract(clip, key=content_hash(clip).hex()))


def measured(says: dict[str, Say], clips: Sequence[Path], *, num_rounds: int) -> dict[str, float]:
    """CPU-seconds a clip of each way, by turns."""
    seconds: dict[str, list[float]] = {name: [] for name in says}
    for _ in range(num_rounds):
        for name, say in says.items():
            say(clips[0])
            begun = cpu_seconds()
            for clip in clips:
                say(clip)
            seconds[name].append((cpu_seconds() - begun) / len(clips))
    return {name: mean(values) for name, values in seconds.items()}


def cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compared(expected: Sequence[Prediction], found: Sequence[Prediction]) -> str:
    actions = frames = num_frames = 0
    largest = 0.0
    for one, other in zip(expected, found, strict=True):
        actions += [scored.label for scored in one.top] != [scored.label for scored in other.top]
        for frame, same in zip(one.frames, other.frames, strict=True):
            num_frames += 1
            frames += frame.label != same.label
            largest = max(largest, abs(frame.score - same.score))
        largest = max(largest, *(abs(a.score - b.score) for a, b in zip(one.top, other.top, strict=True)))
    return f"{actions} of {len(expected)}, {frames} of {num_frames} | {largest:.1g}"


if __name__ == "__main__":
    main()
