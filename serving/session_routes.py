"""Sessions as a resource over HTTP: made, pushed to, looked at, ended, forgotten. Knows not how they are kept.

POST   /v1/sessions                            Open  -> 201 Ready
PUT    /v1/sessions/{id}/pushes/{sequence}     push  -> Applied       the same again: the same answer
GET    /v1/sessions/{id}                             -> Standing
POST   /v1/sessions/{id}/end                         -> Final         the same again: the same answer
DELETE /v1/sessions/{id}                             -> 204
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from serving import openapi
from serving.admission import Admission
from serving.body import Pace, media_type, receive_bytes
from serving.callers import key_of, owner_of, refuse_other_model, streaming
from serving.finished import Facts
from serving.parts import PushObserver, Sessions
from serving.problems import AnswerTimeout
from vidseq.config import first_mistake
from vidseq.errors import OptionError
from vidseq.messages import FRAMES_TYPE, Applied, Encoded, Final, FrameHeader, Open, Ready, Standing, pack_frames
from vidseq.schemas import Models

MAX_OPEN_BYTES = 512 * 1024  # a resume token has up to 256 KB
IMAGE_FORMATS = {"image/jpeg": "jpeg", "image/png": "png", "image/webp": "webp"}

SessionId = Annotated[str, Path(max_length=64)]
PushNumber = Annotated[int, Path(ge=0, lt=2**53)]
ImageSeconds = Annotated[float | None, Query(allow_inf_nan=False, description="when the image was taken")]


def session_router(
    sessions: Sessions | None,
    *,
    models: Callable[[], Models],
    admission: Admission,
    pace: Pace,
    answer_timeout_seconds: float,
    observe_push: PushObserver,
) -> APIRouter:
    """`sessions` is None where the model cannot stream; every request is then told so."""
    router = APIRouter(prefix="/sessions", tags=["sessions"])

    @asynccontextmanager
    async def in_time() -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(answer_timeout_seconds):
                yield
        except TimeoutError:
            raise AnswerTimeout(f"no answer within {answer_timeout_seconds:g} seconds") from None

    @router.post(
        "",
        status_code=201,
        responses=openapi.problem_responses(400, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504),
        openapi_extra={"requestBody": openapi.json_body(Open), "parameters": [openapi.CONTENT_DIGEST]},
    )
    async def open_session(request: Request, response: Response) -> Ready:
        """Begin a stream of pictures, or go on with one that a resume token holds."""
        with admission.place(key_of(request)) as hold:
            body = await receive_bytes(
                request,
                ["application/json"],
                max_bytes=MAX_OPEN_BYTES,
                pace=pace,
                hold=hold,
            )
            asked = _asked(body)
            request.state.facts.model = refuse_other_model(request, asked.model, models()).name
            async with in_time():
                stream = await streaming(sessions).open(asked, owner=owner_of(request))
        response.headers["Location"] = f"/v1/sessions/{stream.ready.session}"
        return stream.ready

    @router.put(
        "/{session}/pushes/{sequence}",
        responses=openapi.problem_responses(400, 404, 408, 409, 410, 413, 415, 422, 429, 500, 503, 504),
        openapi_extra={"requestBody": openapi.PUSH_BODY, "parameters": [openapi.CONTENT_DIGEST]},
    )
    async def push(request: Request, session: SessionId, sequence: PushNumber, seconds: ImageSeconds = None) -> Applied:
        """Label the next frames. A push that was applied before gets the answer that it got then."""
        kept = streaming(sessions)
        begun = time.perf_counter()
        with admission.place(key_of(request)) as hold:
            body = await receive_bytes(
                request,
                [FRAMES_TYPE, *IMAGE_FORMATS],
                max_bytes=kept.settings.max_push_bytes,
                pace=pace,
                hold=hold,
            )
            packed = _packed(body, IMAGE_FORMATS.get(media_type(request)), seconds)
            async with in_time():
                applied = await kept.put(session, sequence=sequence, push=packed, owner=owner_of(request))
        facts: Facts = request.state.facts
        facts.model = kept.info.name
        facts.counting(observe_push)(applied, seconds=time.perf_counter() - begun)
        return applied

    @router.get("/{session}", responses=openapi.problem_responses(404, 409, 410, 422, 500, 503, 504))
    async def look(request: Request, session: SessionId) -> Standing:
        """Where a session stands."""
        async with in_time():
            return await streaming(sessions).standing(session, owner=owner_of(request))

    @router.post("/{session}/end", responses=openapi.problem_responses(404, 409, 410, 422, 500, 503, 504))
    async def end(request: Request, session: SessionId) -> Final:
        """The labels that were still waiting, and the Prediction. Asked again, the same."""
        async with in_time():
            return await streaming(sessions).end(session, owner=owner_of(request))

    @router.delete("/{session}", status_code=204, responses=openapi.problem_responses(404, 410, 422, 500, 503, 504))
    async def forget(request: Request, session: SessionId) -> None:
        """Leave nothing of a session."""
        async with in_time():
            await streaming(sessions).forget(session, owner=owner_of(request))

    return router


def _asked(body: bytes) -> Open:
    """Raises OptionError: it is not an Open, or one for a WebSocket."""
    try:
        asked = Open.model_validate_json(body)
    except ValidationError as error:
        raise OptionError("the body is wrong: " + ": ".join(filter(None, first_mistake(error)))) from None
    if asked.input != "frames" or asked.keep != "service":
        raise OptionError("over HTTP a session takes frames and is kept by the service: WS /v1/streams has the rest")
    if asked.resume is not None and asked.resume.session is not None:
        raise OptionError("a session that the service keeps goes on by itself: push to it")
    return asked


def _packed(body: bytes, image_format: str | None, seconds: float | None) -> bytes:
    """The body as a push: it is one, or a single image of this format. Raises OptionError."""
    if image_format is None:
        if seconds is not None:
            raise OptionError("seconds is for a single image: packed frames have their own")
        return body
    if seconds is None:
        raise OptionError("a single image needs ?seconds=, when it was taken")
    if not body:
        raise OptionError("the body holds no image, but 0 bytes")
    header = FrameHeader.model_validate({"seconds": seconds, "format": image_format, "bytes": len(body)})
    return pack_frames([Encoded(header, body)])
