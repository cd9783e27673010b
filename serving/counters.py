"""What a replica counts; Ray's agent on each node exports it as `ray_vidseq_...`. Knows no routes and no model.

docs/operating.md says what each is good for.
"""

from collections.abc import Sequence
from typing import Any, Literal

from ray.serve import metrics

from serving.finished import Finished
from vidseq.messages import Applied
from vidseq.schemas import Prediction

LATENCIES_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]


class Figures:
    """One object in a process."""

    def __init__(self) -> None:
        tags: Any = ("route", "status")  # Any: Ray writes Tuple[str] for a tuple of any length
        self._requests = metrics.Counter("vidseq_requests", "Requests answered.", tag_keys=tags)
        self._seconds = metrics.Histogram(
            "vidseq_request_seconds", "From headers to answer.", LATENCIES_SECONDS, tag_keys=("route",)
        )
        self._problems = metrics.Counter("vidseq_problems", "Refusals and failures, by type.", tag_keys=("type",))
        self._replayed = metrics.Counter("vidseq_answers_replayed", "Answers that were given again.")
        self._going_on = metrics.Gauge("vidseq_going_on", "Requests and streams that are being answered.")
        self._waiting = metrics.Gauge("vidseq_works_waiting", "Pieces of videos and streams that wait for the model.")
        self._frames = metrics.Counter("vidseq_frames_labelled", "Frames that the model has seen.")
        self._decoded = metrics.Counter("vidseq_frames_decoded", "Frames decoded.")
        self._dropped = metrics.Counter("vidseq_frames_dropped", "Frames of streams that were left out.")
        self._push_seconds = metrics.Histogram(
            "vidseq_push_seconds", "From a push of a stream to its labels.", LATENCIES_SECONDS
        )
        self._rollouts = metrics.Counter(
            "vidseq_rollouts", "Models offered to a running replica.", tag_keys=("outcome",)
        )
        self._queued = metrics.Histogram(
            "vidseq_queued_seconds", "A video's wait for places in batches.", LATENCIES_SECONDS
        )

    def answered(self, finished: Finished) -> None:
        """An Observer of serving.finished. The method is no tag: clients may invent methods."""
        path = finished.route or "none"
        self._requests.inc(tags={"route": path, "status": str(finished.status)})
        self._seconds.observe(max(finished.seconds, 1e-6), tags={"route": path})
        if finished.problem:
            self._problems.inc(tags={"type": finished.problem})
        if finished.replayed:
            self._replayed.inc()

    def standing(self, *, num_going_on: int, num_waiting: int) -> None:
        """To be told now and then."""
        self._going_on.set(num_going_on)
        self._waiting.set(num_waiting)

    def pushed(self, applied: Applied, *, seconds: float) -> None:
        """The PushObserver of serving.parts."""
        if applied.labels:
            self._frames.inc(len(applied.labels))
        self._push_seconds.observe(max(seconds, 1e-6))
        dropped = sum(notice.num_frames for notice in applied.notices if notice.effect == "dropped")
        if dropped:
            self._dropped.inc(dropped)

    def rolled_out(self, outcome: Literal["taken", "refused"]) -> None:
        self._rollouts.inc(tags={"outcome": outcome})

    def labelled(self, predictions: Sequence[Prediction]) -> None:
        """Of one video: what one model or several say of it."""
        first = predictions[0]
        self._frames.inc(sum(prediction.sampled.num_frames for prediction in predictions))
        self._decoded.inc(first.video.frames_decoded)
        self._queued.observe(max(first.timings.queued_ms / 1000, 1e-6))
