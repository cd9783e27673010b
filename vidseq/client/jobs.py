"""`client.jobs`, twice: videos that are handed over, and what comes of them, with and without asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol, Unpack

from pydantic import PrivateAttr

from vidseq import jobs as wire
from vidseq.client import job_calls
from vidseq.client.answers import AnswerT
from vidseq.client.calls import Call
from vidseq.client.courses import Created
from vidseq.client.file_uploads import AsyncUploads, Uploads
from vidseq.client.job_calls import Asked, Item, Video, videos_of
from vidseq.client.retries import Retries
from vidseq.client.uploads import Source
from vidseq.client.watching import Watching
from vidseq.errors import RequestRejected, ServiceError, StatusError, VidseqError
from vidseq.jobs import Delivery, JobResult
from vidseq.schemas import Upload

Uploaded = Callable[[int, int], object]
"""Called when another video of a job is with the service: how many are, of how many."""


class Ask(Protocol):
    def __call__(self, call: Call[AnswerT], /) -> AnswerT: ...


class AsyncAsk(Protocol):
    async def __call__(self, call: Call[AnswerT], /) -> AnswerT: ...


class Job(wire.Job):
    """A job as it was when the service told of it, and a way back to the service."""

    _jobs: "Jobs" = PrivateAttr()

    def wait(
        self, *, on_progress: Callable[["Job"], object] | None = None, timeout_seconds: float | None = None
    ) -> "Job":
        """The job when it has ended; `on_progress` is called with what it is until then, each time that has changed.

        A service that is started anew, cannot be reached or is full is waited for until `timeout_seconds` are over;
        where they are None, until that has gone on for 15 minutes. A client with `max_retries=0` does not wait for it.

        Errors: JobUnfinished after `timeout_seconds`; NotFound once it has expired, or is deleted; ConnectionFailed,
        RequestTimeout, Overloaded and ServerFault when the service was waited for in vain.
        """
        return self._jobs.wait(self, on_progress=on_progress, timeout_seconds=timeout_seconds)

    def results(self) -> Iterator[JobResult]:
        """As `Jobs.results`."""
        return self._jobs.results(self)

    def cancel(self) -> "Job":
        """As `Jobs.cancel`."""
        return self._jobs.cancel(self)


class Jobs:
    """`Client.jobs`: hand over videos, go away, and ask later on.

    job = client.jobs.create(["a.mp4", "b.mp4"]).wait()
    for result in job.results(): ...
    """

    def __init__(self, ask: Ask, uploads: Uploads, *, retries: Retries) -> None:
        self._ask = ask
        self._uploads = uploads
        self._retries = retries

    def create(
        self,
        videos: Sequence[Source | Upload | Video],
        *,
        on_uploaded: Uploaded | None = None,
        **asked: Unpack[Asked],
    ) -> Job:
        """Hand over videos: paths, bytes, binary files, or what `client.uploads.create` gave; `Video(..., custom_id=)`
        gives one a name of yours.

        They are uploaded one after the other, each as `client.uploads.create` does it. When this returns, the job is on
        the service's disk, once, whatever becomes of connections. Where an upload fails, or the job is refused, what
        was uploaded for it is deleted before the error is raised. What may be `asked` besides stands in `Asked`.

        Errors: those of `client.uploads.create`; RequestRejected with the server's words; Overloaded where the key has
        too many jobs that go on.
        """
        given, made = videos_of(videos), list[Upload]()
        try:
            items = self._uploaded(given, made.append, on_uploaded)
            call = job_calls.create_call(Job, items, asked)
        except BaseException:  # whatever it is, an interrupt too: nobody else knows of what was made, and it counts
            self._delete_all(made)
            raise
        try:
            return self._bound(self._ask(call))
        except StatusError as error:
            self._delete_all(job_calls.left_over(error, made))
            raise

    def get(self, job: wire.Job | str) -> Job:
        """As it is now. NotFound: it has expired, was deleted, or is another key's."""
        return self._bound(self._ask(job_calls.get_call(Job, job)))

    def list(self) -> Iterator[Job]:
        """All jobs of this key, the newest first; asked for page by page."""
        after, more = None, True
        while more:
            page = self._ask(job_calls.page_call(after))
            for told in page.jobs:
                yield self._bound(Job.model_validate(told.model_dump()))
            after, more = page.next, page.next is not None

    def results(self, job: wire.Job | str) -> Iterator[JobResult]:
        """What came of each video, in the order of the job; asked for page by page. Also while the job goes on."""
        after, more = None, True
        while more:
            page = self._ask(job_calls.results_call(job, after))
            yield from page.results
            after, more = page.next, page.next is not None

    def wait(
        self,
        job: wire.Job | str,
        *,
        on_progress: Callable[[Job], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> Job:
        """As `Job.wait`."""
        watching = Watching(on_progress, timeout_seconds, self._retries)
        while True:
            try:
                now = self.get(job)
            except ServiceError as error:
                time.sleep(watching.seconds_after_failure(error))
                continue
            if (pause_seconds := watching.seconds_after(now)) is None:
                return now
            time.sleep(pause_seconds)

    def cancel(self, job: wire.Job | str) -> Job:
        """End it now: what has been labelled stays, the rest never will be. One that has ended stays as it is."""
        return self._bound(self._ask(job_calls.cancel_call(Job, job)))

    def delete(self, job: wire.Job | str) -> None:
        """Leave nothing of it, nor of its videos, unless another job needs them. NotFound as for `get`; not where the
        answer to an earlier try was lost, which may have deleted it.
        """
        self._ask(job_calls.delete_call(job))

    def deliveries(self, job: wire.Job | str) -> tuple[Delivery, ...]:
        """What was sent to its webhook, how often, and what was answered."""
        return self._ask(job_calls.deliveries_call(job)).deliveries

    def _uploaded(self, given: Sequence[Video], on_created: Created, on_uploaded: Uploaded | None) -> Sequence[Item]:
        """The videos as uploads with their names; `on_created` is told of each that is made, before its first byte."""
        items = list[Item]()
        for video in given:
            source = video.source
            upload = source if isinstance(source, Upload) else self._uploads.create(source, on_created=on_created)
            items.append((upload, video.custom_id))
            if on_uploaded is not None:
                on_uploaded(len(items), len(given))
        return items

    def _delete_all(self, uploads: Sequence[Upload]) -> None:
        """As many as can be, for a caller who is told of another error."""
        with suppress(VidseqError):  # it would be so of each of the others, and take as long
            for upload in uploads:
                with suppress(RequestRejected):  # this one has gone already
                    self._uploads.delete(upload)

    def _bound(self, job: Job) -> Job:
        job._jobs = self
        return job


class AsyncJob(wire.Job):
    """As `Job`; its methods are awaited."""

    _jobs: "AsyncJobs" = PrivateAttr()

    async def wait(
        self, *, on_progress: Callable[["AsyncJob"], object] | None = None, timeout_seconds: float | None = None
    ) -> "AsyncJob":
        """As `Job.wait`, which says how long a service that is away is waited for; `on_progress` is called on the event
        loop.
        """
        return await self._jobs.wait(self, on_progress=on_progress, timeout_seconds=timeout_seconds)

    def results(self) -> AsyncIterator[JobResult]:
        """As `Jobs.results`."""
        return self._jobs.results(self)

    async def cancel(self) -> "AsyncJob":
        """As `Jobs.cancel`."""
        return await self._jobs.cancel(self)


class AsyncJobs:
    """`AsyncClient.jobs`: as `Jobs`, awaited."""

    def __init__(self, ask: AsyncAsk, uploads: AsyncUploads, *, retries: Retries) -> None:
        self._ask = ask
        self._uploads = uploads
        self._retries = retries

    async def create(
        self,
        videos: Sequence[Source | Upload | Video],
        *,
        on_uploaded: Uploaded | None = None,
        **asked: Unpack[Asked],
    ) -> AsyncJob:
        """As `Jobs.create`."""
        given, made = videos_of(videos), list[Upload]()
        try:
            items = await self._uploaded(given, made.append, on_uploaded)
            call = job_calls.create_call(AsyncJob, items, asked)
        except BaseException:  # whatever it is, an interrupt too: nobody else knows of what was made, and it counts
            await self._delete_all(made)
            raise
        try:
            return self._bound(await self._ask(call))
        except StatusError as error:
            await self._delete_all(job_calls.left_over(error, made))
            raise

    async def get(self, job: wire.Job | str) -> AsyncJob:
        """As `Jobs.get`."""
        return self._bound(await self._ask(job_calls.get_call(AsyncJob, job)))

    async def list(self) -> AsyncIterator[AsyncJob]:
        """As `Jobs.list`."""
        after, more = None, True
        while more:
            page = await self._ask(job_calls.page_call(after))
            for told in page.jobs:
                yield self._bound(AsyncJob.model_validate(told.model_dump()))
            after, more = page.next, page.next is not None

    async def results(self, job: wire.Job | str) -> AsyncIterator[JobResult]:
        """As `Jobs.results`."""
        after, more = None, True
        while more:
            page = await self._ask(job_calls.results_call(job, after))
            for result in page.results:
                yield result
            after, more = page.next, page.next is not None

    async def wait(
        self,
        job: wire.Job | str,
        *,
        on_progress: Callable[[AsyncJob], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncJob:
        """As `AsyncJob.wait`."""
        watching = Watching(on_progress, timeout_seconds, self._retries)
        while True:
            try:
                now = await self.get(job)
            except ServiceError as error:
                await asyncio.sleep(watching.seconds_after_failure(error))
                continue
            if (pause_seconds := watching.seconds_after(now)) is None:
                return now
            await asyncio.sleep(pause_seconds)

    async def cancel(self, job: wire.Job | str) -> AsyncJob:
        """As `Jobs.cancel`."""
        return self._bound(await self._ask(job_calls.cancel_call(AsyncJob, job)))

    async def delete(self, job: wire.Job | str) -> None:
        """As `Jobs.delete`."""
        await self._ask(job_calls.delete_call(job))

    async def deliveries(self, job: wire.Job | str) -> tuple[Delivery, ...]:
        """As `Jobs.deliveries`."""
        return (await self._ask(job_calls.deliveries_call(job))).deliveries

    async def _uploaded(
        self, given: Sequence[Video], on_created: Created, on_uploaded: Uploaded | None
    ) -> Sequence[Item]:
        items = list[Item]()
        for video in given:
            source = video.source
            upload = source if isinstance(source, Upload) else await self._uploads.create(source, on_created=on_created)
            items.append((upload, video.custom_id))
            if on_uploaded is not None:
                on_uploaded(len(items), len(given))
        return items

    async def _delete_all(self, uploads: Sequence[Upload]) -> None:
        with suppress(VidseqError):  # it would be so of each of the others, and take as long
            for upload in uploads:
                with suppress(RequestRejected):  # this one has gone already
                    await self._uploads.delete(upload)

    def _bound(self, job: AsyncJob) -> AsyncJob:
        job._jobs = self
        return job
