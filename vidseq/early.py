"""When enough of a clip has been seen to name its action. Knows nothing of models, pixels or decoders.

    score of the running action, calibrated

    score  ----------------.--------.----------
               .--.     .-'         |             hold_seconds after the last time that it rose above `score`,
            .-'    '---'   |<------>|             with the same action all the while: enough

Of a stream's scores only these decide, frame by frame, so that the chunks in which they come change nothing.

Shape letters: T frames of one chunk, A action labels.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vidseq.config import Config, ModelConfig, Seconds
from vidseq.errors import OptionError
from vidseq.schemas import EarlyExited


class EarlyExit(Config):
    """Stop once one action's score has been at least `score` for `hold_seconds` without a break."""

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
    action: int | None = None
    since_seconds: float = 0.0

    @classmethod
    def of(cls, config: ModelConfig, early_exit: EarlyExit, *, name: str) -> "Watch":
        """Before the first frame; `name` is the model's.

        Raises:
            OptionError: the model has no calibration, says several actions, says nothing before it has seen the whole
                video, or would be sure enough to stop and yet call the action unknown.
        """
        if config.recurrent.bidirectional or config.sampling.max_frames is not None:
            raise OptionError(f"{name} needs the whole video before it says anything: it cannot exit early")
        if config.heads.several:
            raise OptionError(f"{name} says several actions: none of them alone can tell when to exit early")
        if config.calibration is None or not config.heads.action_labels:
            raise OptionError(
                f"{name} is not calibrated by elapsed time, so its scores cannot tell when to exit early: "
                "train it again, with actions and with enough clips held out"
            )
        if early_exit.score < (unknown_below := config.heads.unknown_below or 0.0):
            raise OptionError(
                f"early exit at a score of {early_exit.score:g}: below {unknown_below:g} {name} calls an action unknown"
            )
        return cls(early_exit)

    def look(self, seconds_T: NDArray[np.float64], score_TA: NDArray[np.floating]) -> tuple[Enough | None, "Watch"]:
        """Whether the next T frames are enough, and the watch after them (after it was enough it is done with).

        `score_TA` are the running action's, as they are answered.
        """
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
        return None, replace(self, action=action, since_seconds=since_seconds)
