"""From an action's logits to its score and its name: which actions are said, and how sure. Knows no models or frames.

    logits  / temperature of the time that has elapsed  ->  softmax  ->  the best, unless below `unknown_below`
                                                            sigmoid  ->  each from its own threshold on (several)

Shape letters: T frames of one chunk, A action labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidseq.config import Calibration, HeadsConfig
from vidseq.schemas import Scored

Probabilities = NDArray[np.float32]
DEFAULT_THRESHOLD = 0.5  # of each action of a model that says several and was not tuned


def probabilities(logits_TA: Tensor, *, several: bool, temperature_T: Tensor | None = None) -> Tensor:
    """Scores from 0 to 1 in the type of the logits: of one action (they sum to 1), or of each for itself.

    Any dimensions may stand before T. `temperature_T` are those of `temperatures_at`; None leaves logits as they are.
    """
    if temperature_T is not None:
        logits_TA = logits_TA / temperature_T.to(logits_TA)[:, None]
    return logits_TA.sigmoid() if several else logits_TA.softmax(dim=-1)


def temperatures_at(elapsed_T: NDArray[np.float64], calibration: Calibration) -> Tensor:
    """temperature_T, float64; `elapsed_T` are seconds since the first sampled frame of the clip."""
    return torch.from_numpy(np.array(calibration.temperatures)[stretch_of(elapsed_T, calibration.elapsed_seconds)])


def stretch_of(elapsed_T: NDArray[np.float64], starts: Sequence[float]) -> NDArray[np.int64]:
    """In which stretch of time each frame lies: stretch i lasts from `starts[i]` up to the next start."""
    return np.searchsorted(np.array(starts), elapsed_T, side="right") - 1


@dataclass(frozen=True, eq=False)
class Naming:
    """How one model's action scores become names: an action is said from `threshold_A` on."""

    labels: tuple[str, ...]
    several: bool
    threshold_A: Probabilities

    @classmethod
    def of(cls, heads: HeadsConfig) -> "Naming":
        if heads.several:
            thresholds = heads.thresholds or [DEFAULT_THRESHOLD] * len(heads.action_labels)
        else:
            thresholds = [heads.unknown_below or 0.0] * len(heads.action_labels)
        return cls(heads.action_labels, heads.several, np.array(thresholds, np.float32))

    def ranked(self, score_A: Probabilities) -> tuple[Scored, ...]:
        """Every action with its score, the best first; equals in the order of the labels."""
        return tuple(self._scored(score_A, index) for index in _best_first(score_A))

    def actions(self, score_A: Probabilities) -> tuple[Scored, ...]:
        """Those that are said, the best first: at most one unless the model says several; none is unknown, or none."""
        candidates = _best_first(score_A) if self.several else [int(score_A.argmax())]
        return tuple(self._scored(score_A, index) for index in candidates if score_A[index] >= self.threshold_A[index])

    def _scored(self, score_A: Probabilities, index: int) -> Scored:
        return Scored(label=self.labels[index], score=float(score_A[index]))


def _best_first(score_A: Probabilities) -> list[int]:
    """Indices of the actions; equals stay in order."""
    indices: list[int] = np.argsort(-score_A, kind="stable").tolist()
    return indices
