"""What somebody asks for who makes a job: the body of POST /v1/jobs. Knows no routes and no store."""

import base64
import binascii
import hashlib
import json
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import EncodedBytes, EncoderProtocol, Field, SecretStr, field_validator, model_validator

from serving.classify_options import ClassifyOptions
from vidseq.config import Config, PositiveSeconds
from vidseq.errors import OptionError
from vidseq.webhooks import key_of

MAX_ITEMS = 100_000  # whatever the settings say
MAX_URL_LETTERS = 2000


class _Base64(EncoderProtocol):
    """RFC 4648, 4; strict: what is no base64 would else be read as some video."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise ValueError("it is not base64") from None

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> Literal["base64"]:
        return "base64"


Clip = Annotated[bytes, EncodedBytes(encoder=_Base64), Field(min_length=1)]
CustomId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[ -~]+$")]


class WebhookAsked(Config):
    """Who is told when the job has ended: a message, signed with the secret."""

    url: str = Field(max_length=MAX_URL_LETTERS, description="https://example.org/hooks/vidseq, say")
    secret: SecretStr = Field(description="whsec_ and 24 to 64 random bytes as base64: signs the message")

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port_fits = parts.port is None or parts.port > 0
        except ValueError:
            raise ValueError("it is not a URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits:
            raise ValueError("it is not a URL of http or https with a host")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("it holds a user, a password or a fragment: the signature says who sends")
        if not (url.isascii() and url.isprintable() and " " not in url):
            raise ValueError("it holds a character that a URL does not have")
        return url

    @field_validator("secret")
    @classmethod
    def _secret(cls, secret: SecretStr) -> SecretStr:
        try:
            key_of(secret.get_secret_value())
        except OptionError as error:
            raise ValueError(str(error)) from None
        return secret


class ItemAsked(Config):
    """One video: a complete upload, or its bytes; and what the caller calls it, of which the service makes nothing."""

    upload: str | None = Field(default=None, max_length=100, description="the id of a complete upload")
    clip: Clip | None = Field(default=None, description="a small video itself, in place of an upload")
    custom_id: CustomId | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.upload is None) is (self.clip is None):
            raise ValueError("either upload or clip is needed")
        return self


class JobAsked(Config):
    """Videos, with the options of POST /v1/classify for all of them."""

    items: tuple[ItemAsked, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    options: ClassifyOptions = ClassifyOptions()
    webhook: WebhookAsked | None = None
    time_to_live_seconds: PositiveSeconds | None = Field(
        default=None, description="when all of the job is deleted, whether or not it has ended, from now"
    )

    @model_validator(mode="after")
    def _ids(self) -> Self:
        named = [item.custom_id for item in self.items if item.custom_id is not None]
        if len(set(named)) != len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise ValueError(f"custom_id {twice!r} stands for more than one item")
        return self

    def sha256(self) -> bytes:
        """Of all that makes it this job and no other."""
        asked = self.model_dump(mode="json", exclude={"webhook": {"secret"}})
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
