"""The whole path on one page: bytes in, a Prediction out, or a stream of labels. Knows nothing of HTTP or Ray.

source -> Reader -> sample -> Clip -> compute (encoder, recurrence, heads) -> Scores -> Collected -> Prediction

model = Classifier.load("model")
print(model.classify("clip.mp4").action)
for moment in model.stream("clip.mp4"): ...
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from vidseq.answers import Collected
from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.config import Limits, ModelConfig, Sampling, first_mistake
from vidseq.container import Source
from vidseq.early import EarlyExit, Watch
from vidseq.engine import Compute, Done, Runner, Work, direct
from vidseq.errors import OfflineOnly, OptionError
from vidseq.labelling import Labelling
from vidseq.sampling import Clip, sample
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import ModelInfo, Moment, Prediction
from vidseq.video import Reader

CHUNK_FRAMES = 16
# With early exit: a chunk is computed whole, an Engine's next one decoded meanwhile, and what lies behind the exit was
# for nothing. On a CPU a frame costs the same in chunks of 4 as of 16.
WATCHED_CHUNK_FRAMES = 4


class Classifier:
    """A model that is ready to be asked. It keeps nothing of a video once it has answered; threads may share it.

    Args:
        checkpoint: what `load_checkpoint` read.
        compute: how chunks are advanced: `direct(model)` in the caller's thread, or an Engine's `submit`.
        limits: what one video may cost.
        sandbox: where videos are decoded; None is this process, for videos that nobody has made to harm it.
        check: is called while a video is decoded, as Reader says, and ends it with what it raises.
        also: for `classify_each`: other models that share the encoder and the way to look at videos (a Look); `compute`
            is asked for their scores, too.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        compute: Compute,
        limits: Limits,
        sandbox: Sandbox | None = None,
        check: Callable[[], None] | None = None,
        also: Mapping[Runner, Checkpoint] | None = None,
    ) -> None:
        self.config: ModelConfig = checkpoint.config
        self.info: ModelInfo = checkpoint.info
        self._also = also or {}
        self._compute = compute
        self._limits = limits
        self._sandbox = sandbox
        self._check = check

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        device: str = "cpu",
        limits: Limits | None = None,
        sandbox: Sandbox | None = None,
        trusted_keys: Sequence[Path] | None = None,
    ) -> "Classifier":
        """A classifier that computes in the caller's thread.

        With `trusted_keys`, files of public keys, a model is used only if one of them has signed it (`vidseq sign`).

        Raises:
            CheckpointError: `path` is not a model, is damaged, is of another version, or is not signed.
            OptionError: one of `trusted_keys` is not a public key.
        """
        checkpoint = load_checkpoint(Path(path), name=name, trusted_keys=trusted_keys)
        compute = direct(checkpoint.model.to(device))
        return cls(checkpoint, compute=compute, limits=limits or Limits(), sandbox=sandbox)

    def classify(
        self,
        source: Source,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        top_k: int = 5,
        early_exit: EarlyExit | None = None,
    ) -> Prediction:
        """What this clip is, and the label of every sampled frame in [start_seconds, end_seconds).

        With `early_exit` decoding stops once the action is sure enough; the frame that made it so is the answer's last.

        Raises:
            VideoError: it is not a video that can be labelled, costs more than the limits allow, or too little of the
                time that it declares could be decoded (TruncatedVideo).
            SourceNotFound, OptionError: the path or the interval is wrong, or the model cannot exit early.
            SandboxError: no process can be had to decode it in.
        """
        sampling = self._sampling(start_seconds, end_seconds)
        watch = None if early_exit is None else Watch.of(self.config, early_exit, name=self.info.name)
        (prediction,) = self._answers(source, sampling, {None: (self.info, Collected(self.config, watch))}, top_k=top_k)
        return prediction

    def classify_each(
        self, source: Source, *, start_seconds: float = 0.0, end_seconds: float | None = None, top_k: int = 5
    ) -> tuple[Prediction, ...]:
        """What this model says of a clip, and then what each of `also` does: decoded once, encoded once.

        Raises:
            VideoError, SourceNotFound, OptionError, SandboxError: as `classify`.
        """
        asked: dict[Runner | None, tuple[ModelInfo, Collected]] = {None: (self.info, Collected(self.config))}
        asked |= {head: (other.info, Collected(other.config)) for head, other in self._also.items()}
        return self._answers(source, self._sampling(start_seconds, end_seconds), asked, top_k=top_k)

    def stream(
        self, source: Source, *, start_seconds: float = 0.0, end_seconds: float | None = None
    ) -> Iterator[Moment]:
        """The label of each sampled frame, as soon as it is final, and the action so far.

        Raises:
            OfflineOnly: the model is bidirectional, or samples a fixed number of frames from the whole video.
            VideoError, SourceNotFound, OptionError, SandboxError: as `classify`, while iterating; TruncatedVideo after
                the labels of what could be decoded.
        """
        if self.config.recurrent.bidirectional or self.config.sampling.max_frames is not None:
            raise OfflineOnly(f"{self.info.name} needs the whole video before its first label: use classify")
        sampling = self._sampling(start_seconds, end_seconds)
        labelling = Labelling.of(self.config)
        track = labelling.start()
        with self._reader(source) as reader:
            for clip, done in self._advance(sample(reader, sampling)):
                labelled, track = labelling.settle(track, clip.seconds_T.tolist(), done.scores)
                yield from labelling.moments(labelled)
            reader.refuse_truncated(start_seconds=start_seconds, end_seconds=end_seconds)
        yield from labelling.moments(labelling.finish(track, end_seconds=track.last_seconds))

    def _answers(
        self,
        source: Source,
        sampling: Sampling,
        asked: Mapping[Runner | None, tuple[ModelInfo, Collected]],
        *,
        top_k: int,
    ) -> tuple[Prediction, ...]:
        """One pass over the video for all that are asked: None is this model, the others are of `also`."""
        also = {head: self._also[head] for head in asked if head is not None}
        configs = [self.config, *(other.config for other in also.values())]
        whole = any(config.recurrent.bidirectional for config in configs)
        _, first = asked[None]
        with self._reader(source) as reader:
            clips = sample(reader, sampling, chunk_frames=WATCHED_CHUNK_FRAMES if first.watching else CHUNK_FRAMES)
            for _, collected in asked.values():
                clips = collected.timed(clips)
            for clip, done in self._advance(_joined(clips) if whole else clips, also):
                for head, (_, collected) in asked.items():
                    collected.add(clip, done if head is None else done.also[head])
                if first.exited is not None:
                    reader.stop()
                    break
            else:  # all was looked at that there is
                reader.refuse_truncated(start_seconds=sampling.start_seconds, end_seconds=sampling.end_seconds)
            tell = functools.partial(
                Collected.prediction,
                report=reader.report(),
                seen_until=reader.seen_until,
                sampling=sampling,
                top_k=top_k,
            )
            return tuple(tell(collected, info=info) for info, collected in asked.values())

    def _reader(self, source: Source) -> Reader:
        return Reader(
            source, picture=self.config.picture, limits=self._limits, sandbox=self._sandbox, check=self._check
        )

    def _sampling(self, start_seconds: float, end_seconds: float | None) -> Sampling:
        """The model's own sampling, over the interval of this request."""
        interval = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        try:
            return Sampling.model_validate({**self.config.sampling.model_dump(), **interval})
        except ValidationError as error:
            raise OptionError("the interval is wrong: " + ": ".join(filter(None, first_mistake(error)))) from None

    def _advance(self, clips: Iterable[Clip], also: Iterable[Runner] = ()) -> Iterator[tuple[Clip, Done]]:
        """Each clip with its scores. The next clip is decoded while this one is computed elsewhere."""
        done: Done | None = None
        pending: tuple[Clip, Future[Done]] | None = None
        for clip in clips:
            if pending is not None:
                done = pending[1].result()
                yield pending[0], done
            first = Work(clip.pixels_THWC, None, also=dict.fromkeys(also))
            pending = clip, self._compute(first if done is None else Work.after(done, clip.pixels_THWC))
            if pending[1].done():  # computed in this very thread: a label waits for nothing
                done = pending[1].result()
                yield clip, done
                pending = None
        if pending is not None:
            yield pending[0], pending[1].result()


def _joined(clips: Iterable[Clip]) -> Iterator[Clip]:
    """All clips as one, for a model that reads a video from both ends: its memory grows with the video."""
    every = list(clips)
    pixels_THWC = np.concatenate([clip.pixels_THWC for clip in every])
    yield Clip(pixels_THWC, np.concatenate([clip.seconds_T for clip in every]), every[-1].stride)
