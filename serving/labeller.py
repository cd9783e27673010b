"""One loaded model that answers many requests and streams at once. Knows neither HTTP nor Ray.

request threads: decode, sample   --chunks-->                                          --> Prediction
                                               one engine thread: batches  --scores-->
streams: pictures decoded in threads  ----->                                           --> Applied
"""

import math
import os
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import BinaryIO

from vidseq.checkpoint import load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.early import EarlyExit
from vidseq.engine import Done, Engine, Work
from vidseq.errors import OfflineOnly
from vidseq.live import Live
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import Models, Prediction

CANARY = resources.files("serving") / "canary.mp4"  # one second: a bright disc crosses a dark field


class Labeller:
    """A checkpoint and the engine that computes for all requests. `classify` is the `Classify` of serving.web.

    `live` labels streams with the same engine; None where the model cannot stream.

    Args:
        model: the folder of a checkpoint.
        name: what requests call the model; None is the name it was saved under.
        device: where it computes, as torch names it.
        limits: what one video may cost.
        sandbox: where videos are decoded; None is this process.

    Raises:
        CheckpointError: the folder is not a model that can be used.
    """

    def __init__(
        self, model: Path, *, name: str | None, device: str, limits: Limits, sandbox: Sandbox | None = None
    ) -> None:
        self._checkpoint = load_checkpoint(model, name=name)
        self._limits = limits
        self._sandbox = sandbox
        self._engine = Engine(self._checkpoint.model.to(device))
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
        """Label one open file. `stop` is looked at before each chunk: its request then ends with CancelledError.

        Raises:
            VideoError, OptionError, SandboxError: as Classifier.classify.
        """
        assert model in (None, self._checkpoint.info.name), f"{model!r} was let through"

        def compute(work: Work) -> Future[Done]:
            if stop.is_set():
                raise CancelledError
            return self._engine.submit(work)

        classifier = Classifier(self._checkpoint, compute=compute, limits=self._limits, sandbox=self._sandbox)
        # By the name of its descriptor: an open file would be copied, a path is opened.
        source = f"/proc/self/fd/{video.fileno()}"
        return classifier.classify(
            source, start_seconds=start_seconds, end_seconds=end_seconds, top_k=top_k, early_exit=early_exit
        )

    def answer_canary(self) -> Prediction:
        """Label a clip of our own, from its bytes to its scores: whoever cannot do that is not ready."""
        with resources.as_file(CANARY) as path, path.open("rb") as clip:
            prediction = self.classify(clip, stop=threading.Event())
        scores = [*(scored.score for scored in prediction.top), *(frame.score for frame in prediction.frames)]
        assert scores and all(map(math.isfinite, scores)), f"the model answers the canary clip with {scores}"
        return prediction

    def check_alive(self) -> None:
        """Raises AssertionError when the engine's thread has died: every request would wait for ever."""
        assert self._engine.alive, "the engine's thread has died"

    def close(self) -> None:
        """Finish what was begun, then stop the engine."""
        self._engine.close()
        self._decoders.shutdown()

    def _live(self) -> Live | None:
        try:
            return Live(self._checkpoint, advance=self._engine.advance, decoders=self._decoders, limits=self._limits)
        except OfflineOnly:
            return None
