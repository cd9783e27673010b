"""Uploads as a resource over HTTP, as in tus 1.0: made, appended to, looked at, completed, deleted. Knows no files.

POST   /v1/uploads                 NewUpload -> 201 Upload, Location
HEAD   /v1/uploads/{id}                      -> Upload-Offset, Upload-Length
GET    /v1/uploads/{id}                      -> Upload
PATCH  /v1/uploads/{id}            bytes     -> 204 Upload-Offset     at the Upload-Offset that is said
POST   /v1/uploads/{id}/complete   Completed -> Upload                the same again: the same answer
DELETE /v1/uploads/{id}                      -> 204
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Path, Request
from pydantic import Field, ValidationError
from starlette.responses import Response

from serving import openapi
from serving.admission import Admission
from serving.body import Pace, declared_bytes, media_type, receive_bytes
from serving.callers import key_of, owner_of
from serving.problems import AnswerTimeout, UnsupportedMediaType
from serving.threads import Threads
from serving.uploads.arriving import append_body
from serving.uploads.uploads import Uploads
from vidseq.config import Config, first_mistake
from vidseq.errors import OptionError
from vidseq.schemas import Upload

OFFSET_TYPE = "application/offset+octet-stream"
MAX_ASKED_BYTES = 4096
NUM_THREADS, NUM_READERS = 8, 2  # of those that write, and of those that read whole files for their digests

ConfigT = TypeVar("ConfigT", bound=Config)
Sha256 = Annotated[str | None, Field(pattern=r"^[0-9a-fA-F]{64}$", description="of the whole file, in hexadecimal")]
UploadId = Annotated[str, Path(max_length=64)]
Offset = Annotated[
    int, Header(alias="Upload-Offset", ge=0, lt=2**53, description="how many bytes are there already: HEAD tells")
]


class NewUpload(Config):
    """The body of POST /v1/uploads."""

    num_bytes: int = Field(gt=0, lt=2**53, description="how many bytes will come, in all")
    sha256: Sha256 = None


class Completed(Config):
    """The body of POST /v1/uploads/{id}/complete. `sha256` may be left out where it was declared before."""

    sha256: Sha256 = None


class UploadRoutes:
    """The door. `uploads` is None where none are kept; every request is then told so. `arriving` are places for bodies,
    timeouts as in WebSettings."""

    def __init__(
        self, uploads: Uploads | None, *, arriving: Admission, pace: Pace, answer_timeout_seconds: float
    ) -> None:
        self._uploads = uploads
        self._arriving = arriving
        self._pace = pace
        self._answer_timeout_seconds = answer_timeout_seconds
        self._threads = Threads(NUM_THREADS, "uploads")
        self._readers = Threads(NUM_READERS, "uploads-sha256")

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        async with self._threads.lifespan(app), self._readers.lifespan(app):
            yield

    def add_to(self, parent: APIRouter) -> None:
        router = APIRouter(prefix="/uploads", tags=["uploads"])
        looking = openapi.problem_responses(404, 422, 500, 503, 504)
        asking = openapi.problem_responses(400, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504)
        making = {status: words for status, words in asking.items() if status not in (404, 409)}
        full = openapi.problem_responses(507)
        router.post(
            "",
            status_code=201,
            responses={**making, **full, 201: openapi.UPLOAD_MADE},
            openapi_extra={"requestBody": openapi.json_body(NewUpload)},
        )(self.create)
        router.get("/{upload}", responses=looking)(self.read)
        standing = {**looking, 200: openapi.UPLOAD_STANDING}
        router.head("/{upload}", responses=standing, response_class=Response)(self.look)
        router.patch(
            "/{upload}",
            status_code=204,
            responses={**asking, **full, 204: openapi.UPLOAD_OFFSET},
            openapi_extra={"requestBody": openapi.UPLOAD_BODY, "parameters": [openapi.CONTENT_DIGEST]},
        )(self.append)
        router.post(
            "/{upload}/complete",
            responses=asking,
            openapi_extra={"requestBody": openapi.json_body(Completed)},
        )(self.complete)
        router.delete("/{upload}", status_code=204, responses=looking)(self.delete)
        parent.include_router(router)

    async def create(self, request: Request, response: Response) -> Upload:
        """A place for a file that will come in pieces: PATCH them to its `Location`, then complete it."""
        uploads, owner = self._taken(), owner_of(request)
        new = await self._asked(request, NewUpload)
        async with self._in_time():
            made = await self._threads.call(lambda: uploads.create(owner, num_bytes=new.num_bytes, sha256=new.sha256))
        response.headers["Location"] = f"/v1/uploads/{made.id}"
        return made

    async def read(self, request: Request, upload: UploadId) -> Upload:
        """How much of it is here."""
        uploads, owner = self._taken(), owner_of(request)
        async with self._in_time():
            return await self._threads.call(lambda: uploads.get(owner, upload))

    async def look(self, request: Request, upload: UploadId) -> Response:
        """How much of it is here, in headers alone."""
        found = await self.read(request, upload)
        return Response(headers=_offset(found) | {"Upload-Length": str(found.num_bytes), "Cache-Control": "no-store"})

    async def append(self, request: Request, upload: UploadId, offset: Offset) -> Response:
        """The next bytes, as many as one likes. What has come before a connection is cut, or given up, is kept.

        Where others are the next, `upload/offset` (409) says in Upload-Offset which. One request at a time may append:
        another hears `upload/busy` (409) until that one has ended or was cut, which it is when nothing has come for a
        while.
        """
        uploads, owner = self._taken(), owner_of(request)
        if (found := media_type(request)) != OFFSET_TYPE:
            raise UnsupportedMediaType(f"the body has Content-Type {found[:50]!r}; send {OFFSET_TYPE}")
        # A connection that is half dead keeps the next one out: better to cut it, for the next goes on where it ended.
        pace = self._pace._replace(idle_seconds=self._pace.grace_seconds)
        with self._arriving.place(key_of(request)):
            async with self._in_time():
                appending = await self._threads.call(
                    lambda: uploads.append(owner, upload, offset=offset), unheard=lambda late: late.close()
                )
            with appending:
                appending.refuse_over(declared_bytes(request))
                standing = await append_body(request, appending, self._threads, pace=pace)
        return Response(status_code=204, headers=_offset(standing))

    async def complete(self, request: Request, upload: UploadId) -> Upload:
        """All bytes are here: they are read, and compared with their digest. Asked again, the same.

        Where the digest is another, `upload/digest` (422), the upload stays as it is: say the right one, or delete it.
        """
        uploads, owner = self._taken(), owner_of(request)
        said = await self._asked(request, Completed)
        async with self._in_time():
            return await self._readers.call(lambda: uploads.complete(owner, upload, sha256=said.sha256))

    async def delete(self, request: Request, upload: UploadId) -> None:
        """Leave nothing of an upload."""
        uploads, owner = self._taken(), owner_of(request)
        async with self._in_time():
            await self._threads.call(lambda: uploads.delete(owner, upload))

    def _taken(self) -> Uploads:
        """Raises OptionError: none are."""
        if self._uploads is None:
            raise OptionError("this service takes no uploads: it was given no folder for them")
        return self._uploads

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._answer_timeout_seconds):
                yield
        except TimeoutError:
            raise AnswerTimeout(f"no answer within {self._answer_timeout_seconds:g} seconds") from None

    async def _asked(self, request: Request, kind: type[ConfigT]) -> ConfigT:
        body = await receive_bytes(request, ["application/json"], max_bytes=MAX_ASKED_BYTES, pace=self._pace)
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            raise OptionError("the body is wrong: " + ": ".join(filter(None, first_mistake(error)))) from None


def _offset(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset)}
