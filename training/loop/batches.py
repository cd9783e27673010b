"""Which clips are learnt from together, and how they are shown: order, windows, mixing. Knows nothing of models.

    examples -> stretches -> shuffled or drawn -> batches -> seen anew, changed in time -> laid over each other -> rows

All chance comes from one generator, so that the same seed gives the same batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from training.data.augment import augmented
from training.data.example import Example
from training.loop.balance import drawing_shares
from training.loop.crew import ALONE, Crew
from training.settings import FitConfig

T = TypeVar("T")

WINDOWS_AT_ONCE = 4  # each frame of a video lies in so many of an epoch's windows


@dataclass(frozen=True, eq=False)
class Part:
    """A clip from its frame `first` on, and the share that it has of what is seen and of what is to be said."""

    example: Example
    share: float = 1.0
    first: int = 0


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a batch: a clip, or two that are laid over each other for as long as both last."""

    parts: tuple[Part, ...]

    @property
    def num_frames(self) -> int:
        return min(part.example.num_frames - part.first for part in self.parts)


@dataclass(frozen=True)
class _Stretch:
    """Frames `start` up to `stop` of example number `index`."""

    index: int
    start: int
    stop: int


def learning_batches(
    examples: Sequence[Example], settings: FitConfig, *, chance: np.random.Generator, crew: Crew = ALONE
) -> Iterator[list[Row]]:
    """The batches of one epoch, of each what falls to this worker: at least one row, perhaps without labels."""
    stretches = [
        stretch for index, example in enumerate(examples) for stretch in _stretches(index, example, settings, chance)
    ]
    for chosen in _in_batches(_drawn(stretches, examples, settings, chance), settings.batch_size):
        shown = [
            augmented(examples[s.index].drawn(chance).cut(s.start, s.stop), settings.augment_time, chance=chance)
            for s in crew.share(chosen)
        ] or [examples[chosen[0].index].unlabelled()]
        yield _mixed(shown, settings, chance) if settings.mixup else _alone(shown)


def measuring_batches(examples: Sequence[Example], *, batch_size: int) -> Iterator[list[Row]]:
    """Every clip once, as it is, in their order."""
    for chosen in _in_batches(examples, batch_size):
        yield _alone(chosen)


def count_batches(examples: Sequence[Example], settings: FitConfig) -> int:
    """How many batches an epoch has: always the same number."""
    num_stretches = len(examples)
    if settings.long == "window":
        num_stretches = sum(-(-example.num_frames // _stride(settings)) for example in examples)
    return -(-num_stretches // settings.batch_size)


def _stretches(index: int, example: Example, settings: FitConfig, chance: np.random.Generator) -> Iterator[_Stretch]:
    """The whole clip; or windows that end at every so many frames, from another frame on each time."""
    if settings.long != "window":
        yield _Stretch(index, 0, example.num_frames)
        return
    stride = _stride(settings)
    phase = int(chance.integers(1, stride, endpoint=True))
    for before in range(0, example.num_frames, stride):
        stop = min(before + phase, example.num_frames)
        yield _Stretch(index, max(0, stop - settings.chunk_frames), stop)


def _stride(settings: FitConfig) -> int:
    return max(1, settings.chunk_frames // WINDOWS_AT_ONCE)


def _drawn(
    stretches: Sequence[_Stretch], examples: Sequence[Example], settings: FitConfig, chance: np.random.Generator
) -> list[_Stretch]:
    """As many as there are: each once, or by its action."""
    count = len(stretches)
    if settings.class_balance != "sampling":
        return [stretches[index] for index in chance.permutation(count)]
    share_N = drawing_shares(np.array([examples[stretch.index].action_index for stretch in stretches]))
    return [stretches[index] for index in chance.choice(count, size=count, p=share_N)]


def _alone(examples: Sequence[Example]) -> list[Row]:
    return [Row((Part(example),)) for example in examples]


def _mixed(examples: Sequence[Example], settings: FitConfig, chance: np.random.Generator) -> list[Row]:
    """Each clip under another one of the batch. Windows, whose last frame is what counts, are laid end to end."""
    partners = [examples[index] for index in chance.permutation(len(examples))]
    rows = []
    for example, partner in zip(examples, partners, strict=True):
        share = float(chance.beta(settings.mixup, settings.mixup))
        num_frames = min(example.num_frames, partner.num_frames)
        firsts = [one.num_frames - num_frames if settings.long == "window" else 0 for one in (example, partner)]
        rows.append(Row((Part(example, share, firsts[0]), Part(partner, 1 - share, firsts[1]))))
    return rows


def _in_batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
