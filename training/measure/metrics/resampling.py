"""Intervals, and tests in pairs, by drawing whole groups of clips again. Knows nothing of what is measured.

Clips of one recording or one person are no independent witnesses: groups are drawn, not clips, and never frames.

A figure is a function of how often each clip counts. It gets weight_RN, N clips in each of R draws, and answers for all
draws at once: most figures follow from sums over clips, and `weight_RN @ counts_NC` is all of these in one product. The
figure itself is what the same function says of weights of 1.

Shape letters: R draws, G groups, N clips, M = 2 N clips of two models, K labels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Interval = tuple[float, float]
Figures = Callable[[Floats], Mapping[str, Floats]]  # weight_RN -> by name: value_R, or value_RK of each label

NUM_DRAWS = 2000
_BLOCK = 2**22  # weights that are held at once: 32 MB


@dataclass(frozen=True)
class Difference:
    """One model's figure minus another's; without an interval where there is one group alone."""

    value: float
    interval: Interval | None
    p: float | None


class Resampling:
    """The draws for clips of these groups: the same for every figure, so that figures can be compared."""

    def __init__(self, groups: Sequence[str], *, num_draws: int = NUM_DRAWS, seed: int = 0) -> None:
        names, self.group_N = np.unique(np.array(groups), return_inverse=True)
        self.num_draws, self.num_groups, self._seed = num_draws, len(names), seed

    def intervals(self, figures: Figures) -> dict[str, Floats]:
        """[2] or [2, K] of each figure: 2.5 % of the draws lie below the first, 2.5 % above the second.

        A draw in which a figure cannot be measured, as the recall of a label that it lacks, is left out for that
        figure. NaN where none is left, and everywhere where there is one group alone: that says nothing of others.
        """
        draws = [figures(weight_RN) for weight_RN in self._drawn()]
        values = {name: np.concatenate([draw[name] for draw in draws]) for name in draws[0]}
        if self.num_groups == 1:
            return {name: np.full((2, *value_R.shape[1:]), np.nan) for name, value_R in values.items()}
        return {name: _middle(value_R) for name, value_R in values.items()}

    def difference(self, figure: Callable[[Floats], Floats]) -> Difference:
        """How much larger `figure` is for the first model than for the second.

        `figure` gets weight_RM of the first model's N clips and then the second's. The interval comes from drawing
        groups, both models' clips together. `p` comes from another lot: on each group the two models are swapped or
        not, and it is the share of lots whose difference is as large as this one, whichever its sign (this one counts
        as a lot, so that p is never 0).
        """

        def minus(ours_RN: Floats, theirs_RN: Floats) -> Floats:
            first_RM, second_RM = np.hstack([ours_RN, theirs_RN]), np.hstack([theirs_RN, ours_RN])
            return figure(first_RM) - figure(second_RM)

        one_1N = np.ones((1, len(self.group_N)))
        value = float(minus(one_1N, 0 * one_1N)[0])
        if self.num_groups == 1:
            return Difference(value, None, None)
        drawn_R = np.concatenate([minus(weight_RN, 0 * weight_RN) for weight_RN in self._drawn()])
        swapped_R = np.concatenate([minus(1 - swap_RN, swap_RN) for swap_RN in self._swaps()])
        as_large = np.abs(swapped_R) >= abs(value) - 1e-12
        return Difference(value, as_interval(_middle(drawn_R)), float((1 + as_large.sum()) / (1 + self.num_draws)))

    def _drawn(self) -> Iterator[Floats]:
        """weight_RN of as many groups as there are, drawn with replacement, block by block."""
        generator = np.random.default_rng(self._seed)
        for num_draws in self._blocks():
            drawn = generator.integers(self.num_groups, size=(num_draws, self.num_groups))
            row = np.arange(num_draws)[:, None] * self.num_groups
            count_RG = np.bincount((row + drawn).ravel(), minlength=num_draws * self.num_groups)
            yield count_RG.reshape(num_draws, self.num_groups).astype(np.float64)[:, self.group_N]

    def _swaps(self) -> Iterator[Floats]:
        """1 where the two models are swapped, for all clips of a group alike, else 0."""
        generator = np.random.default_rng(self._seed)
        for num_draws in self._blocks():
            swap_RG = generator.integers(2, size=(num_draws, self.num_groups)).astype(np.float64)
            yield swap_RG[:, self.group_N]

    def _blocks(self) -> Iterator[int]:
        size = max(1, _BLOCK // max(len(self.group_N), 1))
        for start in range(0, self.num_draws, size):
            yield min(size, self.num_draws - start)


def measured(figures: Figures, *, num_clips: int) -> dict[str, Floats]:
    """The figures themselves, each clip counted once: a number, or [K]."""
    return {name: value_1[0] for name, value_1 in figures(np.ones((1, num_clips))).items()}


def as_interval(ends_2: Floats) -> Interval | None:
    """None where there is none."""
    return None if np.isnan(ends_2).any() else (float(ends_2[0]), float(ends_2[1]))


def intervals_of(ends: Mapping[str, Floats]) -> dict[str, Interval]:
    """Those that there are, of figures that are one number."""
    found = {name: as_interval(ends_2) for name, ends_2 in ends.items() if ends_2.ndim == 1}
    return {name: interval for name, interval in found.items() if interval is not None}


def mean_of(**values: Floats) -> Figures:
    """The figures that are means over clips: of each name, value_N."""
    value_NF = np.stack(list(values.values()), axis=1)

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        mean_RF = (weight_RN @ value_NF) / weight_RN.sum(axis=1, keepdims=True)
        return dict(zip(values, mean_RF.T, strict=True))

    return figures


def _middle(value_R: Floats) -> Floats:
    """[2] or [2, K]: between which 95 % of the draws lie, of those that are numbers."""
    if value_R.ndim == 1:
        known_R = value_R[~np.isnan(value_R)]
        return np.percentile(known_R, [2.5, 97.5]) if len(known_R) else np.full(2, np.nan)
    return np.stack([_middle(column_R) for column_R in value_R.T], axis=1)
