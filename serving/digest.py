"""Whether a body is what its sender digested: Content-Digest (RFC 9530), checked as it comes. Knows no routes.

Content-Digest: sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:, another=:...:
"""

import base64
import hashlib
import re
from collections.abc import Sequence

from serving.problems import DigestMismatch, MalformedDigest

HEADER = "Content-Digest"
SHA256 = "sha-256"
ALGORITHMS = (SHA256, "sha-512")  # those that RFC 9530 calls active; they are named in hashlib without the dash

# A dictionary of RFC 9651 whose values are bytes. Neither base64 nor a key holds a comma; parameters say nothing here.
_MEMBER = re.compile(r"[ \t]*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):(?:;[^,]*)?[ \t]*")


class ContentDigest:
    """The digests that one request declares (none without such a header), and those of the bytes that came.

    Args:
        headers: the values of all its Content-Digest headers.
        sha256_wanted: `sha256` is asked for, whatever they declare.

    Raises:
        MalformedDigest: it cannot be read, or knows no algorithm that is known here.
    """

    def __init__(self, headers: Sequence[str], *, sha256_wanted: bool = False) -> None:
        declared = _read(", ".join(headers)) if headers else {}
        known = [name for name in ALGORITHMS if name in declared]
        if declared and not known:
            names = ", ".join(sorted(declared))[:100]
            raise MalformedDigest(f"{HEADER} is of {names}; send {' or '.join(ALGORITHMS)}")
        self._declared = {name: declared[name] for name in known}
        self._found = {name: hashlib.new(name.replace("-", "")) for name in known}
        if sha256_wanted and SHA256 not in self._found:
            self._found[SHA256] = hashlib.sha256()
        for name, digest in self._declared.items():
            if len(digest) != self._found[name].digest_size:
                its_bytes = self._found[name].digest_size
                raise MalformedDigest(f"{HEADER} has {len(digest)} bytes for {name}, which has {its_bytes}")

    def update(self, piece: bytes) -> None:
        """The next bytes of the body."""
        for found in self._found.values():
            found.update(piece)

    def sha256(self) -> bytes:
        """Of the bytes so far."""
        return self._found[SHA256].digest()

    def check(self) -> None:
        """After the last byte.

        Raises:
            DigestMismatch: they were other bytes.
        """
        for name, digest in self._declared.items():
            if self._found[name].digest() != digest:
                raise DigestMismatch(
                    f"{HEADER} is {name}=:{_written(digest)}: and the body that came has {name}="
                    f":{_written(self._found[name].digest())}: it was changed on its way, or while it was read"
                )


def _read(header: str) -> dict[str, bytes]:
    """The last value of each key, as RFC 9651 has it."""
    declared = {}
    for member in header.split(","):
        match = _MEMBER.fullmatch(member)
        if match is None:
            raise MalformedDigest(f"{HEADER} cannot be read at {member[:100]!r}; it looks like sha-256=:BASE64=:")
        name, written = match.groups()
        try:
            declared[name] = base64.b64decode(written, validate=True)
        except ValueError:
            raise MalformedDigest(f"{HEADER} has no base64 for {name[:50]}: {written[:100]!r}") from None
    return declared


def _written(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
