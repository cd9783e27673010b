"""`client.uploads`, twice: what a course yields is done, with and without asyncio. Knows nothing of retries."""

import asyncio
import time
from collections.abc import Generator
from typing import Any, TypeVar

import httpx2

from vidseq.client.answers import status_error, typed_errors
from vidseq.client.courses import PART_BYTES, Ask, Created, Pause, Step, deleted, got, sent
from vidseq.client.retries import Retries
from vidseq.client.uploads import Progress, Source
from vidseq.errors import ServiceError
from vidseq.schemas import Upload

T = TypeVar("T")

MAX_RECONNECTS = 12  # some 50 seconds, in which a service that is started anew is waited for


class Uploads:
    """`Client.uploads`: files that are sent in pieces, and go on where a connection was cut."""

    def __init__(self, http: httpx2.Client, *, retries: Retries) -> None:
        self._http = http
        self._retries = retries

    def create(
        self,
        source: Source,
        *,
        resume: Upload | str | None = None,
        chunk_bytes: int = PART_BYTES,
        max_reconnects: int = MAX_RECONNECTS,
        on_created: Created | None = None,
        on_progress: Progress | None = None,
    ) -> Upload:
        """Send a whole file: a path, bytes, or a binary file that can be rewound; returns when the service has checked
        its SHA-256, which is made while the file is sent.

        Each request carries up to `chunk_bytes`. After a cut, a service that is full, or one that is started anew, it
        goes on with the first byte that the service has not got, after up to `max_reconnects` failures in a row without
        a byte between. `on_created(upload)` is told the upload's id, with which, as `resume`, another process can go on
        with the same file; it reads once more what the service has already, for the SHA-256. `on_progress(sent_bytes,
        total_bytes)` is called after each chunk, and falls back to what was kept after a cut.

        Errors: SourceNotFound and OptionError before anything is sent; BodyTooLarge for more than the service takes;
        RequestRejected, with type `upload/digest` where the file was changed on its way: delete that upload;
        Overloaded, ConnectionFailed and RequestTimeout when trying again did not help.
        """
        course = sent(
            source,
            resume=resume,
            chunk_bytes=chunk_bytes,
            retries=self._retries.at_most(max_reconnects),
            on_progress=on_progress,
            on_created=on_created,
        )
        return self._follow(course)

    def get(self, upload: Upload | str) -> Upload:
        """How much of it the service has. NotFound: it has expired, was deleted, or is another key's."""
        return self._follow(got(upload, retries=self._retries))

    def delete(self, upload: Upload | str) -> None:
        """Leave nothing of it. NotFound as for `get`."""
        self._follow(deleted(upload, retries=self._retries))

    def _follow(self, course: Generator[Step, Any, T]) -> T:
        try:
            step = next(course)
            while True:
                try:
                    outcome = self._done(step)
                except ServiceError as error:
                    step = course.throw(error)
                else:
                    step = course.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def _done(self, step: Step) -> object:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        if not isinstance(step, Ask):
            return step.file.sha256()
        content = step.content if step.part is None else step.part.chunks()
        with typed_errors(self._http.base_url):
            return _good(self._http.request(step.method, step.path, headers=step.headers, content=content))


class AsyncUploads:
    """`AsyncClient.uploads`: as `Uploads`, awaited."""

    def __init__(self, http: httpx2.AsyncClient, *, retries: Retries) -> None:
        self._http = http
        self._retries = retries

    async def create(
        self,
        source: Source,
        *,
        resume: Upload | str | None = None,
        chunk_bytes: int = PART_BYTES,
        max_reconnects: int = MAX_RECONNECTS,
        on_created: Created | None = None,
        on_progress: Progress | None = None,
    ) -> Upload:
        """As `Uploads.create`; `on_created` and `on_progress` are called on the event loop."""
        course = sent(
            source,
            resume=resume,
            chunk_bytes=chunk_bytes,
            retries=self._retries.at_most(max_reconnects),
            on_progress=on_progress,
            on_created=on_created,
        )
        return await self._follow(course)

    async def get(self, upload: Upload | str) -> Upload:
        """As `Uploads.get`."""
        return await self._follow(got(upload, retries=self._retries))

    async def delete(self, upload: Upload | str) -> None:
        """As `Uploads.delete`."""
        await self._follow(deleted(upload, retries=self._retries))

    async def _follow(self, course: Generator[Step, Any, T]) -> T:
        try:
            step = next(course)
            while True:
                try:
                    outcome = await self._done(step)
                except ServiceError as error:
                    step = course.throw(error)
                else:
                    step = course.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _done(self, step: Step) -> object:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if not isinstance(step, Ask):
            return await asyncio.to_thread(step.file.sha256)
        content = step.content if step.part is None else step.part.chunks_async()
        with typed_errors(self._http.base_url):
            return _good(await self._http.request(step.method, step.path, headers=step.headers, content=content))


def _good(response: httpx2.Response) -> httpx2.Response:
    """Raises StatusError."""
    if response.is_error:
        raise status_error(response)
    return response
