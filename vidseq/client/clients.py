"""`Client` and `AsyncClient`: one surface, twice the I/O. What is sent, read and retried is decided elsewhere."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from datetime import date
from typing import Literal, Self

import httpx2

from vidseq.client.answers import AnswerT, read_answer, typed_errors
from vidseq.client.blocking import Stream, VideoStream
from vidseq.client.calls import DEFAULT_OPTIONS, DEFAULT_TIMEOUT_SECONDS, STREAM_RECONNECTS, Base, Call, Told
from vidseq.client.file_uploads import AsyncUploads, Uploads
from vidseq.client.hooks import Webhooks
from vidseq.client.jobs import AsyncJobs, Jobs
from vidseq.client.streams import AsyncStream, AsyncVideoStream
from vidseq.client.uploads import Progress, Source
from vidseq.errors import NotFound, ServiceError
from vidseq.messages import Open, Resume, StreamOptions
from vidseq.schemas import ALL_MODELS, Forgotten, ModelInfo, Models, Prediction, UsageDay


class Client(Base):
    """A blocking client; one may be shared by threads. Use it as a context manager, or `close()` it.

    `base_url` and `api_key` come from VIDSEQ_BASE_URL (default http://127.0.0.1:8000) and VIDSEQ_API_KEY where
    they are not given. `timeout_seconds` bounds each wait: for a piece of the body to be taken, and for the answer.
    `max_retries` is how often a call is repeated when the service is full or cannot be reached; 0 switches that
    off. `verify` says whom to trust over https, streams included, in place of those whom this machine trusts: for a
    certificate of your own, `ssl.create_default_context(cafile="ca.pem")`. `transport` is an httpx2 transport, for
    tests and special networks. Redirects are never followed: the key and the video stay with `base_url`.

    `uploads` sends files in pieces, each of which goes on where a connection was cut; `jobs` hands over many or large
    videos, to be labelled when it is their turn; `webhooks` tells whether it is a service that says a job has ended.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 3,
        verify: ssl.SSLContext | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout_seconds=timeout_seconds, max_retries=max_retries, verify=verify)
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers=self._headers,
            timeout=self._timeout,
            verify=self._verify,
            transport=transport,
        )
        self.uploads = Uploads(self._http, retries=self._retries)
        self.jobs = Jobs(self._ask, self.uploads, retries=self._retries)
        self.webhooks = Webhooks()

    def classify(
        self,
        source: Source,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        top_k: int = 5,
        frames: bool = True,
        segments: bool = True,
        model: str | None = None,
        early_exit: float | None = None,
        early_hold_seconds: float | None = None,
        idempotency_key: str | None = None,
        on_progress: Progress | None = None,
    ) -> Prediction:
        """Ask for the labels of one video: a path, its bytes, or a binary file (read from where it stands).

        `start_seconds` and `end_seconds` bound what is looked at; `frames=False` and `segments=False` leave those
        lists out of the answer; `model` names one of `models()`. `on_progress(sent_bytes, total_bytes)` is called
        after each chunk, and starts again from the first when the call is repeated. A file that cannot be rewound
        is sent once, without retries.

        With the video goes its SHA-256 (the header Content-Digest, RFC 9530), by which the service knows one that was
        damaged on its way: it gives no label, and is sent the video again. It costs one more reading of the file before
        the first byte is sent, some 0.7 s of a CPU for a GiB. A file that cannot be rewound is sent without.

        Each call has a key of its own (the header Idempotency-Key), which goes with all its retries: whatever becomes
        of connections and replicas, there is one answer. While an earlier try is still being executed, this waits for
        it. With an `idempotency_key` of yours, that you keep, another process can ask for the very same answer, for 24
        hours; RequestRejected (`idempotency/mismatch`) where it was used for another video or with other options.

        With `early_exit`, a score above 0.5 and up to 1, looking stops once the calibrated score of one action has been
        at least that for `early_hold_seconds` (1 if None): the answer's `early_exit` says when and how sure, and is
        None where the end of the video came first. The whole video is sent all the same. RequestRejected by a model
        that is not calibrated.

        Errors: SourceNotFound before anything is sent; VideoRejected, BodyTooLarge, Overloaded, ... with the
        server's words; ConnectionFailed and RequestTimeout when no answer came.
        """
        call = self._classify_call(
            source,
            Prediction,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            top_k=top_k,
            frames=frames,
            segments=segments,
            models=[] if model is None else [model],
            early_exit=early_exit,
            early_hold_seconds=early_hold_seconds,
            idempotency_key=idempotency_key,
            on_progress=on_progress,
        )
        return self._ask(call)

    def classify_each(
        self,
        source: Source,
        models: Sequence[str] = (),
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        top_k: int = 5,
        frames: bool = True,
        segments: bool = True,
        idempotency_key: str | None = None,
        on_progress: Progress | None = None,
    ) -> tuple[Prediction, ...]:
        """Ask several models of a service about one video, which is sent, decoded and encoded once.

        client.classify_each("clip.mp4", ["gestures", "safety"])

        `models` are names of `models()`, in the order of the answers; () is all that the key may ask, in the order of
        `models()`. The rest is as in `classify`, and so are the errors.
        """
        call = self._classify_call(
            source,
            Told,
            models=[*models] or [ALL_MODELS],
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            top_k=top_k,
            frames=frames,
            segments=segments,
            idempotency_key=idempotency_key,
            on_progress=on_progress,
        )
        return self._ask(call).predictions

    def stream(
        self,
        *,
        model: str | None = None,
        options: StreamOptions = DEFAULT_OPTIONS,
        keep: Literal["service", "client"] = "service",
        resume: Resume | None = None,
        max_reconnects: int = STREAM_RECONNECTS,
        collect: bool = True,
    ) -> Stream:
        """Label pictures as they are taken, for as long as they come.

        with client.stream() as stream:
            for seconds, image in camera:
                stream.push(image, seconds=seconds)
                for event in stream.take():
                    print(event)
            print(stream.end().action)

        A connection that is lost is opened again, up to `max_reconnects` times in a row, and the stream goes on: no
        label is lost or told twice. `keep` says who remembers the stream meanwhile: the service under a session's name,
        or the client by a token that any service with the same key takes. `resume` goes on with a stream that was left
        (`stream.resume`). `collect=False` keeps no frames and segments for the Prediction at the end: some 600
        bytes a label, which add up in a stream of days. The client's `timeout_seconds` bounds each wait for an answer.

        Errors, when the stream is entered and in each of its methods: RequestRejected with the service's words, in
        `type` and `detail`; Overloaded, ConnectionFailed and RequestTimeout when trying again did not help.
        """
        opening = Open(input="frames", model=model, keep=keep, options=options, resume=resume)
        return Stream(AsyncStream(self._terms(opening, max_reconnects=max_reconnects, collect=collect)))

    def classify_stream(
        self,
        source: Source,
        *,
        model: str | None = None,
        options: StreamOptions = DEFAULT_OPTIONS,
        faststart: bool = False,
        max_reconnects: int = STREAM_RECONNECTS,
        collect: bool = True,
        on_progress: Progress | None = None,
    ) -> VideoStream:
        """Label a video while it is still being sent: a path, its bytes, or a binary file (read from where it stands).

        labels = client.classify_stream("clip.mp4", faststart=True)
        for moment in labels:
            print(moment.seconds, moment.frame)
        print(labels.prediction.action)

        An MP4 with its index at the end gives no label before its last byte is there: `faststart` sends the index
        first. After a cut the video is sent again and no label is told twice; a file that cannot be rewound cannot be
        sent again, and the error says so. `on_progress` is as in `classify`, and is called in another thread.

        Errors: SourceNotFound before anything is sent; those of `stream`; VideoRejected.
        """
        opening = Open(input="video", model=model, options=options)
        terms = self._terms(opening, max_reconnects=max_reconnects, collect=collect)
        return VideoStream(AsyncVideoStream(terms, source, move_index=faststart, on_progress=on_progress))

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that the service has loaded; the first answers when none is named."""
        return self._ask(Call("GET", "v1/models", Models)).models

    def usage(
        self, *, since: date | None = None, until: date | None = None, key: str | None = None
    ) -> tuple[UsageDay, ...]:
        """What this key has used, day by day (UTC), from `since` up to and with `until`: the last 31 days if left out.

        A key with the scope admin is told of all keys, or of the one whose id is `key`.
        """
        days, after, more = list[UsageDay](), None, True
        while more:
            page = self._ask(self._usage_call(since, until, key, after))
            days += page.days
            after, more = page.next, page.next is not None
        return tuple(days)

    def forget(self, *, owner: str | None = None) -> Forgotten:
        """Have the service forget this key's videos: uploads, jobs, live sessions and answers to ask for again.

        A key with the scope admin may name another one's id as `owner`. Usage is not forgotten.
        """
        return self._ask(self._forget_call(owner))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(self, call: Call[AnswerT]) -> AnswerT:
        failures = self._failures(call)
        while True:
            try:
                return self._send(call)
            except NotFound:
                if call.if_gone is None or not failures.any:
                    raise
                return call.if_gone
            except ServiceError as error:
                pause_seconds = failures.pause_seconds(error)
            time.sleep(pause_seconds)

    def _send(self, call: Call[AnswerT]) -> AnswerT:
        upload = call.upload
        headers = call.headers(sha256=None if upload is None else upload.sha256())
        content = call.json if upload is None else upload.chunks()
        with typed_errors(self.base_url):
            response = self._http.request(call.method, call.path, params=call.params, headers=headers, content=content)
        return read_answer(response, call.answer)


class AsyncClient(Base):
    """As `Client`, for asyncio: the same arguments, methods, answers and errors; `close()` is awaited too."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 3,
        verify: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout_seconds=timeout_seconds, max_retries=max_retries, verify=verify)
        self._http = httpx2.AsyncClient(
            base_url=self.base_url,
            headers=self._headers,
            timeout=self._timeout,
            verify=self._verify,
            transport=transport,
        )
        self.uploads = AsyncUploads(self._http, retries=self._retries)
        self.jobs = AsyncJobs(self._ask, self.uploads, retries=self._retries)
        self.webhooks = Webhooks()

    async def classify(
        self,
        source: Source,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        top_k: int = 5,
        frames: bool = True,
        segments: bool = True,
        model: str | None = None,
        early_exit: float | None = None,
        early_hold_seconds: float | None = None,
        idempotency_key: str | None = None,
        on_progress: Progress | None = None,
    ) -> Prediction:
        """As `Client.classify`; `on_progress` is called on the event loop."""
        call = self._classify_call(
            source,
            Prediction,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            top_k=top_k,
            frames=frames,
            segments=segments,
            models=[] if model is None else [model],
            early_exit=early_exit,
            early_hold_seconds=early_hold_seconds,
            idempotency_key=idempotency_key,
            on_progress=on_progress,
        )
        return await self._ask(call)

    async def classify_each(
        self,
        source: Source,
        models: Sequence[str] = (),
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        top_k: int = 5,
        frames: bool = True,
        segments: bool = True,
        idempotency_key: str | None = None,
        on_progress: Progress | None = None,
    ) -> tuple[Prediction, ...]:
        """As `Client.classify_each`; `on_progress` is called on the event loop."""
        call = self._classify_call(
            source,
            Told,
            models=[*models] or [ALL_MODELS],
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            top_k=top_k,
            frames=frames,
            segments=segments,
            idempotency_key=idempotency_key,
            on_progress=on_progress,
        )
        return (await self._ask(call)).predictions

    def stream(
        self,
        *,
        model: str | None = None,
        options: StreamOptions = DEFAULT_OPTIONS,
        keep: Literal["service", "client"] = "service",
        resume: Resume | None = None,
        max_reconnects: int = STREAM_RECONNECTS,
        collect: bool = True,
    ) -> AsyncStream:
        """As `Client.stream`: `async with client.stream() as stream`, and its methods are awaited."""
        opening = Open(input="frames", model=model, keep=keep, options=options, resume=resume)
        return AsyncStream(self._terms(opening, max_reconnects=max_reconnects, collect=collect))

    def classify_stream(
        self,
        source: Source,
        *,
        model: str | None = None,
        options: StreamOptions = DEFAULT_OPTIONS,
        faststart: bool = False,
        max_reconnects: int = STREAM_RECONNECTS,
        collect: bool = True,
        on_progress: Progress | None = None,
    ) -> AsyncVideoStream:
        """As `Client.classify_stream`; `on_progress` is called on the event loop."""
        opening = Open(input="video", model=model, options=options)
        terms = self._terms(opening, max_reconnects=max_reconnects, collect=collect)
        return AsyncVideoStream(terms, source, move_index=faststart, on_progress=on_progress)

    async def models(self) -> tuple[ModelInfo, ...]:
        """As `Client.models`."""
        return (await self._ask(Call("GET", "v1/models", Models))).models

    async def usage(
        self, *, since: date | None = None, until: date | None = None, key: str | None = None
    ) -> tuple[UsageDay, ...]:
        """As `Client.usage`."""
        days, after, more = list[UsageDay](), None, True
        while more:
            page = await self._ask(self._usage_call(since, until, key, after))
            days += page.days
            after, more = page.next, page.next is not None
        return tuple(days)

    async def forget(self, *, owner: str | None = None) -> Forgotten:
        """As `Client.forget`."""
        return await self._ask(self._forget_call(owner))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _ask(self, call: Call[AnswerT]) -> AnswerT:
        failures = self._failures(call)
        while True:
            try:
                return await self._send(call)
            except NotFound:
                if call.if_gone is None or not failures.any:
                    raise
                return call.if_gone
            except ServiceError as error:
                pause_seconds = failures.pause_seconds(error)
            await asyncio.sleep(pause_seconds)

    async def _send(self, call: Call[AnswerT]) -> AnswerT:
        upload = call.upload
        headers = call.headers(sha256=None if upload is None else await upload.sha256_async())
        content = call.json if upload is None else upload.chunks_async()
        with typed_errors(self.base_url):
            response = await self._http.request(
                call.method, call.path, params=call.params, headers=headers, content=content
            )
        return read_answer(response, call.answer)
