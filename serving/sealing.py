"""Bytes that nobody else can read or change: at rest in a store, or in a caller's own hands. Knows no sessions.

    keys ─┬─ HKDF "at rest" ──> Vault    what a store keeps: opens under the name it was sealed under, and no other
          └─ HKDF "token" ────> Tokens   what a caller keeps: opens for its owner, in its time, and for nobody else

    sealed   version 1 | salt 24 | AES-256-GCM of the content | tag 16

Each message has a key and a nonce of its own, derived from its salt: one key may seal any number of messages without a
nonce coming twice, as it would after some 2**32 random ones (C2SP's XAES-256-GCM derives keys for the same reason).
Of several keys the first seals and each opens: put a new one in front, drop the last when nothing old is left.
"""

import base64
import binascii
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from vidseq.errors import OptionError, TokenError, VidseqError

KEY_BYTES = 32
MAX_PAYLOAD_BYTES = 128 * 1024  # of a token

_VERSION = b"\x01"
_HEAD_BYTES = 1 + 24  # version and salt
_TAG_BYTES = 16
_EXPIRY = struct.Struct(">d")  # Unix time
_MAX_TOKEN_LETTERS = (_HEAD_BYTES + _EXPIRY.size + MAX_PAYLOAD_BYTES + _TAG_BYTES) * 4 // 3 + 4


class SealBroken(VidseqError):
    """What a store kept does not open: none of our keys has sealed it, or it was changed. The operator's to mend."""

    code = "store/seal-broken"


def new_key() -> str:
    """32 random bytes as URL-safe base64."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def load_keys(source: str | Path) -> tuple[bytes, ...]:
    """The keys in a text, or in the file at a path: each 32 bytes as base64 or hex, with white space between them.

    Raises:
        OptionError: no file, no key, or something that is none; the message does not repeat it.
    """
    try:
        words = (source.read_text("utf-8") if isinstance(source, Path) else source).split()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the file of keys {source} cannot be read: {_reason(error)}") from None
    if not words:
        raise OptionError("there is no key: at least one of 32 bytes, as base64 or hex, is needed")
    return tuple(_parse_key(word, f"key {number} of {len(words)}") for number, word in enumerate(words, 1))


def _parse_key(word: str, name: str) -> bytes:
    try:
        if len(word) == 2 * KEY_BYTES:
            key = bytes.fromhex(word)
        else:
            key = base64.b64decode(word.replace("-", "+").replace("_", "/") + "=" * (-len(word) % 4), validate=True)
    except ValueError:
        raise OptionError(f"{name} is neither base64 nor hex") from None
    if len(key) != KEY_BYTES:
        raise OptionError(f"{name} has {len(key)} bytes; {KEY_BYTES} are needed")
    return key


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is not text"


class Vault:
    """Seals what a store keeps. Thread-safe."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._box = _Box(keys, purpose=b"vidseq at rest")

    def seal(self, content: bytes, *, name: str) -> bytes:
        """`content`, readable for `open` with the same name only: what lies elsewhere cannot be put in its place."""
        return self._box.seal(content, name=name.encode())

    def open(self, sealed: bytes, *, name: str) -> bytes:
        """What was sealed.

        Raises:
            SealBroken: under another name or with other keys; or it was changed since, or never sealed.
        """
        content = self._box.open(sealed, name=name.encode())
        if content is None:
            raise SealBroken(f"what the store keeps as {name!r} was changed, or sealed with a key that is not here")
        return content


class Tokens:
    """Seals what a caller holds for us, as a URL-safe text. Thread-safe."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._box = _Box(keys, purpose=b"vidseq token")

    def seal(self, payload: bytes, *, owner: str, lifetime_seconds: float) -> str:
        """A token that opens for `owner` (any text, "" for nobody in particular) until the lifetime has passed."""
        assert len(payload) <= MAX_PAYLOAD_BYTES, f"a payload of {len(payload):,} bytes"
        expiry = _EXPIRY.pack(time.time() + lifetime_seconds)
        return _to_text(self._box.seal(expiry + payload, name=owner.encode()))

    def open(self, token: str, *, owner: str) -> bytes:
        """The payload of a token, from a caller who may have sent anything.

        Raises:
            TokenError: too long, not a token, changed, of other keys, another owner's, or expired.
        """
        if len(token) > _MAX_TOKEN_LETTERS:
            raise TokenError(f"a resume token of {len(token):,} letters; at most {_MAX_TOKEN_LETTERS:,} are allowed")
        opened = self._box.open(_from_text(token), name=owner.encode())
        if opened is None:
            raise TokenError("the resume token was changed, or is not one of this service and this caller")
        (expires_seconds,) = _EXPIRY.unpack_from(opened)
        if (late_seconds := time.time() - expires_seconds) >= 0:
            raise TokenError(f"the resume token expired {late_seconds:,.0f} seconds ago")
        return opened[_EXPIRY.size :]


class _Box:
    """Authenticated encryption under keys that are derived for one purpose."""

    def __init__(self, keys: Sequence[bytes], *, purpose: bytes) -> None:
        assert keys, "no key"
        assert all(len(key) == KEY_BYTES for key in keys), f"a key that has not {KEY_BYTES} bytes"
        self._keys = [HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(key) for key in keys]

    def seal(self, content: bytes, *, name: bytes) -> bytes:
        head = _VERSION + os.urandom(_HEAD_BYTES - 1)
        cipher, nonce = _cipher(self._keys[0], head)
        return head + cipher.encrypt(nonce, content, name)

    def open(self, sealed: bytes, *, name: bytes) -> bytes | None:
        """The content; None if it was not sealed like this, with one of these keys, under this name."""
        head, rest = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        if not head.startswith(_VERSION) or len(rest) < _TAG_BYTES:
            return None
        for key in self._keys:
            cipher, nonce = _cipher(key, head)
            try:
                return cipher.decrypt(nonce, rest, name)
            except InvalidTag:
                continue
        return None


def _cipher(key: bytes, head: bytes) -> tuple[AESGCM, bytes]:
    """The cipher and the nonce of the one message that begins with `head`."""
    material = HKDFExpand(SHA256(), KEY_BYTES + 12, info=head).derive(key)
    return AESGCM(material[:KEY_BYTES]), material[KEY_BYTES:]


def _to_text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def _from_text(token: str) -> bytes:
    """The inverse of `_to_text`, and of nothing else: base64 has several texts for the same bytes."""
    try:
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        sealed = b""
    if not sealed or _to_text(sealed) != token:
        raise TokenError("this is not a resume token")
    return sealed
