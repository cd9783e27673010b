"""Scores made by hand, for clips whose features nobody looks at: what is said and what is true, a letter a clip."""

from pathlib import Path

import numpy as np

from training.data.clips import LabelledClip, LabelledSegment
from training.data.dataset import Dataset
from training.measure.scores import ClipScores
from vidseq.config import HeadsConfig, ModelConfig
from vidseq.features.store import ClipFeatures

ACTIONS, FRAMES = ("a", "b", "c"), ("still", "x", "y")
FRAMES_PER_SECOND = 2
CONFIG = ModelConfig(heads=HeadsConfig(action_labels=ACTIONS, frame_labels=FRAMES, background="still"))


def dataset(truth: str, *, frames: str = "..xxyy", groups: str | None = None) -> Dataset:
    """A clip for each letter of `truth`, `?` without an action; `frames` are the frame labels of all, `.` is still."""
    seconds_T = np.arange(len(frames)) / FRAMES_PER_SECOND
    segments = tuple(
        LabelledSegment(start, start + 1 / FRAMES_PER_SECOND, "still" if sign == "." else sign)
        for start, sign in zip(seconds_T.tolist(), frames, strict=True)
    )
    clips = tuple(
        LabelledClip(
            Path(f"{number}.mp4"),
            None if letter == "?" else letter,
            group=None if groups is None else groups[number],
            split=None,
            segments=segments,
        )
        for number, letter in enumerate(truth)
    )
    features = tuple(ClipFeatures(np.zeros((len(frames), 2), np.float32), seconds_T) for _ in truth)
    return Dataset(clips, features, ACTIONS, frame_labels=FRAMES, background="still", failed=())


def scores(called: str, *, frames: str = "..xxyy", sureness: float = 3.0) -> list[ClipScores]:
    """A letter a clip, which its running action says from the first frame on, its logit `sureness` above the others."""
    return [_scores(ACTIONS.index(letter), frames, sureness) for letter in called]


def _scores(action: int, frames: str, sureness: float) -> ClipScores:
    logits_A = sureness * np.eye(len(ACTIONS))[action]
    frame_TL = np.eye(len(FRAMES))[[FRAMES.index("still" if sign == "." else sign) for sign in frames]]
    return ClipScores(
        action_A=np.exp(logits_A) / np.exp(logits_A).sum(),
        action_logits_TA=np.tile(logits_A, (len(frames), 1)).astype(np.float32),
        frame_TL=0.8 * frame_TL + 0.1 * (1 - frame_TL),
    )
