"""The sampled frames of a video, one by one, as the doors ask for them. Knows neither HTTP nor models."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving import parts
from vidseq.config import Limits, Picture, Sampling
from vidseq.container import Source
from vidseq.incoming import Incoming
from vidseq.sampling import Clip, Clock, sample
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import VideoReport
from vidseq.video import Reader


@dataclass(frozen=True, eq=False)
class Seen:
    """The Seen of serving.parts."""

    clip: Clip | None
    video: VideoReport
    seen_until: float | None = None
    born_seconds: float = field(default_factory=time.perf_counter)

    def joined(self, following: Sequence[parts.Seen]) -> parts.Seen:
        if not following:
            return self
        clips = [seen.clip for seen in (self, *following) if seen.clip is not None]
        pixels_THWC = np.concatenate([clip.pixels_THWC for clip in clips])
        clip = Clip(pixels_THWC, np.concatenate([clip.seconds_T for clip in clips]), clock=clips[-1].clock)
        return Seen(clip, following[-1].video, born_seconds=self.born_seconds)


def decode(
    video: Source | Incoming,
    *,
    sampling: Sampling,
    clock: Clock | None,
    picture: Picture,
    limits: Limits,
    sandbox: Sandbox | None = None,
) -> Generator[Seen, None, None]:
    """The Decode of serving.parts, once `picture`, `limits` and `sandbox` are given."""
    with Reader(video, picture=picture, limits=limits, sandbox=sandbox) as reader:
        for clip in sample(reader, sampling, clock=clock, chunk_frames=1):
            yield Seen(clip, reader.report())
        reader.refuse_truncated(start_seconds=sampling.start_seconds, end_seconds=sampling.end_seconds)
        yield Seen(None, reader.report(), reader.seen_until)
