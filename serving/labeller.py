"""One loaded model, or several that share a backbone, for many requests and streams. Knows neither HTTP nor Ray.

request threads: decode, sample   --chunks-->                                          --> Prediction
                                               one engine thread: batches  --scores-->
streams: pictures decoded in threads  ----->                                           --> Applied
"""

import functools
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from serving.looks import refuse_other_looks, refuse_same_names
from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.early import EarlyExit
from vidseq.engine import Compute, Done, Engine, Runner, Work
from vidseq.errors import ModelNotFound, OfflineOnly
from vidseq.live import Live
from vidseq.rehearsal import rehearse
from vidseq.sandbox.box import Sandbox
from vidseq.sandbox.picture_box import PictureBoxes
from vidseq.schemas import Models, Prediction

STUCK_SECONDS = 60.0  # for one batch: thousands of times what one takes


class _Computing:
    """An engine that ends with the last who can ask it: a model that was replaced goes when nobody is at it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        weakref.finalize(self, engine.retire)

    async def advance(self, work: Work) -> Done:
        return await self.engine.advance(work)


@dataclass(frozen=True, eq=False)
class Head:
    """A model of those that share an engine, and the folder it is from."""

    folder: Path
    checkpoint: Checkpoint
    runner: Runner

    @property
    def name(self) -> str:
        return self.checkpoint.info.name


class Labeller:
    """Checkpoints and the engine that computes for all requests. `classify` is the `Classify` of serving.parts,
    `classify_each` its `ClassifyEach`.

    `live` labels streams with the same engine and the first model; None where that cannot stream. Others come and go
    while it answers; what was begun with one ends with it.

    Args:
        model: the folder of a checkpoint: the first model, which answers where none is named.
        also: folders of others that see videos as the first does.
        name: what requests call the first; None is the name it was saved under.
        device: where it computes, as torch names it.
        limits: what one video may cost.
        sandbox: where videos are decoded; None is this process.
        stuck_seconds: a model of which nothing comes for longer, while somebody waits, is as good as dead.
        trusted_keys: files of public keys, one of which must have signed each; None asks for no signature.

    Raises:
        CheckpointError: a folder is not a model that can be used, or not one that is trusted.
        OptionError: one of `also` sees videos in another way, or has a name that another one has.
    """

    def __init__(
        self,
        model: Path,
        *,
        also: Sequence[Path] = (),
        name: str | None,
        device: str,
        limits: Limits,
        sandbox: Sandbox | None = None,
        stuck_seconds: float = STUCK_SECONDS,
        trusted_keys: Sequence[Path] | None = None,
    ) -> None:
        first = load_checkpoint(model, name=name, trusted_keys=trusted_keys)
        self._trusted_keys = trusted_keys
        self._device = device
        self._limits = limits
        self._sandbox = sandbox
        self._stuck_seconds = stuck_seconds
        self._computing = _Computing(Engine(first.model.to(device)))
        self._first = Head(model, first, self._computing.engine.runner)
        self._heads: Mapping[str, Head] = {self._first.name: self._first}  # never changed: another takes its place
        self._decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pictures")
        self._boxes = None if sandbox is None else PictureBoxes(functools.partial(sandbox.pictures, limits))
        if self._boxes is not None:
            weakref.finalize(self._computing, self._boxes.close)  # streams may push pictures as long as they can ask
        self.picture = first.config.picture
        self.live = self._live()
        for folder in also:
            self.add(self.load(folder))

    @property
    def models(self) -> Models:
        """What is loaded; the first is the first."""
        return Models(models=tuple(head.checkpoint.info for head in self._heads.values()))

    @property
    def also(self) -> tuple[Path, ...]:
        """The folders of those beside the first."""
        return tuple(head.folder for head in self._heads.values() if head is not self._first)

    def load(self, folder: Path) -> Head:
        """Another model for the same engine, which computes with the first one's encoder. It is not asked yet.

        Raises:
            CheckpointError, OptionError: as the constructor.
        """
        checkpoint = load_checkpoint(folder, trusted_keys=self._trusted_keys)
        there = self._heads.values()
        beside = [head.checkpoint for head in there if head is self._first or head.folder != folder]
        refuse_other_looks([*beside, checkpoint])
        refuse_same_names([*(each.info for each in beside), checkpoint.info])
        checkpoint.model.encoder = self._first.checkpoint.model.encoder  # the same numbers, and then in memory once
        checkpoint.model.sequence.to(self._device)
        return Head(folder, checkpoint, Runner.of(checkpoint.model))

    def add(self, head: Head) -> None:
        """Answer with it, too; in place of another one of the same folder."""
        beside = {name: other for name, other in self._heads.items() if other.folder != head.folder}
        self._heads = {**beside, head.name: head}

    def remove(self, folder: Path) -> None:
        """Answer no more with what is from there, if anything is; the first stays."""
        gone = [head for head in self._heads.values() if head.folder == folder and head is not self._first]
        self._heads = {name: head for name, head in self._heads.items() if head not in gone}

    def classify(
        self,
        video: BinaryIO,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        top_k: int = 5,
        model: str | None = None,
        early_exit: EarlyExit | None = None,
        stop: threading.Event,
    ) -> Prediction:
        """Label one open file. `stop` is looked at before each chunk and each frame, and while no frame is due: its
        request then ends with CancelledError.

        Raises:
            VideoError, OptionError, SandboxError: as Classifier.classify.
            ModelNotFound: `model` has been replaced since it was let through.
        """
        head = self._first if model is None else self._named(model)
        return self._classifier([head], stop=stop).classify(
            _path_of(video),
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            top_k=top_k,
            early_exit=early_exit,
        )

    def classify_each(
        self,
        video: BinaryIO,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        top_k: int = 5,
        models: Sequence[str],
        stop: threading.Event,
    ) -> tuple[Prediction, ...]:
        """What each of these models says of one open file, which is decoded and encoded once. The rest as `classify`.

        Raises:
            VideoError, OptionError, SandboxError, ModelNotFound: as `classify`.
        """
        classifier = self._classifier([self._named(name) for name in models], stop=stop)
        return classifier.classify_each(
            _path_of(video), start_seconds=start_seconds, end_seconds=end_seconds, top_k=top_k
        )

    def answer_canary(self) -> str | None:
        """Label a known clip with every model, from its bytes to its scores: whoever cannot do that is not ready.

        Where a model brings no answer to compare with, that is said in words.

        Raises:
            CheckpointError: a model answers otherwise than it did when it was made.
        """
        return "; ".join(filter(None, map(self.rehearse, self._heads.values()))) or None

    def rehearse(self, head: Head) -> str | None:
        """The same for one that need not be asked yet."""
        compute = self._computing_for(head)
        return rehearse(head.checkpoint, compute, device=self._device, sandbox=self._sandbox)

    @property
    def num_waiting(self) -> int:
        """Pieces of videos and streams that wait for the model."""
        return self._computing.engine.num_waiting

    def check_alive(self) -> None:
        """Raises AssertionError when the engine's thread has died, or is stuck: every request would wait for ever."""
        engine = self._computing.engine
        assert engine.alive, "the engine's thread has died"
        seconds = engine.stalled_seconds
        assert seconds <= self._stuck_seconds, f"the model is stuck: nothing came of it for {seconds:.0f} s"

    def sweep(self) -> None:
        """End what is kept for streams that push no more."""
        if self._boxes is not None:
            self._boxes.sweep()

    def close(self) -> None:
        """Finish what was begun, then stop the engine."""
        self._computing.engine.close()
        self._decoders.shutdown()
        if self._boxes is not None:
            self._boxes.close()

    def _live(self) -> Live | None:
        try:
            return Live(
                self._first.checkpoint,
                advance=self._computing.advance,
                decoders=self._decoders,
                limits=self._limits,
                boxes=self._boxes,
            )
        except OfflineOnly:
            return None

    def _named(self, name: str) -> Head:
        head = self._heads.get(name)
        if head is None:
            raise ModelNotFound(f"there is no model {name!r} here any more")
        return head

    def _computing_for(self, head: Head, check: Callable[[], None] = lambda: None) -> Compute:
        def compute(work: Work) -> Future[Done]:
            check()
            return self._computing.engine.submit(replace(work, head=head.runner))

        return compute

    def _classifier(self, heads: Sequence[Head], *, stop: threading.Event) -> Classifier:
        def check() -> None:
            if stop.is_set():
                raise CancelledError

        first, *others = heads
        return Classifier(
            first.checkpoint,
            compute=self._computing_for(first, check),
            limits=self._limits,
            sandbox=self._sandbox,
            check=check,
            also={other.runner: other.checkpoint for other in others},
        )


def _path_of(video: BinaryIO) -> str:
    """By the name of its descriptor: an open file would be copied, a path is opened."""
    return f"/proc/self/fd/{video.fileno()}"
