"""How far back a cell learns to look: a cue, then noise, then the question. And the gradients that say why.

    python -m benchmarks.long_dependency --pictures FOLDER

    frame       0       1 ... N      N + 1
    features    cue     noise        question        the action is the cue, one of four, asked for at the last frame

Every cell has the same size, the same sequences and the same number of updates. The sequences that it learns from have
1 to N frames of noise, as clips differ in length, and those that it is asked about have N: accuracy, the median over
seeds; chance is 0.25. In brackets, how much of the gradient 1 step back is left N steps back, at the cue, once it is
trained. What is not learnt within these updates may be with more: the table compares cells, it does not say what is
possible. For each N a picture has the gradients at all steps back, of the same seed. Half an hour on one core.
"""

import argparse
import statistics
from pathlib import Path

import torch

from training.data.example import Example, one_hot
from training.data.targets import IGNORED
from training.loop.fit import fit
from training.measure.gradient_health import Fade, fade
from training.measure.scores import score_clips
from training.report.drawings import as_file, gradients
from training.settings import FitConfig
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig
from vidseq.model import SequenceModel

CELLS = ("elman", "lstm", "gru", "mut1", "mut2", "mut3", "mingru")
LENGTHS, SEEDS, NUM_EPOCHS = (25, 50, 100, 200), (0, 1, 2), 16  # of 64 updates each
NUM_SYMBOLS, NUM_LEARNT, NUM_ASKED = 4, 2048, 200
CUE, QUESTION = NUM_SYMBOLS, NUM_SYMBOLS + 1  # the features that mark these frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of the gradients at each N")
    parser.add_argument("--quick", action="store_true", help="two short N, one seed")
    arguments = parser.parse_args()
    lengths, seeds = (LENGTHS[:2], SEEDS[:1]) if arguments.quick else (LENGTHS, SEEDS)
    print(f"| | {' | '.join(f'N = {num_noise}' for num_noise in lengths)} |\n|---{'|---' * len(lengths)}|", flush=True)
    fades_by_length: dict[int, dict[str, Fade]] = {num_noise: {} for num_noise in lengths}
    for cell in CELLS:
        cells = []
        for num_noise in lengths:
            runs = [_learn(cell, num_noise=num_noise, seed=seed) for seed in seeds]
            fades = sorted((fade(model, asked[:16]) for model, asked in runs), key=lambda one: one.ratio_K[num_noise])
            fades_by_length[num_noise][cell] = middle = fades[len(fades) // 2]
            accuracy = statistics.median(_accuracy(*run) for run in runs)
            cells.append(f"{accuracy:.3f} ({middle.ratio_K[num_noise]:.0e})")  # step N + 1 is the cue's own state
        print(f"| {cell} | {' | '.join(cells)} |", flush=True)
    if arguments.pictures is not None:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for num_noise, fade_by_cell in fades_by_length.items():
            (arguments.pictures / f"gradients-{num_noise}.svg").write_text(as_file(gradients(fade_by_cell)))


def sequences(count: int, *, shortest: int, longest: int, seed: int) -> list[Example]:
    """Noise lies in the features that told the cue, so that a cell has to keep the one from the other."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for index in range(count):
        symbol = index % NUM_SYMBOLS
        num_noise = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
        feature_TD = torch.zeros(num_noise + 2, NUM_SYMBOLS + 2)
        feature_TD[1:-1, :NUM_SYMBOLS] = 0.3 * torch.randn(num_noise, NUM_SYMBOLS, generator=generator)
        feature_TD[0, symbol] = feature_TD[0, CUE] = feature_TD[-1, QUESTION] = 2.0
        target_A = one_hot(symbol, num_labels=NUM_SYMBOLS)
        examples.append(Example(feature_TD, target_A, torch.full((num_noise + 2,), IGNORED)))
    return examples


def _learn(cell: str, *, num_noise: int, seed: int) -> tuple[SequenceModel, list[Example]]:
    """A trained model, and sequences that it has not seen."""
    config = ModelConfig(
        recurrent=RecurrentConfig.model_validate(
            {"cell": cell, "hidden_size": 32, "projection_size": 32, "dropout": 0.0}
        ),
        heads=HeadsConfig(action_labels=("a", "b", "c", "d"), readout="last"),
    )
    settings = FitConfig(
        epochs=NUM_EPOCHS,
        patience_epochs=NUM_EPOCHS,
        batch_size=32,
        learning_rate=1e-2,
        label_smoothing=0.0,
        weight_decay=0.0,
        seed=seed,
    )
    fitted = fit(
        sequences(NUM_LEARNT, shortest=1, longest=num_noise, seed=3 * seed),
        sequences(NUM_ASKED, shortest=num_noise, longest=num_noise, seed=3 * seed + 1),
        config=config,
        settings=settings,
        run_file=None,
        on_epoch=lambda epoch: None,
    )
    return fitted.model, sequences(NUM_ASKED, shortest=num_noise, longest=num_noise, seed=3 * seed + 2)


def _accuracy(model: SequenceModel, examples: list[Example]) -> float:
    called = [int(score.action_A.argmax()) for score in score_clips(model, examples) if score.action_A is not None]
    return statistics.fmean(c == example.action_index for c, example in zip(called, examples, strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)  # the models are small: threads cost more than they bring
    main()
