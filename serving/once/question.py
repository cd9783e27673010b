"""What a request with a key asks, as one value: two are the same if all of it is. Knows no answers.

    Idempotency-Key: 7f1c0f7e-3f0c-4a4e-9a57-1d0a52b6b0c4

The header is that of draft-ietf-httpapi-idempotency-key-header. Its value is taken as it stands: 1 to 255 printable
ASCII characters, of which quotes are two like any others.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.datastructures import Headers

from serving.problems import IdempotencyKeyMalformed
from vidseq.schemas import ModelInfo

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"  # of an answer: it was given before
KEPT = "Idempotency-Kept"  # of an answer: false, where it is too large to be given again
MAX_KEY_LETTERS = 255


@dataclass(frozen=True)
class Question:
    """Whose it is, what he calls it, and what it is. The name is kept as a hash: it may tell of somebody."""

    owner: str
    key_sha256: bytes
    asked_sha256: bytes
    model_sha256: str


def key_in(headers: Headers) -> str | None:
    """The key of a request, None where it carries none. Raises IdempotencyKeyMalformed."""
    sent = headers.getlist(HEADER)
    if not sent:
        return None
    if len(sent) > 1:
        raise IdempotencyKeyMalformed(f"{HEADER} was sent {len(sent)} times; once is enough")
    key = sent[0]
    if not 1 <= len(key) <= MAX_KEY_LETTERS:
        raise IdempotencyKeyMalformed(f"{HEADER} has {len(key)} characters; from 1 to {MAX_KEY_LETTERS} are allowed")
    if not (key.isascii() and key.isprintable()):
        raise IdempotencyKeyMalformed(f"{HEADER} holds a character that is not printable ASCII")
    return key


def question(
    *,
    owner: str,
    key: str,
    method: str,
    path: str,
    options: BaseModel,
    body_sha256: bytes,
    models: Sequence[ModelInfo],
) -> Question:
    """`options` are those that count, given or not: what is left out is the same as its default."""
    asked = [method, path, options.model_dump(mode="json"), body_sha256.hex()]
    return Question(
        owner=owner,
        key_sha256=hashlib.sha256(key.encode()).digest(),
        asked_sha256=hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest(),
        model_sha256=_together([model.sha256 for model in models]),
    )


def _together(hashes: Sequence[str]) -> str:
    """One hash for all; that of one is its own."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
