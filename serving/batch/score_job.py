"""Labels for every clip of a batch, by one model or by several that share a look at it. Knows no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from serving.batch.job import Started
from serving.batch.rows import Row, answered, columns, of_model
from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.engine import Engine
from vidseq.feature_classifier import FeatureAnswer, FeatureClassifier
from vidseq.features.extract import Encoded, Look, Seen, encoded
from vidseq.features.extractor import Extractor
from vidseq.features.legs import Leg, encode_leg, read_legs
from vidseq.features.store import FeatureStore
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import ModelInfo, Prediction
from vidseq.video import Reader


@dataclass(frozen=True)
class ScoreJob:
    """Labels. With `features` they are read from a store where they are there, and kept where they are not.

    Args:
        models: folders, from which every worker reads them. Several share one look at each clip: one decoder, one pass
            of the backbone, and then the heads of each.
        trusted_keys: who must have signed them; None asks for no signature.
    """

    models: tuple[Path, ...]
    trusted_keys: tuple[Path, ...] | None
    infos: tuple[ModelInfo, ...]
    top_k: int
    frames: bool
    limits: Limits
    features: Path | None = None

    @property
    def columns(self) -> pa.Schema:
        return columns(frames=self.frames)

    @property
    def constants(self) -> Sequence[Row]:
        return [of_model(info) for info in self.infos]

    def asked(self) -> dict[str, Any]:
        return {
            "models": [info.model_dump(include={"name", "version", "sha256"}) for info in self.infos],
            "top_k": self.top_k,
            "frames": self.frames,
            "features": None if self.features is None else FeatureStore(self.features).kind,
            "limits": self.limits.model_dump(),
        }

    def start(self, device: str) -> Started:
        checkpoints = [load_checkpoint(model, trusted_keys=self.trusted_keys) for model in self.models]
        for checkpoint in checkpoints:
            checkpoint.model.to(device)
        if self.features is not None:
            return _OfFeatures(self, checkpoints, FeatureStore(self.features))
        return _OfOne(self, checkpoints) if len(checkpoints) == 1 else _OfSeveral(self, checkpoints)


class _OfSeveral:
    """Several models on one look: the heads of each go on with their own states, chunk by chunk."""

    def __init__(self, job: ScoreJob, checkpoints: Sequence[Checkpoint]) -> None:
        self._job, self._encoder, self._look = job, checkpoints[0].model.encoder, Look.of(checkpoints[0].config)
        self._sandbox = Sandbox()
        self._classifiers = [FeatureClassifier(checkpoint, limits=job.limits) for checkpoint in checkpoints]

    def rows(self, path: str, sha256: str) -> list[Row]:
        answers, stride = self._started(), 1
        with self._reader(path) as reader:
            for chunk in encoded(reader, self._look.sampling, self._encoder):
                stride = chunk.stride
                self._add(answers, chunk)
            seen = Seen.by(reader, stride=stride)
        return self._ended(answers, seen)

    def encode_leg(self, path: str, sha256: str, leg: Leg, out: Path) -> None:
        with self._reader(path) as reader:
            encode_leg(reader, self._look, self._encoder, leg, out)

    def rows_of_legs(self, legs: Sequence[Path], sha256: str) -> list[Row] | None:
        found = read_legs(legs, moving=self._encoder.motion is not None)
        if found is None:
            return None
        answers, (chunks, seen) = self._started(), found
        for chunk in chunks:
            self._add(answers, chunk)
        return self._ended(answers, seen)

    def _reader(self, path: str) -> Reader:
        return Reader(path, picture=self._look.picture, limits=self._job.limits, sandbox=self._sandbox)

    def _started(self) -> list[FeatureAnswer]:
        return [classifier.start() for classifier in self._classifiers]

    def _add(self, answers: Sequence[FeatureAnswer], chunk: Encoded) -> None:
        for answer in answers:
            answer.add(chunk.columns["feature_TD"], chunk.seconds_T, stride=chunk.stride)

    def _ended(self, answers: Sequence[FeatureAnswer], seen: Seen) -> list[Row]:
        return [self._row(answer.end(seen, top_k=self._job.top_k)) for answer in answers]

    def _row(self, prediction: Prediction) -> Row:
        return answered(prediction, frames=self._job.frames)


class _OfOne(_OfSeveral):
    """One model: on a GPU the frames of several clips share its batches."""

    def __init__(self, job: ScoreJob, checkpoints: Sequence[Checkpoint]) -> None:
        super().__init__(job, checkpoints)
        (checkpoint,) = checkpoints
        compute = Engine(checkpoint.model).submit
        self._classifier = Classifier(checkpoint, compute=compute, limits=job.limits, sandbox=self._sandbox)

    def rows(self, path: str, sha256: str) -> list[Row]:
        return [self._row(self._classifier.classify(path, top_k=self._job.top_k))]


class _OfFeatures(_OfSeveral):
    """One or several, on features from a store."""

    def __init__(self, job: ScoreJob, checkpoints: Sequence[Checkpoint], store: FeatureStore) -> None:
        super().__init__(job, checkpoints)
        self._extract = Extractor(self._encoder, self._look, store=store, limits=job.limits, sandbox=self._sandbox)

    def rows(self, path: str, sha256: str) -> list[Row]:
        features = self._extract(path, key=sha256)
        return [self._row(c.classify(features, top_k=self._job.top_k)) for c in self._classifiers]

    def encode_leg(self, path: str, sha256: str, leg: Leg, out: Path) -> None:
        if not self._extract.has(sha256):
            super().encode_leg(path, sha256, leg, out)

    def rows_of_legs(self, legs: Sequence[Path], sha256: str) -> list[Row] | None:
        if not self._extract.keep_legs(legs, key=sha256):
            return None
        return self.rows("", sha256)
