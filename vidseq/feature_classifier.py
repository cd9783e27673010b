"""Heads on features that are there already: no video, no backbone. Knows nothing of where features come from.

features -> recurrence, heads -> Scores -> Collected -> Prediction

Shape letters: B streams, T frames, D feature size.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vidseq.answers import Collected
from vidseq.checkpoint import Checkpoint
from vidseq.config import Limits
from vidseq.features.extract import Seen
from vidseq.features.store import ClipFeatures
from vidseq.runner import Done
from vidseq.schemas import Prediction
from vidseq.state import State

Features = NDArray[np.float32] | NDArray[np.float16]

_CHUNK_FRAMES = 4096  # what lies in memory at once of a video of any length


@dataclass(frozen=True, eq=False)
class _Frames:
    """What an answer needs to know of frames."""

    seconds_T: NDArray[np.float64]
    stride: int

    def __len__(self) -> int:
        return len(self.seconds_T)


class FeatureClassifier:
    """What a Classifier says of a video, from its features; threads may share it.

    Args:
        checkpoint: what `load_checkpoint` read. Features must be of its own encoder, picture and sampling.
        limits: of these, how much of a video must be seen for a label.
    """

    def __init__(self, checkpoint: Checkpoint, *, limits: Limits) -> None:
        self.checkpoint, self.limits = checkpoint, limits

    def classify(self, features: ClipFeatures, *, top_k: int = 5) -> Prediction:
        """What the video is, and the label of every sampled frame; `features.about` is a `Seen`, as an Extractor keeps.

        Raises:
            TruncatedVideo: too little of it could be decoded, when that was done.
        """
        seen = Seen.model_validate_json(features.about)
        answer = self.start()
        for first in range(0, len(features.seconds_T), _CHUNK_FRAMES):
            part = slice(first, first + _CHUNK_FRAMES)
            answer.add(features.feature_TD[part], features.seconds_T[part], stride=seen.stride)
        return answer.end(seen, top_k=top_k)

    def start(self) -> "FeatureAnswer":
        """Of a video whose features come chunk by chunk."""
        return FeatureAnswer(self)


class FeatureAnswer:
    """What has been said so far of one video. A bidirectional model waits for its end, and holds all features."""

    def __init__(self, classifier: FeatureClassifier) -> None:
        self._checkpoint, self._limits = classifier.checkpoint, classifier.limits
        self._model = self._checkpoint.model.sequence
        self._device = next(self._model.parameters()).device
        self._collected = Collected(self._checkpoint.config)
        self._state: State | None = None
        self._held: list[tuple[Features, NDArray[np.float64]]] = []

    def add(self, feature_TD: Features, seconds_T: NDArray[np.float64], *, stride: int) -> None:
        """The next frames."""
        if self._checkpoint.config.recurrent.bidirectional:
            self._held.append((feature_TD, seconds_T))
        else:
            self._advance(feature_TD, _Frames(seconds_T, stride))

    def end(self, seen: Seen, *, top_k: int = 5) -> Prediction:
        """
        Raises:
            TruncatedVideo: too little of it could be decoded.
        """
        seen.refuse_truncated(self._limits)
        if self._held:
            features, seconds = zip(*self._held, strict=True)
            self._advance(np.concatenate(features), _Frames(np.concatenate(seconds), seen.stride))
        return self._collected.prediction(
            report=seen.video,
            seen_until=seen.seen_until,
            info=self._checkpoint.info,
            sampling=self._checkpoint.config.sampling,
            top_k=top_k,
        )

    @torch.inference_mode()
    def _advance(self, feature_TD: Features, frames: _Frames) -> None:
        begun = time.perf_counter()
        feature_BTD = torch.from_numpy(feature_TD)[None].to(self._device).float()
        scores, state = self._model(feature_BTD, self._state)
        scores, self._state = scores.to("cpu"), state
        took_ms = 1000 * (time.perf_counter() - begun)
        self._collected.add(frames, Done(scores, state, queued_ms=0.0, encode_ms=0.0, recur_ms=took_ms))
