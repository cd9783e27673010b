"""Training runs that are killed and resumed, against the same runs uninterrupted: are the weights equal, bit for bit?

    python -m benchmarks.resume [--kills 20]

Each kill is a SIGKILL to a process that is training, a random part of an epoch after a random epoch; the next process
goes on from what it finds.
The recipes draw on all that is random or carried over: dropout, order, mixing, crops, windows, chunks, running means.
"""

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from training.data.example import Example, one_hot
from training.loop.fit import fit
from training.settings import FitConfig
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig

CONFIG = ModelConfig(
    recurrent=RecurrentConfig(projection_size=16, hidden_size=16),
    heads=HeadsConfig(action_labels=("a", "b"), frame_labels=("a", "b")),
)
PLAIN = FitConfig(epochs=12, batch_size=8)
RECIPES = {
    "plain": PLAIN,
    "mixup, running mean": PLAIN.model_copy(update={"mixup": 0.4, "average_decay": 0.9}),
    "balanced draws, changes in time": PLAIN.model_copy(
        update={"class_balance": "sampling", "augment_time": ("crop", "drop", "speed", "reverse")}
    ),
    "chunks": PLAIN.model_copy(update={"long": "truncated", "chunk_frames": 16, "average_decay": 0.9}),
    "windows, mixup": PLAIN.model_copy(update={"long": "window", "chunk_frames": 16, "mixup": 0.4}),
}


@dataclass(frozen=True)
class Trial:
    """One run that was killed once: after how many epochs, and whether it ended with the weights of the other."""

    recipe: str
    num_epochs: int
    equal: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--child", nargs=2, metavar=("RECIPE", "RUN_FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _train(options.child[0], Path(options.child[1]))
        return
    print("| recipe | killed after epochs | equal |\n|---|---|---|")
    trials = killed_runs(options.kills, seed=0)
    for recipe in RECIPES:
        own = [trial for trial in trials if trial.recipe == recipe]
        epochs = ", ".join(str(trial.num_epochs) for trial in own)
        print(f"| {recipe} | {epochs} of {PLAIN.epochs} | {sum(trial.equal for trial in own)} of {len(own)} |")
    print(f"\n{sum(trial.equal for trial in trials)} of {len(trials)}")


def killed_runs(num_kills: int, *, seed: int) -> list[Trial]:
    """So many runs, of each recipe in turn, each killed once and resumed to its end."""
    chance = random.Random(seed)
    names = list(RECIPES)[:num_kills]
    with tempfile.TemporaryDirectory() as folder:
        whole = {name: _Child(name, Path(folder) / f"{name}.pt").finish() for name in names}
        trials = []
        for number in range(num_kills):
            name, run_file = names[number % len(names)], Path(folder) / f"{number}.pt"
            weights, seconds = whole[name]
            _kill_one(name, run_file, chance, epoch_seconds=seconds / PLAIN.epochs)
            resumed = _Child(name, run_file)
            trials.append(Trial(name, resumed.num_epochs_found, resumed.finish()[0] == weights))
    return trials


def _kill_one(name: str, run_file: Path, chance: random.Random, *, epoch_seconds: float) -> None:
    """One that ends before it is hit, because the machine stood still meanwhile, is begun again: it was not killed."""
    while True:
        child = _Child(name, run_file)
        for _ in range(chance.randrange(PLAIN.epochs - 1)):
            child.words.readline()
        time.sleep(chance.uniform(0, epoch_seconds))
        child.process.kill()
        child.words.close()
        if child.process.wait() == -signal.SIGKILL:
            return
        run_file.unlink()


class _Child:
    """A process that trains. It says how many epochs it found, a word after each epoch, and the hash of its weights."""

    def __init__(self, name: str, run_file: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.resume", "--child", name, str(run_file)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.words = self.process.stdout
        self.num_epochs_found = int(self.words.readline())
        self.begun_seconds = time.monotonic()

    def finish(self) -> tuple[str, float]:
        """The hash of the trained weights, and how long it took from its first word."""
        *_, weights = self.words.read().splitlines()
        self.words.close()
        assert self.process.wait() == 0 and len(weights) == 64
        return weights, time.monotonic() - self.begun_seconds


def _train(name: str, run_file: Path) -> None:
    train, validation = _examples(48, seed=1), _examples(16, seed=2)
    if not run_file.exists():
        print(0, flush=True)
    fitted = fit(
        train,
        validation,
        config=CONFIG,
        settings=RECIPES[name],
        run_file=run_file,
        on_epoch=lambda epoch: print(epoch.number, flush=True),
        on_resume=lambda num_epochs: print(num_epochs, flush=True),
    )
    digest = hashlib.sha256()
    for tensor in fitted.model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    print(digest.hexdigest(), flush=True)


def _examples(count: int, *, seed: int) -> list[Example]:
    """Clips of 20 to 60 frames, one in four of the second class."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for number in range(count):
        length = int(torch.randint(20, 61, (1,), generator=generator))
        label = int(number % 4 == 0)
        feature_TD = torch.randn(length, 32, generator=generator) + 0.3 * label
        examples.append(Example(feature_TD, one_hot(label, num_labels=2), torch.full((length,), label)))
    return examples


if __name__ == "__main__":
    main()
