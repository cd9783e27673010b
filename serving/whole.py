"""One whole video and what the models say of it. Knows no routes, no requests and no jobs."""

import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

from serving.classify_options import ClassifyOptions
from serving.finished import Facts
from serving.parts import Classify, ClassifyEach
from serving.usage.used import Used, of_video
from vidseq.schemas import Prediction


class Whole:
    """Asks one model, or several together. `classify_each` may be None where there is but one."""

    def __init__(self, classify: Classify, classify_each: ClassifyEach | None) -> None:
        self._classify = classify
        self._classify_each = classify_each

    def label(
        self,
        video: BinaryIO,
        options: ClassifyOptions,
        named: Sequence[str],
        *,
        facts: Facts,
        charge: Callable[[Used], None],
        stop: threading.Event,
    ) -> tuple[Prediction, ...]:
        """What each model that is named says, with as much of it as was asked for; where none is named, the first.

        Blocks. Errors: as Classify and ClassifyEach of serving.parts.
        """
        predictions: Sequence[Prediction]
        if len(named) > 1:
            assert self._classify_each is not None, "several models are loaded, and nothing asks them together"
            predictions = self._classify_each(
                video,
                start_seconds=options.start,
                end_seconds=options.end,
                top_k=options.top_k,
                models=named,
                stop=stop,
            )
        else:
            prediction = self._classify(
                video,
                start_seconds=options.start,
                end_seconds=options.end,
                top_k=options.top_k,
                model=next(iter(named), None),
                early_exit=options.when_to_exit(),
                stop=stop,
            )
            predictions = (prediction,)
        facts.frames_decoded = predictions[0].video.frames_decoded
        charge(of_video(predictions))
        return tuple(map(options.asked_for, predictions))
