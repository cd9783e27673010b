"""What a client is set to, and the questions it asks. Does no I/O."""

import base64
import os
import ssl
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic

import httpx2
from pydantic import model_validator

from vidseq import __version__
from vidseq.client.answers import AnswerT
from vidseq.client.conversation import Terms
from vidseq.client.retries import Failures, Retries
from vidseq.client.sockets import Address
from vidseq.client.uploads import Progress, Source, Upload, open_upload
from vidseq.errors import OptionError
from vidseq.messages import Open, StreamOptions
from vidseq.schemas import Forgotten, Predictions, UsagePage

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_SECONDS = 180.0  # more than the service allows itself
CONNECT_SECONDS = 10.0
STREAM_RECONNECTS = 12  # some 50 seconds: a service that is started anew is waited for
DEFAULT_OPTIONS = StreamOptions()


@dataclass(frozen=True)
class Call(Generic[AnswerT]):
    """One question to the service: where to, with what, and the type of its answer.

    `if_gone` is the answer of one that deletes and, asked again after an answer that was lost, finds nothing any more.
    """

    method: str
    path: str
    answer: type[AnswerT]
    params: dict[str, str | list[str]] = field(default_factory=dict)
    upload: Upload | None = None
    json: bytes | None = None
    idempotency_key: str | None = None
    if_gone: AnswerT | None = None

    def headers(self, *, sha256: bytes | None) -> dict[str, str]:
        """`sha256` is that of the body, where there is one and its bytes are known (RFC 9530)."""
        headers = {} if self.idempotency_key is None else {"Idempotency-Key": self.idempotency_key}
        if self.json is not None:
            headers["Content-Type"] = "application/json"
        if self.upload is None:
            return headers
        headers["Content-Type"] = "application/octet-stream"
        if self.upload.num_bytes is not None:
            headers["Content-Length"] = str(self.upload.num_bytes)
        if sha256 is not None:
            headers["Content-Digest"] = f"sha-256=:{base64.b64encode(sha256).decode()}:"
        return headers


class Told(Predictions):
    """What one model or several were asked: the answer of one alone comes by itself."""

    @model_validator(mode="before")
    @classmethod
    def _one_alone(cls, data: Any) -> Any:
        return data if not isinstance(data, dict) or "predictions" in data else {"predictions": [data]}


class Base:
    """All that is not I/O: settings, how calls are made, when they are repeated."""

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        *,
        timeout_seconds: float,
        max_retries: int,
        verify: ssl.SSLContext | None,
    ) -> None:
        self.base_url = _checked_base_url(base_url or os.environ.get("VIDSEQ_BASE_URL") or DEFAULT_BASE_URL)
        self._headers = {"User-Agent": f"vidseq/{__version__}"}
        if key := api_key or os.environ.get("VIDSEQ_API_KEY"):
            self._headers["Authorization"] = f"Bearer {_checked_key(key)}"
        if not timeout_seconds > 0:
            raise OptionError(f"timeout_seconds is {timeout_seconds}; more than 0 is needed")
        self._timeout_seconds = timeout_seconds
        self._timeout = httpx2.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS))
        self._retries = Retries(max_retries)
        self._verify = verify or httpx2.create_ssl_context()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.base_url)!r})"

    def _classify_call(
        self,
        source: Source,
        answer: type[AnswerT],
        *,
        models: Sequence[str],
        start_seconds: float | None,
        end_seconds: float | None,
        top_k: int,
        frames: bool,
        segments: bool,
        idempotency_key: str | None,
        on_progress: Progress | None,
        early_exit: float | None = None,
        early_hold_seconds: float | None = None,
    ) -> Call[AnswerT]:
        params: dict[str, str | list[str]] = {
            "top_k": str(top_k),
            "frames": str(frames).lower(),
            "segments": str(segments).lower(),
        }
        optional = {
            "start": start_seconds,
            "end": end_seconds,
            "early_exit": early_exit,
            "early_hold": early_hold_seconds,
        }
        params |= {name: str(value) for name, value in optional.items() if value is not None}
        if models:
            params["model"] = [*models]
        key = checked_idempotency_key(idempotency_key)
        upload = open_upload(source, on_progress=on_progress)
        return Call("POST", "v1/classify", answer, params=params, upload=upload, idempotency_key=key)

    def _usage_call(
        self, since: date | None, until: date | None, key: str | None, after: str | None
    ) -> Call[UsagePage]:
        optional = {"since": since, "until": until, "key": key, "after": after}
        params: dict[str, str | list[str]] = {name: str(value) for name, value in optional.items() if value is not None}
        return Call("GET", "v1/usage", UsagePage, params=params)

    def _forget_call(self, owner: str | None) -> Call[Forgotten]:
        return Call("DELETE", "v1/data", Forgotten, params={} if owner is None else {"owner": owner})

    def _terms(self, opening: Open, *, max_reconnects: int, collect: bool) -> Terms:
        scheme = {"http": "ws", "https": "wss"}[self.base_url.scheme]
        url = self.base_url.copy_with(scheme=scheme, path=self.base_url.path.rstrip("/") + "/v1/streams")
        connect_seconds = min(self._timeout_seconds, CONNECT_SECONDS)
        return Terms(
            address=Address(url, self._headers, tls=self._verify, connect_seconds=connect_seconds),
            opening=opening,
            timeout_seconds=self._timeout_seconds,
            retries=self._retries,
            reconnects=Retries(max_reconnects),
            collect=collect,
        )

    def _failures(self, call: Call[AnswerT]) -> Failures:
        return Failures(self._retries, repeatable=call.upload is None or call.upload.repeatable)


def checked_idempotency_key(key: str | None) -> str:
    """One that is good; a new one for None. Raises OptionError."""
    if key is None:
        return str(uuid.uuid4())
    if not (1 <= len(key) <= 255 and key.isascii() and key.isprintable() and key.strip() == key):
        raise OptionError("an idempotency_key has 1 to 255 printable ASCII characters, and no space at its ends")
    return key


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
