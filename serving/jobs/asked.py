"""What somebody asks for who makes a job: the body of POST /v1/jobs. Knows no routes and no store."""

import base64
import binascii
import hashlib
import json
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import EncodedBytes, EncoderProtocol, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from serving.classify_options import ClassifyOptions
from serving.jobs.settings import MAX_ITEMS
from vidseq.config import Config, PositiveSeconds, first_mistake
from vidseq.errors import OptionError
from vidseq.webhooks import key_of

MAX_CLIPS = 100  # each of which is a file of its own
MAX_FIELDS = 20  # of an object, which has fewer that mean anything
MAX_URL_LETTERS = 2000
# An item is one object and has no list; the rest is room for those in texts, which nobody can tell before the body is
# read. As many lists or objects, one in the other, take some 60 MB.
BRACKETS_PER_ITEM = 32
MAX_BRACKETS = MAX_ITEMS * BRACKETS_PER_ITEM


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
        try:
            parts.hostname.encode("idna")
        except UnicodeError:
            raise ValueError("its host is no name") from None
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
        seen = set[str]()
        for item in self.items:
            if item.custom_id is not None:
                if item.custom_id in seen:
                    raise ValueError(f"custom_id {item.custom_id!r} stands for more than one item")
                seen.add(item.custom_id)
        if sum(item.clip is not None for item in self.items) > MAX_CLIPS:
            raise ValueError(f"at most {MAX_CLIPS} clips may come in the job itself: upload the others")
        return self

    @classmethod
    def read(cls, body: bytes) -> "JobAsked":
        """What a body asks for. Blocks for a moment.

        Raises:
            OptionError: the first thing that is wrong with it; never a list of thousands.
        """
        _refuse_brackets(body)
        try:
            said = from_json(body)
        except ValueError as error:
            raise OptionError(f"the body is no JSON: {error}"[:200]) from None
        _refuse_swollen(said)
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            raise OptionError("the body is wrong: " + ": ".join(filter(None, first_mistake(error)))) from None

    def sha256(self) -> bytes:
        """Of all that makes it this job and no other."""
        asked = self.model_dump(mode="json", exclude={"webhook": {"secret"}})
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def _refuse_brackets(body: bytes) -> None:
    """Raises OptionError: more lists and objects than any body has that is right, before there is one of them."""
    num_brackets = body.count(b"[") + body.count(b"{")
    if num_brackets > MAX_BRACKETS:
        raise OptionError(
            f"the body is wrong: it has {num_brackets:,} opening brackets, those in texts among them; "
            f"{MAX_BRACKETS:,} are the most"
        )


def _refuse_swollen(said: Any) -> None:
    """Raises OptionError: an object or a list that is larger than any that is right, before each mistake is told."""
    waiting = [said]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if len(node) > MAX_FIELDS:
                raise OptionError(f"the body is wrong: an object has {len(node):,} fields; none here has as many")
            waiting += node.values()
        elif isinstance(node, list):
            if len(node) > MAX_ITEMS:
                raise OptionError(f"the body is wrong: a list has {len(node):,} entries; {MAX_ITEMS:,} are the most")
            waiting += node
