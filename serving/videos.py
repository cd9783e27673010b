"""POST /v1/classify: a whole video in, one Prediction out, or several, or labels line by line. Knows no decoder."""

import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from serving import openapi
from serving.accept import lines_wanted
from serving.admission import Admission, Workers
from serving.body import Pace, receive_video
from serving.callers import is_limited, key_of, models_asked, models_for, owner_of, refuse_other_model, streaming
from serving.classify_options import ClassifyOptions
from serving.finished import Facts
from serving.handover import Decoding
from serving.lines import Lines, Passing, disconnected
from serving.once.door import answer_once
from serving.once.once import Once
from serving.once.question import HEADER, REPLAYED, key_in, question
from serving.parts import Decode, PushObserver, Sessions
from serving.usage.used import Charge, Used
from serving.whole import Whole
from vidseq.errors import OptionError
from vidseq.messages import StreamOptions
from vidseq.schemas import Models, Prediction, Predictions


class Videos:
    """The door. Timeouts as in WebSettings; `arriving` are places for bodies, `admission` to work,
    `waiting` those of requests that wait for one answer."""

    def __init__(
        self,
        whole: Whole,
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
        self._whole = whole
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
            response_model=Prediction | Predictions,
            responses={
                200: openapi.LINES | openapi.ONCE,
                **openapi.problem_responses(400, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504),
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
        `video/truncated` (422). With several models, or `all`, the answer is Predictions.
        """
        facts: Facts = request.state.facts
        facts.model = ",".join(info.name for info in models_asked(request, options.models, self._models()))
        by_line = lines_wanted(request.headers.get("accept", ""))
        if by_line:
            self._refuse_by_line(request, options)
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
                self._refuse_by_line(request, options)  # once more: the body took its time
                return self._lines(video, options, facts, charge, holding=holding.pop_all())
            asked = models_asked(request, options.models, self._models())  # once more
            named = [info.name for info in asked] if options.models or is_limited(request) else []

            async def execute() -> bytes:
                return await self._workers.run(
                    functools.partial(self._label, video, options, named, facts, charge),
                    holding=holding.pop_all(),
                    gone=disconnected(request.receive),
                    timeout_seconds=self._answer_timeout_seconds,
                )

            if once is None:
                return Response(await execute(), media_type="application/json")
            assert received.sha256 is not None
            what = question(
                owner=owner_of(request),
                key=key,
                method="POST",
                path="/v1/classify",
                options=options.of_models([info.name for info in asked]),
                body_sha256=received.sha256,
                models=asked,
            )
            answer = await answer_once(once, what, execute, request_id=request.state.request_id)
        facts.replayed = REPLAYED in answer.headers
        return answer

    async def list_models(self, request: Request) -> Models:
        """The models that are loaded and that the key may ask; the first answers where none is named."""
        return models_for(request, self._models())

    def _refuse_by_line(self, request: Request, options: ClassifyOptions) -> None:
        if options.early_exit is not None:
            raise OptionError("early_exit is not for labels line by line: ask for application/json, or stop reading")
        if len(options.models) > 1:
            raise OptionError("labels line by line are of one model: ask for application/json, or name one")
        refuse_other_model(request, next(iter(options.models), None), self._models())

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

    def _label(
        self,
        video: BinaryIO,
        options: ClassifyOptions,
        named: Sequence[str],
        facts: Facts,
        charge: Callable[[Used], None],
        stop: threading.Event,
    ) -> bytes:
        """Runs in a thread, up to the JSON: that of a long video takes a while, too."""
        predictions = self._whole.label(video, options, named, facts=facts, charge=charge, stop=stop)
        return options.told(predictions).model_dump_json().encode()
