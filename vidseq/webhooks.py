"""Signed messages: who has the secret can tell that a message is ours, whole, and new. Knows no HTTP.

The scheme is that of the Standard Webhooks specification 1.0 (https://www.standardwebhooks.com), symmetric:

    webhook-id          the same however often a message is sent: whoever has seen it need not look again
    webhook-timestamp   Unix seconds of this sending
    webhook-signature   "v1," and the base64 of HMAC-SHA256 over "id.timestamp.body"; several with spaces between
"""

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Mapping

from vidseq.errors import OptionError, WebhookRefused

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
SECRET_PREFIX = "whsec_"
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
TOLERANCE_SECONDS = 5 * 60.0


def new_secret() -> str:
    """A secret of 32 random bytes, as `whsec_` and base64."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret.

    Raises:
        OptionError: it is none; the message does not repeat it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise OptionError(
            f"a webhook's secret is {SECRET_PREFIX} and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes as base64"
        )
    return key


def headers(message_id: str, body: bytes, *, secret: str, timestamp: int) -> dict[str, str]:
    """The three headers of a message; `timestamp` is in Unix seconds."""
    return {ID: message_id, TIMESTAMP: str(timestamp), SIGNATURE: _signature(message_id, str(timestamp), body, secret)}


def check(
    body: bytes, headers: Mapping[str, str], *, secret: str, tolerance_seconds: float = TOLERANCE_SECONDS
) -> None:
    """Let a message through that was signed with `secret`, no longer than `tolerance_seconds` ago.

    Raises:
        WebhookRefused: it was not, or a header is missing; the message does not tell how a right one would look.
        OptionError: the secret is none.
    """
    key_of(secret)
    sent = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp, signatures = (sent.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not (message_id and timestamp and signatures):
        raise WebhookRefused(f"the message lacks one of the headers {ID}, {TIMESTAMP} and {SIGNATURE}")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise WebhookRefused(f"{TIMESTAMP} is not a number of seconds")
    if abs(time.time() - int(timestamp)) > tolerance_seconds:
        raise WebhookRefused(f"the message was sent more than {tolerance_seconds:g} seconds ago, or is of the future")
    right = _signature(message_id, timestamp, body, secret).encode()
    if not any(hmac.compare_digest(right, signature.encode(errors="replace")) for signature in signatures.split(" ")):
        raise WebhookRefused("the message was not signed with this secret, or was changed")


def _signature(message_id: str, timestamp: str, body: bytes, secret: str) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()
