"""`Client` and `AsyncClient`: one surface, twice the I/O. What is sent, read and retried is decided elsewhere."""

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import Generic, Self

import httpx2

from vidseq import __version__
from vidseq.client.answers import AnswerT, read_answer, typed_errors
from vidseq.client.retries import Retries
from vidseq.client.uploads import Progress, Source, Upload, open_upload
from vidseq.errors import OptionError, ServiceError
from vidseq.schemas import ModelInfo, Models, Prediction

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_SECONDS = 180.0  # more than the service allows itself
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class _Call(Generic[AnswerT]):
    """One question to the service: where to, with what, and the type of its answer."""

    method: str
    path: str
    answer: type[AnswerT]
    params: dict[str, str] = field(default_factory=dict)
    upload: Upload | None = None

    @property
    def headers(self) -> dict[str, str]:
        if self.upload is None:
            return {}
        headers = {"Content-Type": "application/octet-stream"}
        if self.upload.num_bytes is not None:
            headers["Content-Length"] = str(self.upload.num_bytes)
        return headers


class _Base:
    """All that is not I/O: settings, how calls are made, when they are repeated."""

    def __init__(self, base_url: str | None, api_key: str | None, *, timeout_seconds: float, max_retries: int) -> None:
        self.base_url = _checked_base_url(base_url or os.environ.get("VIDSEQ_BASE_URL") or DEFAULT_BASE_URL)
        self._headers = {"User-Agent": f"vidseq/{__version__}"}
        if key := api_key or os.environ.get("VIDSEQ_API_KEY"):
            self._headers["Authorization"] = f"Bearer {_checked_key(key)}"
        if not timeout_seconds > 0:
            raise OptionError(f"timeout_seconds is {timeout_seconds}; more than 0 is needed")
        self._timeout = httpx2.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS))
        self._retries = Retries(max_retries)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.base_url)!r})"

    def _classify_call(
        self,
        source: Source,
        *,
        start_seconds: float | None,
        end_seconds: float | None,
        top_k: int,
        frames: bool,
        segments: bool,
        model: str | None,
        on_progress: Progress | None,
    ) -> _Call[Prediction]:
        params = {"top_k": str(top_k), "frames": str(frames).lower(), "segments": str(segments).lower()}
        optional = {"start": start_seconds, "end": end_seconds, "model": model}
        params |= {name: str(value) for name, value in optional.items() if value is not None}
        upload = open_upload(source, on_progress=on_progress)
        return _Call("POST", "v1/classify", Prediction, params=params, upload=upload)

    def _pause_seconds(self, call: _Call[AnswerT], error: ServiceError, num_failed: int) -> float:
        """How long to wait before the next try; raises `error` where there is to be none."""
        repeatable = call.upload is None or call.upload.repeatable
        seconds = self._retries.pause_seconds(error, num_failed=num_failed) if repeatable else None
        if seconds is None:
            raise error
        return seconds


class Client(_Base):
    """A blocking client; one may be shared by threads. Use it as a context manager, or `close()` it.

    `base_url` and `api_key` come from VIDSEQ_BASE_URL (default http://127.0.0.1:8000) and VIDSEQ_API_KEY where
    they are not given. `timeout_seconds` bounds each wait: for a piece of the body to be taken, and for the answer.
    `max_retries` is how often a call is repeated when the service is full or cannot be reached; 0 switches that
    off. `transport` is an httpx2 transport, for tests and special networks. Redirects are never followed: the key
    and the video stay with `base_url`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 3,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout_seconds=timeout_seconds, max_retries=max_retries)
        self._http = httpx2.Client(
            base_url=self.base_url, headers=self._headers, timeout=self._timeout, transport=transport
        )

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
        on_progress: Progress | None = None,
    ) -> Prediction:
        """Ask for the labels of one video: a path, its bytes, or a binary file (read from where it stands).

        `start_seconds` and `end_seconds` bound what is looked at; `frames=False` and `segments=False` leave those
        lists out of the answer; `model` names one of `models()`. `on_progress(sent_bytes, total_bytes)` is called
        after each chunk, and starts again from the first when the call is repeated. A file that cannot be rewound
        is sent once, without retries.

        Errors: SourceNotFound before anything is sent; VideoRejected, BodyTooLarge, Overloaded, ... with the
        server's words; ConnectionFailed and RequestTimeout when no answer came.
        """
        call = self._classify_call(
            source,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            top_k=top_k,
            frames=frames,
            segments=segments,
            model=model,
            on_progress=on_progress,
        )
        return self._ask(call)

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that the service has loaded; the first answers when none is named."""
        return self._ask(_Call("GET", "v1/models", Models)).models

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(self, call: _Call[AnswerT]) -> AnswerT:
        num_failed = 0
        while True:
            try:
                return self._send(call)
            except ServiceError as error:
                num_failed += 1
                pause_seconds = self._pause_seconds(call, error, num_failed)
            time.sleep(pause_seconds)

    def _send(self, call: _Call[AnswerT]) -> AnswerT:
        content = None if call.upload is None else call.upload.chunks()
        with typed_errors(self.base_url):
            response = self._http.request(
                call.method, call.path, params=call.params, headers=call.headers, content=content
            )
        return read_answer(response, call.answer)


class AsyncClient(_Base):
    """As `Client`, for asyncio: the same arguments, methods, answers and errors; `close()` is awaited too."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 3,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout_seconds=timeout_seconds, max_retries=max_retries)
        self._http = httpx2.AsyncClient(
            base_url=self.base_url, headers=self._headers, timeout=self._timeout, transport=transport
        )

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
        on_progress: Progress | None = None,
    ) -> Prediction:
        """As `Client.classify`; `on_progress` is called on the event loop."""
        call = self._classify_call(
            source,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            top_k=top_k,
            frames=frames,
            segments=segments,
            model=model,
            on_progress=on_progress,
        )
        return await self._ask(call)

    async def models(self) -> tuple[ModelInfo, ...]:
        """As `Client.models`."""
        return (await self._ask(_Call("GET", "v1/models", Models))).models

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _ask(self, call: _Call[AnswerT]) -> AnswerT:
        num_failed = 0
        while True:
            try:
                return await self._send(call)
            except ServiceError as error:
                num_failed += 1
                pause_seconds = self._pause_seconds(call, error, num_failed)
            await asyncio.sleep(pause_seconds)

    async def _send(self, call: _Call[AnswerT]) -> AnswerT:
        content = None if call.upload is None else call.upload.chunks_async()
        with typed_errors(self.base_url):
            response = await self._http.request(
                call.method, call.path, params=call.params, headers=call.headers, content=content
            )
        return read_answer(response, call.answer)


def _checked_base_url(base_url: str) -> httpx2.URL:
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise OptionError(f"base_url is not a URL: {error}") from error
    if url.userinfo:  # not repeated: it is a secret
        raise OptionError("base_url holds a user or a password; pass api_key instead")
    if url.scheme not in ("http", "https") or not url.host:
        raise OptionError(f"base_url is {base_url!r}; it looks like http://host:port")
    return url


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable() and " " not in key):  # not repeated either
        raise OptionError("api_key holds a character that cannot be sent: it is printable ASCII without spaces")
    return key
