"""What it costs to check a model as it is loaded, and how far its golden answer is from what may be and what must not.

    python -m benchmarks.checkpoints MODEL [MODEL ...] [--rounds 5]

Two tables for each model. CPU-milliseconds of a load, medians of rounds: hashes alone, hashes with a signature, the
whole load, and the known clip answered after it. Then the largest difference of any score of the known clip from the
one given here: what another machine may do without fault (threads, turns of the engine, pixels that a decoder rounds
otherwise, half of the precision), and what makes it another model (weights that were changed and hashed again).
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch

from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.engine import Compute, Done, Engine, Work, direct
from vidseq.folder import opened
from vidseq.golden import Golden
from vidseq.model import VideoModel
from vidseq.rehearsal import answer
from vidseq.signing import parsed, read_private_key, require, signed, write_key_pair

MAX_BYTES = 2**33


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for model in options.models:
        costs(model, rounds=options.rounds)
        differences(load_checkpoint(model))


def costs(model: Path, *, rounds: int) -> None:
    num_bytes = sum(path.stat().st_size for path in model.iterdir())
    print(f"\n### {model.name}: {num_bytes / 2**20:.1f} MiB in {len(list(model.iterdir()))} files\n")
    print("| | CPU-ms |\n|---|---|")
    checkpoint = load_checkpoint(model)
    compute = direct(checkpoint.model)
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, Callable[[], object]] = {
            "every file read and hashed": lambda: hashed(model),
            "a signature checked": signature_check(model, Path(folder)),
            "the whole load": lambda: load_checkpoint(model),
            "the known clip answered": lambda: answer(checkpoint.config, compute, device="cpu"),
        }
        for name, step in steps.items():
            step()
            print(f"| {name} | {statistics.median(cpu_ms(step) for _ in range(rounds)):.1f} |")


def hashed(model: Path) -> None:
    with opened(model) as files:
        for name in files.manifest.digests:
            files.read(name, max_bytes=MAX_BYTES)


def signature_check(model: Path, folder: Path) -> Callable[[], object]:
    public, _ = write_key_pair(folder / "key.pem", passphrase=None)
    manifest = (model / "manifest.json").read_bytes()
    data = signed(manifest, read_private_key(folder / "key.pem", passphrase=None))
    return lambda: require(parsed(data, model), manifest, folder=model, trusted_keys=[public])


def cpu_ms(step: Callable[[], object]) -> float:
    begun = time.process_time()
    step()
    return 1000 * (time.process_time() - begun)


def differences(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    golden = answer(config, direct(checkpoint.model), device="cpu")
    print(f"\n| {config.recurrent.cell}, {config.encoder.precision} | largest difference |\n|---|---|")
    for name, found in (*without_fault(checkpoint), *of_another_model(checkpoint)):
        print(f"| {name} | {apart(golden, found):.5f} |", flush=True)


def without_fault(checkpoint: Checkpoint) -> Iterator[tuple[str, Golden]]:
    config, model = checkpoint.config, checkpoint.model
    before = torch.get_num_threads()
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        yield f"{threads} threads", answer(config, direct(model), device="cpu")
    torch.set_num_threads(before)
    for turn in (1, 3, 8):
        with Engine(model, turn_frames=turn) as engine:
            yield f"an engine's turns of {turn}", answer(config, engine.submit, device="cpu")
    for share in (0.001, 0.01, 1.0):
        yield f"{share:.1%} of the pixels' values off by one", answer(config, with_noise(model, share), device="cpu")
    other = "bfloat16" if config.encoder.precision == "float32" else "float32"
    reduced = copy.deepcopy(model)
    reduced.encoder.config = config.encoder.model_copy(update={"precision": other})
    yield f"the encoder in {other}", answer(config, direct(reduced), device="cpu")


def of_another_model(checkpoint: Checkpoint) -> Iterator[tuple[str, Golden]]:
    for share in (0.01, 0.1, 0.3):
        yield f"all weights after the encoder off by {share:.0%}", changed(checkpoint, "sequence", share)
    for share in (0.01, 0.1):
        yield f"all weights of the encoder off by {share:.0%}", changed(checkpoint, "encoder", share)
    yield "weights after the encoder drawn anew", changed(checkpoint, "sequence", None)


def changed(checkpoint: Checkpoint, part: str, share: float | None) -> Golden:
    model = copy.deepcopy(checkpoint.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in getattr(model, part).parameters():
            noise = torch.randn(parameter.shape, generator=generator) * parameter.std(correction=0)
            parameter.copy_(noise if share is None else parameter + share * noise)
    return answer(checkpoint.config, direct(model), device="cpu")


def with_noise(model: VideoModel, share: float) -> Compute:
    compute = direct(model)
    rng = np.random.default_rng(0)

    def noisy(work: Work) -> "Future[Done]":
        shape = work.pixels_THWC.shape
        noise = rng.choice((-1, 1), shape) * (rng.random(shape) < share)
        pixels_THWC = np.clip(work.pixels_THWC + noise, 0, 255).astype(np.uint8)
        return compute(Work(pixels_THWC, work.state))

    return noisy


def apart(golden: Golden, found: Golden) -> float:
    tables = ((golden.actions, found.actions), (golden.frames, found.frames))
    return max(float(np.abs(np.array(was) - np.array(now)).max()) for was, now in tables if was)


if __name__ == "__main__":
    main()
