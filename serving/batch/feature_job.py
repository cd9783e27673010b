"""Features of every clip of a batch, kept in a store for the heads of later. Knows no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from serving.batch.job import Started
from serving.batch.rows import Row, feature_columns, of_features
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.encoder import Encoder, load_default_weights
from vidseq.features.extract import Look, Seen, recipe_of
from vidseq.features.extractor import Extractor
from vidseq.features.legs import Leg, encode_leg
from vidseq.features.store import FeatureStore, Kind
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader


@dataclass(frozen=True)
class FeatureJob:
    """Features, kept in a store for the heads of later.

    Args:
        look: backbone, picture and sampling.
        model: the folder of one with this look, whose backbone may have been trained; None is the default weights.
        kind: how features are kept; see FeatureStore.
    """

    look: Look
    model: Path | None
    trusted_keys: tuple[Path, ...] | None
    store: Path
    kind: Kind | None
    limits: Limits

    @property
    def columns(self) -> pa.Schema:
        return feature_columns()

    @property
    def constants(self) -> Sequence[Row]:
        return [{}]

    def asked(self) -> dict[str, Any]:
        return {
            "recipe": recipe_of(self._encoder(), self.look).id,
            "store": str(self.store),
            "features": self.kind,
            "limits": self.limits.model_dump(),
        }

    def start(self, device: str) -> Started:
        return _Encoding(self, self._encoder().to(device))

    def _encoder(self) -> Encoder:
        if self.model is not None:
            return load_checkpoint(self.model, trusted_keys=self.trusted_keys).model.encoder
        encoder = Encoder(self.look.encoder)
        load_default_weights(encoder)
        return encoder


class _Encoding:
    def __init__(self, job: FeatureJob, encoder: Encoder) -> None:
        self._job, self._encoder, self._sandbox = job, encoder, Sandbox()
        store = FeatureStore(job.store, kind=job.kind)
        self._extract = Extractor(encoder, job.look, store=store, limits=job.limits, sandbox=self._sandbox)

    def rows(self, path: str, sha256: str) -> list[Row]:
        features = self._extract(path, key=sha256)
        seen = Seen.model_validate_json(features.about)
        seen.refuse_truncated(self._job.limits)
        return [of_features(features, seen.video)]

    def encode_leg(self, path: str, sha256: str, leg: Leg, out: Path) -> None:
        if self._extract.has(sha256):
            return
        picture, limits = self._job.look.picture, self._job.limits
        with Reader(path, picture=picture, limits=limits, sandbox=self._sandbox) as reader:
            encode_leg(reader, self._job.look, self._encoder, leg, out)

    def rows_of_legs(self, legs: Sequence[Path], sha256: str) -> list[Row] | None:
        return self.rows("", sha256) if self._extract.keep_legs(legs, key=sha256) else None
