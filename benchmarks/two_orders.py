"""A task that only time can solve: the same frames in two orders, for every cell and both baselines.

    python -m benchmarks.two_orders

A ramp goes up or down; the frames are the same. Each model learns from 128 clips and is asked of 200 others, once in
their order and once shuffled: what it knows must be gone then. A cell has to be right in more than 0.95, a baseline can
only guess. The median of three seeds; with 200 clips chance lies between 0.43 and 0.57.
"""

import statistics
from typing import get_args

import torch

from training.data.example import Example, one_hot
from training.data.targets import IGNORED
from training.loop.fit import fit
from training.measure.scores import score_clips
from training.settings import FitConfig
from vidseq.config import CellName, HeadsConfig, ModelConfig, RecurrentConfig
from vidseq.model import SequenceModel

SEEDS = (0, 1, 2)
FEATURE_SIZE = 4


def two_orders(count: int, *, seed: int) -> list[Example]:
    """Ramps of 6 to 11 frames with a little noise, half of them backwards."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for index in range(count):
        num_frames = int(torch.randint(6, 12, (1,), generator=generator))
        feature_TD = torch.linspace(-1, 1, num_frames)[:, None] + 0.05 * torch.randn(
            num_frames, FEATURE_SIZE, generator=generator
        )
        feature_TD[:, 2:] = 1.0  # LayerNorm would otherwise leave only signs
        target_A = one_hot(index % 2, num_labels=2)
        examples.append(
            Example(feature_TD.flip(0) if index % 2 else feature_TD, target_A, torch.full((num_frames,), IGNORED))
        )
    return examples


def main() -> None:
    configs = {cell: a_config(cell) for cell in get_args(CellName)}
    configs |= {"mean pool": a_config("gru").baseline(), "frame alone": a_config("gru").frame_alone()}
    print("| | accuracy | frames shuffled |\n|---|---|---|")
    for name, config in configs.items():
        in_order, shuffled = zip(*(_accuracies(config, seed=seed) for seed in SEEDS), strict=True)
        print(f"| {name} | {statistics.median(in_order):.3f} | {statistics.median(shuffled):.3f} |", flush=True)


def a_config(cell: str) -> ModelConfig:
    return ModelConfig(
        recurrent=RecurrentConfig.model_validate(
            {"cell": cell, "hidden_size": 16, "projection_size": 16, "dropout": 0.2}
        ),
        heads=HeadsConfig(action_labels=("up", "down")),
    )


def _accuracies(config: ModelConfig, *, seed: int) -> tuple[float, float]:
    settings = FitConfig(epochs=60, batch_size=16, learning_rate=5e-3, label_smoothing=0.0, seed=seed)
    held_out, unseen = two_orders(32, seed=10 + seed), two_orders(200, seed=20 + seed)
    model = fit(
        two_orders(128, seed=30 + seed),
        held_out,
        config=config,
        settings=settings,
        run_file=None,
        on_epoch=lambda epoch: None,
    ).model
    generator = torch.Generator().manual_seed(seed)
    shuffled = [one.rearranged(torch.randperm(one.num_frames, generator=generator)) for one in unseen]
    return _accuracy(model, unseen), _accuracy(model, shuffled)


def _accuracy(model: SequenceModel, examples: list[Example]) -> float:
    called = [int(score.action_A.argmax()) for score in score_clips(model, examples) if score.action_A is not None]
    return statistics.fmean(c == example.action_index for c, example in zip(called, examples, strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)  # the models are small: threads cost more than they bring
    main()
