"""Videos in, features out, each video decoded at most once. Knows no heads and no labels."""

from collections.abc import Sequence
from pathlib import Path

from vidseq.config import Limits
from vidseq.container import Source
from vidseq.encoder import Encoder
from vidseq.features.extract import Look, keep, recipe_of
from vidseq.features.legs import read_legs
from vidseq.features.store import ClipFeatures, FeatureStore
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader


class Extractor:
    """A backbone with a store.

    Args:
        encoder: with its weights loaded, on its device; threads may share it.
        look: that of the models which the features are for.
        store: where they are kept.
        limits: what one video may cost.
        sandbox: where videos are decoded; None is this process, for videos that nobody has made to harm it.
    """

    def __init__(
        self,
        encoder: Encoder,
        look: Look,
        *,
        store: FeatureStore,
        limits: Limits = Limits(),
        sandbox: Sandbox | None = None,
    ) -> None:
        self._encoder, self._picture = encoder, look.picture
        self._store, self._limits, self._sandbox = store, limits, sandbox
        self.recipe = recipe_of(encoder, look)

    def __call__(self, source: Source, *, key: str) -> ClipFeatures:
        """The features of a video, from the store if they are there; `about` is a `Seen` as JSON.

        Args:
            key: the SHA-256 of its bytes, in hexadecimal.

        Raises:
            VideoError: it cannot be decoded, or costs more than the limits allow.
            SourceNotFound: the path is wrong.
            SandboxError: no process can be had to decode it in.
        """
        found = self._store.read(self.recipe, key)
        if found is None:
            with Reader(source, picture=self._picture, limits=self._limits, sandbox=self._sandbox) as reader:
                keep(self._store, self.recipe, key, reader, self._encoder)
            found = self._store.read(self.recipe, key)
        assert found is not None, f"what was just kept of {key} is gone or damaged"
        return found

    def has(self, key: str) -> bool:
        """Whether something is kept of a video, so that it need not be decoded."""
        return self._store.has(self.recipe, key)

    def keep_legs(self, legs: Sequence[Path], *, key: str) -> bool:
        """Keep a video that was encoded in legs; False: they are not whole."""
        found = read_legs(legs, moving=self._encoder.motion is not None)
        if found is None:
            return False
        chunks, seen = found
        columns = ((chunk.columns, chunk.seconds_T) for chunk in chunks)
        self._store.write(self.recipe, key, columns, about=seen.model_dump_json)
        return True
