"""When enough of a clip has been seen to name its action. Knows nothing of models, pixels or decoders.

    calibrated score of the running action

    score  ----------------.--------.----------
               .--.     .-'         |             hold_seconds after the last time that it rose above `score`,
            .-'    '---'   |<------>|             with the same action all the while: enough

Of a stream's logits only these decide, frame by frame, so that the chunks in which they come change nothing.

Shape letters: T frames of one chunk, A action labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vidseq.config import Calibration, Config, ModelConfig, Seconds
from vidseq.errors import OptionError
from vidseq.schemas import EarlyExited

Floats = NDArray[np.float64]


class EarlyExit(Config):
    """Stop once one action's calibrated score has been at least `score` for `hold_seconds` without a break."""

    score: Annotated[float, Field(gt=0.5, le=1)]
    hold_seconds: Seconds = 1.0


@dataclass(frozen=True)
class Enough:
    """So many frames of the last chunk are needed, and what is to be said of it."""

    num_frames: int
    exited: EarlyExited


@dataclass(frozen=True)
class Watch:
    """What is remembered of one clip between two chunks: a value. `action` has been sure since `since_seconds`."""

    early_exit: EarlyExit
    calibration: Calibration
    first_seconds: float | None = None
    action: int | None = None
    since_seconds: float = 0.0

    @classmethod
    def of(cls, config: ModelConfig, early_exit: EarlyExit, *, name: str) -> "Watch":
        """Before the first frame; `name` is the model's.

        Raises:
            OptionError: the model has no calibration, or says nothing before it has seen the whole video.
        """
        if config.recurrent.bidirectional or config.sampling.max_frames is not None:
            raise OptionError(f"{name} needs the whole video before it says anything: it cannot exit early")
        if config.calibration is None or not config.heads.action_labels:
            raise OptionError(
                f"{name} is not calibrated by elapsed time, so its scores cannot tell when to exit early: "
                "train it again, with actions and with enough clips held out"
            )
        return cls(early_exit, config.calibration)

    def look(self, seconds_T: Floats, action_logits_TA: Floats) -> tuple[Enough | None, "Watch"]:
        """Whether the next T frames are enough, and the watch after them (after it was enough it is done with)."""
        first_seconds = float(seconds_T[0]) if self.first_seconds is None else self.first_seconds
        score_TA = calibrated(action_logits_TA, seconds_T - first_seconds, self.calibration)
        action, since_seconds = self.action, self.since_seconds
        rows = zip(seconds_T.tolist(), score_TA.argmax(axis=1).tolist(), score_TA.max(axis=1).tolist(), strict=True)
        for frame, (seconds, best, score) in enumerate(rows):
            if score < self.early_exit.score:
                action = None
                continue
            if best != action:
                action, since_seconds = best, seconds
            if seconds - since_seconds >= self.early_exit.hold_seconds:
                return Enough(frame + 1, EarlyExited(seconds=seconds, score=score)), self
        return None, replace(self, first_seconds=first_seconds, action=action, since_seconds=since_seconds)


def calibrated(action_logits_TA: Floats, elapsed_T: Floats, calibration: Calibration) -> Floats:
    """Probabilities of the running action; `elapsed_T` are seconds since the first sampled frame of the clip."""
    temperature_T = np.array(calibration.temperatures)[stretch_of(elapsed_T, calibration.elapsed_seconds)]
    logits_TA = action_logits_TA / temperature_T[:, None]
    odds_TA = np.exp(logits_TA - logits_TA.max(axis=1, keepdims=True))
    probability_TA: Floats = odds_TA / odds_TA.sum(axis=1, keepdims=True)
    return probability_TA


def stretch_of(elapsed_T: Floats, starts: Sequence[float]) -> NDArray[np.int64]:
    """In which stretch of time each frame lies: stretch i lasts from `starts[i]` up to the next start."""
    return np.searchsorted(np.array(starts), elapsed_T, side="right") - 1
