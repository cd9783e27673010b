"""A request with a key as HTTP: its errors that are final, its answer's headers. Knows no routes, no database."""

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from serving import problems
from serving.once.kept import Answer
from serving.once.once import Given, Once
from serving.once.question import KEPT, REPLAYED, Question
from vidseq.errors import DecoderCrashed, InputError, OptionError, OutOfMemory, TooSlow, VideoError

FINAL: tuple[type[InputError], ...] = (VideoError, OptionError)  # the fault of the video, or of what was asked
PASSING = (DecoderCrashed, OutOfMemory, TooSlow)  # ... unless a machine with too much to do may have had a part in it


async def answer_once(
    once: Once, question: Question, execute: Callable[[], Awaitable[bytes]], *, request_id: str
) -> Response:
    """Errors: those of Once.answer; what `execute` raises and is not final."""
    return _response(await once.answer(question, lambda: final_answer(execute, request_id=request_id)))


async def final_answer(
    execute: Callable[[], Awaitable[bytes]], *, request_id: str, final: tuple[type[InputError], ...] = FINAL
) -> Answer:
    """What `execute` gives, or the problem that it will always have. Errors: those that are not final."""
    try:
        return Answer(200, await execute())
    except final as error:
        if isinstance(error, PASSING):
            raise
        problem = problems.failed(error, request_id).problem
        return Answer(problem.status, problem.model_dump_json(exclude_none=True).encode())


def _response(given: Given) -> Response:
    status = given.answer.status
    told = {REPLAYED: "true" if given.replayed else None, KEPT: None if given.kept else "false"}
    return Response(
        given.answer.body,
        status_code=status,
        headers={name: value for name, value in told.items() if value is not None},
        media_type="application/json" if status == 200 else problems.MEDIA_TYPE,
    )
