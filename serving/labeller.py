"""One loaded model that answers many requests and streams at once. Knows neither HTTP nor Ray.

request threads: decode, sample   --chunks-->                                          --> Prediction
                                               one engine thread: batches  --scores-->
streams: pictures decoded in threads  ----->                                           --> Applied
"""

import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from vidseq.checkpoint import load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.early import EarlyExit
from vidseq.engine import Done, Engine, Work
from vidseq.errors import ModelNotFound, OfflineOnly
from vidseq.live import Live
from vidseq.rehearsal import rehearse
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import Models, Prediction

STUCK_SECONDS = 60.0  # for one batch: thousands of times what one takes


class _Computing:
    """An engine that ends with the last who can ask it: a model that was replaced goes when nobody is at it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        weakref.finalize(self, engine.retire)

    async def advance(self, work: Work) -> Done:
        return await self.engine.advance(work)


class Labeller:
    """A checkpoint and the engine that computes for all requests. `classify` is the `Classify` of serving.web.

    `live` labels streams with the same engine; None where the model cannot stream.

    Args:
        model: the folder of a checkpoint.
        name: what requests call the model; None is the name it was saved under.
        device: where it computes, as torch names it.
        limits: what one video may cost.
        sandbox: where videos are decoded; None is this process.
        stuck_seconds: a model of which nothing comes for longer, while somebody waits, is as good as dead.
        trusted_keys: files of public keys, one of which must have signed the model; None asks for no signature.

    Raises:
        CheckpointError: the folder is not a model that can be used, or not one that is trusted.
    """

    def __init__(
        self,
        model: Path,
        *,
        name: str | None,
        device: str,
        limits: Limits,
        sandbox: Sandbox | None = None,
        stuck_seconds: float = STUCK_SECONDS,
        trusted_keys: Sequence[Path] | None = None,
    ) -> None:
        self._checkpoint = load_checkpoint(model, name=name, trusted_keys=trusted_keys)
        self._device = device
        self._limits = limits
        self._sandbox = sandbox
        self._stuck_seconds = stuck_seconds
        self._computing = _Computing(Engine(self._checkpoint.model.to(device)))
        self._decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pictures")
        self.models = Models(models=(self._checkpoint.info,))
        self.picture = self._checkpoint.config.picture
        self.live = self._live()

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
        if model not in (None, self._checkpoint.info.name):
            raise ModelNotFound(f"there is no model {model!r} here any more")

        def check() -> None:
            if stop.is_set():
                raise CancelledError

        def compute(work: Work) -> Future[Done]:
            check()
            return self._computing.engine.submit(work)

        classifier = Classifier(
            self._checkpoint, compute=compute, limits=self._limits, sandbox=self._sandbox, check=check
        )
        # By the name of its descriptor: an open file would be copied, a path is opened.
        source = f"/proc/self/fd/{video.fileno()}"
        return classifier.classify(
            source, start_seconds=start_seconds, end_seconds=end_seconds, top_k=top_k, early_exit=early_exit
        )

    def answer_canary(self) -> str | None:
        """Label a known clip, from its bytes to its scores: whoever cannot do that is not ready.

        Where the model brings no answer to compare with, that is said in words.

        Raises:
            CheckpointError: the model answers otherwise than it did when it was made.
        """
        return rehearse(self._checkpoint, self._computing.engine.submit, device=self._device, sandbox=self._sandbox)

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

    def close(self) -> None:
        """Finish what was begun, then stop the engine."""
        self._computing.engine.close()
        self._decoders.shutdown()

    def _live(self) -> Live | None:
        try:
            return Live(self._checkpoint, advance=self._computing.advance, decoders=self._decoders, limits=self._limits)
        except OfflineOnly:
            return None
