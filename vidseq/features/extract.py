"""Frames through the backbone, once: sampled clips in, columns of features out. Knows no heads and no labels.

    source -> Reader -> sample -> encoder -> motion -> feature_TD, map_TM -> FeatureStore

Shape letters: T sampled frames, D feature size, M size of a frame's maps.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vidseq.config import Config, EncoderConfig, Limits, ModelConfig, Picture, Sampling
from vidseq.encoder import Encoder
from vidseq.features.row_files import Rows, Seconds
from vidseq.features.store import FeatureStore, Recipe
from vidseq.sampling import FrameSource, sample
from vidseq.schemas import VideoReport
from vidseq.state import State
from vidseq.tally import ShareSeen
from vidseq.video import Reader

CHUNK_FRAMES = {"cpu": 16, "cuda": 256}  # as many as the encoder is fast with; nobody waits for the first label


@dataclass(frozen=True)
class Look:
    """How videos are looked at: what of a model's configuration its features follow from."""

    encoder: EncoderConfig
    picture: Picture
    sampling: Sampling

    @classmethod
    def of(cls, config: ModelConfig) -> "Look":
        return cls(config.encoder, config.picture, config.sampling)


def differing(one: Look, other: Look) -> tuple[str, object, object] | None:
    """The first setting in which two looks differ, with both values; where weights came from does not count."""
    for part in ("sampling", "picture", "encoder"):
        ours, theirs = (getattr(look, part).model_dump(exclude={"weights"}) for look in (one, other))
        for name, value in ours.items():
            if value != theirs[name]:
                return name, value, theirs[name]
    return None


class Seen(Config):
    """What a pass over a video tells besides its features: all that an answer says of the video."""

    video: VideoReport
    seen_until: float | None
    stride: int
    seen_seconds: float | None = None  # these two, if a part of what is declared could not be decoded
    declared_seconds: float | None = None

    @classmethod
    def by(cls, reader: Reader, *, stride: int) -> "Seen":
        """After its pass."""
        share = reader.share_seen()
        return cls(
            video=reader.report(),
            seen_until=reader.seen_until,
            stride=stride,
            seen_seconds=None if share is None else share.seen_seconds,
            declared_seconds=None if share is None else share.declared_seconds,
        )

    def refuse_truncated(self, limits: Limits) -> None:
        """
        Raises:
            TruncatedVideo: too little of it could be decoded for a label.
        """
        if self.seen_seconds is not None and self.declared_seconds is not None:
            ShareSeen(self.seen_seconds, self.declared_seconds).refuse_below(limits.min_share_seen)


def recipe_of(encoder: Encoder, look: Look) -> Recipe:
    """All that features follow from but for the clip; the encoder has its weights."""
    weights_sha256 = hashlib.sha256(encoder.to_bytes()).hexdigest()
    return Recipe(encoder=encoder.config, weights_sha256=weights_sha256, picture=look.picture, sampling=look.sampling)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the backbone says of the next frames: columns `feature_TD` and, with motion, `map_TM`."""

    columns: Mapping[str, Rows]
    seconds_T: Seconds
    stride: int


def encoded(
    reader: FrameSource,
    sampling: Sampling,
    encoder: Encoder,
    *,
    change: Callable[[Tensor], Tensor] = lambda pixels_THWC: pixels_THWC,
) -> Iterator[Encoded]:
    """A clip, chunk after chunk; what moved is carried from one to the next.

    Args:
        change: what is done to a chunk's pixels_THWC before the encoder sees them.

    Raises:
        VideoError: it cannot be decoded, or costs more than the reader's limits allow.
    """
    device, motion = encoder.pixel_mean.device, encoder.motion
    chunk_frames = CHUNK_FRAMES.get(device.type, CHUNK_FRAMES["cuda"])
    state: State | None = None
    for clip in sample(reader, sampling, chunk_frames=chunk_frames):
        with torch.inference_mode():
            encoded_TE = encoder(change(torch.from_numpy(clip.pixels_THWC)).to(device))
            feature_BTD, state = encoder.features(encoded_TE[None], state)
            columns: dict[str, Rows] = {"feature_TD": feature_BTD[0].cpu().numpy()}
            if motion is not None:
                columns["map_TM"] = encoded_TE[:, motion.pooled_size :].half().cpu().numpy()
        yield Encoded(columns, clip.seconds_T, clip.stride)


def keep(
    store: FeatureStore,
    recipe: Recipe,
    key: str,
    reader: FrameSource,
    encoder: Encoder,
    *,
    change: Callable[[Tensor], Tensor] = lambda pixels_THWC: pixels_THWC,
) -> None:
    """Decode a clip, encode it and keep its features under `key`, with what a Reader tells of it (`Seen`).

    The rest as `encoded`.
    """
    stride = 1

    def chunks() -> Iterator[tuple[Mapping[str, Rows], Seconds]]:
        nonlocal stride
        for chunk in encoded(reader, recipe.sampling, encoder, change=change):
            stride = chunk.stride
            yield chunk.columns, chunk.seconds_T

    def about() -> str:
        return Seen.by(reader, stride=stride).model_dump_json() if isinstance(reader, Reader) else ""

    store.write(recipe, key, chunks(), about=about)
