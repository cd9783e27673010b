"""POST /v1/classify: a whole video in, one Prediction out, or labels line by line. Knows no models and no decoder."""

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, BinaryIO

from fastapi import APIRouter, Query, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from serving import openapi
from serving.accept import lines_wanted
from serving.admission import Admission, Workers
from serving.body import Pace, receive_video
from serving.callers import key_of, owner_of, refuse_unknown, streaming
from serving.finished import Facts
from serving.handover import Decoding
from serving.lines import Line, Lines, Passing, disconnected
from serving.once.door import answer_once
from serving.once.once import Once
from serving.once.question import HEADER, REPLAYED, key_in, question
from serving.parts import Classify, Decode, PushObserver, Sessions
from serving.usage.used import Charge, Used, of_video
from vidseq.config import Config, Seconds
from vidseq.errors import OptionError
from vidseq.messages import Failed, StreamOptions
from vidseq.schemas import Models, Prediction

if TYPE_CHECKING:
    from vidseq.early import EarlyExit


class ClassifyOptions(Config):
    """The query of POST /v1/classify."""

    start: Seconds = Field(default=0.0, description="where to begin, in seconds of the video's own time")
    end: Seconds | None = Field(default=None, description="where to stop; the end of the video if left out")
    top_k: int = Field(default=5, ge=1, le=100, description="how many actions to name")
    frames: bool = Field(default=True, description="answer with the label of each sampled frame")
    segments: bool = Field(default=True, description="answer with the segments of one label")
    model: str | None = Field(default=None, max_length=200, description="a name from /v1/models; the first if left out")
    early_exit: float | None = Field(
        default=None,
        gt=0.5,
        le=1,
        description="stop once the action's calibrated score is at least this; refused by a model that is not "
        "calibrated, and with application/x-ndjson",
    )
    early_hold: Seconds | None = Field(
        default=None, description="... and has been for so many seconds; 1 if left out, refused without early_exit"
    )

    @model_validator(mode="after")
    def _interval(self) -> "ClassifyOptions":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self

    @model_validator(mode="after")
    def _hold(self) -> "ClassifyOptions":
        if self.early_hold is not None and self.early_exit is None:
            raise ValueError("early_hold says how long to wait with early_exit, which is not given")
        return self

    def when_to_exit(self) -> "EarlyExit | None":
        if self.early_exit is None:
            return None
        from vidseq.early import EarlyExit  # not above: with it comes numpy, which the doors do without

        given = {"score": self.early_exit, "hold_seconds": self.early_hold}
        return EarlyExit.model_validate({name: value for name, value in given.items() if value is not None})

    def asked_for(self, prediction: Prediction) -> Prediction:
        unasked = {name: () for name in ("frames", "segments") if not getattr(self, name)}
        return prediction.model_copy(update=unasked)

    def asked_for_line(self, line: Line) -> Line:
        if isinstance(line, Failed):
            return line
        wanted = {"labels": self.frames, "segments": self.segments}
        return line.model_copy(update={name: () for name, asked in wanted.items() if not asked})


class Videos:
    """The door. Timeouts as in WebSettings of serving.web; `arriving` are places for bodies, `admission` to work,
    `waiting` those of requests that wait for one answer."""

    def __init__(
        self,
        classify: Classify,
        *,
        models: Callable[[], Models],
        sessions: Sessions | None,
        decode: Decode,
        arriving: Admission,
        once: Once | None,
        admission: Admission,
        waiting: Admission,
        workers: Workers,
        max_body_bytes: int,
        pace: Pace,
        answer_timeout_seconds: float,
        observe_push: PushObserver,
        charge: Charge,
    ) -> None:
        self._classify = classify
        self._models = models
        self._sessions = sessions
        self._decode = decode
        self._arriving = arriving
        self._once = once
        self._admission = admission
        self._waiting = waiting
        self._workers = workers
        self._max_body_bytes = max_body_bytes
        self._pace = pace
        self._answer_timeout_seconds = answer_timeout_seconds
        self._observe_push = observe_push
        self._charge = charge

    def add_to(self, router: APIRouter) -> None:
        router.post(
            "/classify",
            tags=["service"],
            response_model=Prediction,
            responses={
                200: openapi.LINES | openapi.ONCE,
                **openapi.problem_responses(400, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504),
            },
            openapi_extra={
                "requestBody": openapi.VIDEO_BODY,
                "parameters": [openapi.CONTENT_DIGEST, openapi.IDEMPOTENCY_KEY],
            },
        )(self.classify_video)
        router.get("/models", tags=["service"], responses=openapi.problem_responses(500))(self.list_models)

    async def classify_video(self, request: Request, options: Annotated[ClassifyOptions, Query()]) -> Response:
        """Label one video: its action, the label of each sampled frame, and segments in time.

        `video` of the answer says what the file declares of itself, how much of it could be decoded, and in `warnings`
        what is odd about it. Where too little of its declared time could be decoded, there is no label, but the problem
        `video/truncated` (422).
        """
        facts: Facts = request.state.facts
        model = refuse_unknown(options.model, self._models())
        facts.model = model.name
        by_line = lines_wanted(request.headers.get("accept", ""))
        if by_line and options.early_exit is not None:
            raise OptionError("early_exit is not for labels line by line: ask for application/json, or stop reading")
        once, key = self._once_wanted(request, by_line=by_line)
        charge = functools.partial(self._charge, owner_of(request))
        if by_line:
            streaming(self._sessions)
        with ExitStack() as holding:
            # A body that comes slowly keeps nobody from working: a place to work is taken once all of it is here.
            hold = holding.enter_context(self._arriving.place(key_of(request)))
            places = (self._admission,) if by_line else (self._admission, self._waiting)
            for admission in places:
                admission.refuse_full(key_of(request))
            received = await receive_video(
                request,
                max_bytes=self._max_body_bytes,
                pace=self._pace,
                hold=hold,
                sha256_wanted=once is not None,
            )
            video = holding.enter_context(received.file)
            for admission in places:
                holding.enter_context(admission.place(key_of(request)))
            # What is held is the thread's from here on: it may outlive this request.
            if by_line:
                return self._lines(video, options, facts, charge, holding=holding.pop_all())

            async def execute() -> bytes:
                return await self._workers.run(
                    functools.partial(classified, self._classify, video, options, facts, charge),
                    holding=holding.pop_all(),
                    gone=disconnected(request.receive),
                    timeout_seconds=self._answer_timeout_seconds,
                )

            if once is None:
                return Response(await execute(), media_type="application/json")
            assert received.sha256 is not None
            asked = question(
                owner=owner_of(request),
                key=key,
                method="POST",
                path="/v1/classify",
                options=options.model_copy(update={"model": model.name}),
                body_sha256=received.sha256,
                model=model,
            )
            answer = await answer_once(once, asked, execute, request_id=request.state.request_id)
        facts.replayed = REPLAYED in answer.headers
        return answer

    async def list_models(self) -> Models:
        """The models that are loaded; the first answers where none is named."""
        return self._models()

    def _once_wanted(self, request: Request, *, by_line: bool) -> tuple[Once | None, str]:
        """Who keeps the answer, and under which key; None and "" where that is not asked for."""
        key = key_in(request.headers)
        if key is None:
            return None, ""
        if by_line:
            raise OptionError(f"{HEADER} is not for labels line by line, which are not kept: ask for application/json")
        if self._once is None:
            raise OptionError(f"this service keeps no answers: ask without {HEADER}")
        return self._once, key

    def _lines(
        self,
        video: BinaryIO,
        options: ClassifyOptions,
        facts: Facts,
        charge: Callable[[Used], None],
        *,
        holding: ExitStack,
    ) -> Lines:
        live = streaming(self._sessions).live  # and `decode` without a wait between them: of one model
        asked = StreamOptions(start=options.start, end=options.end, top_k=options.top_k)
        # By the name of its descriptor: an open file would be copied, a path is opened.
        source = f"/proc/self/fd/{video.fileno()}"
        decoding = Decoding(self._decode(source, sampling=live.sampling(asked), clock=None))
        self._workers.begin(decoding.run, holding=holding)
        return Lines(
            decoding,
            Passing(live, asked, charge=charge),
            asked_for=options.asked_for_line,
            timeout_seconds=self._answer_timeout_seconds,
            observe_push=facts.counting(self._observe_push),
        )


def classified(
    classify: Classify,
    video: BinaryIO,
    options: ClassifyOptions,
    facts: Facts,
    charge: Callable[[Used], None],
    stop: threading.Event,
) -> bytes:
    """Runs in a thread, up to the JSON: that of a long video takes a while, too."""
    prediction = classify(
        video,
        start_seconds=options.start,
        end_seconds=options.end,
        top_k=options.top_k,
        model=options.model,
        early_exit=options.when_to_exit(),
        stop=stop,
    )
    facts.frames_decoded = prediction.video.frames_decoded
    charge(of_video(video=prediction.video, timings=prediction.timings, num_labelled=prediction.sampled.num_frames))
    return options.asked_for(prediction).model_dump_json().encode()
