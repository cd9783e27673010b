"""Who vouches for a model: Ed25519 signatures of its manifest. Knows nothing of what a manifest says.

    message           b"vidseq model v1\\0" and the SHA-256 of manifest.json, 32 bytes that stand for every file
    signatures.json   {"schema": 1, "signatures": [{"public_key": base64, "signature": base64}, ...]}
    key id            the first 16 hex digits of the SHA-256 of a public key's 32 bytes: a name for people

A signature tells who, and trust is the caller's: keys are given as files (PEM), as many as there are while one takes
over from another. The first words of the message keep a signature from meaning anything elsewhere.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vidseq.errors import CheckpointError, OptionError

DOMAIN = b"vidseq model v1\0"
MAX_BYTES = 64 * 1024
MAX_KEY_BYTES = 16 * 1024


class Signature(BaseModel):
    """Of whom, and what he signed with it."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    public_key: bytes = Field(min_length=32, max_length=32)
    signature: bytes = Field(min_length=64, max_length=64)

    @property
    def key_id(self) -> str:
        return key_id(self.public_key)

    def fits(self, manifest: bytes) -> bool:
        """Whether it is this manifest that was signed."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(self.signature, message_of(manifest))
        except InvalidSignature:
            return False
        return True


class Signatures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    schema_: Literal[1] = Field(default=1, alias="schema")
    signatures: tuple[Signature, ...]


def message_of(manifest: bytes) -> bytes:
    """What is signed."""
    return DOMAIN + hashlib.sha256(manifest).digest()


def key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]


def signed(manifest: bytes, key: Ed25519PrivateKey, *, beside: Sequence[Signature] = ()) -> bytes:
    """A file of signatures with one of this key: beside those of other keys, in place of an older one of its own."""
    public_key = key.public_key().public_bytes_raw()
    others = [signature for signature in beside if signature.public_key != public_key]
    mine = Signature(public_key=public_key, signature=key.sign(message_of(manifest)))
    return Signatures(signatures=(*others, mine)).model_dump_json(indent=2, by_alias=True).encode()


def parsed(data: bytes, path: Path) -> tuple[Signature, ...]:
    """Raises CheckpointError: `data`, of the file `path`, holds no signatures."""
    try:
        return Signatures.model_validate_json(data).signatures
    except ValidationError:
        raise CheckpointError(f"{path} is damaged: it is no list of signatures") from None


def require(signatures: Sequence[Signature], manifest: bytes, *, folder: Path, trusted_keys: Sequence[Path]) -> None:
    """That one of these keys, at least, has signed this manifest.

    Raises:
        CheckpointError: none has.
        OptionError: no key is given, or what is given is none.
    """
    if not trusted_keys:
        raise OptionError("a signature is required, and of no key: nothing could be loaded")
    trusted = {public_key: key_id(public_key) for public_key in map(read_public_key, trusted_keys)}
    wanted = " or ".join(trusted.values())
    if not signatures:
        raise CheckpointError(f"{folder} is not signed, and a signature by key {wanted} is required")
    theirs = [signature for signature in signatures if signature.public_key in trusted]
    if not theirs:
        found = ", ".join(signature.key_id for signature in signatures)
        raise CheckpointError(f"{folder} is signed by key {found}, and a signature by key {wanted} is required")
    if not any(signature.fits(manifest) for signature in theirs):
        raise CheckpointError(
            f"{folder} is not what key {theirs[0].key_id} has signed: it was changed since, or the signature is "
            "another model's"
        )


def write_key_pair(path: Path, *, passphrase: bytes | None) -> tuple[Path, str]:
    """A new private key in `path`, for its owner's eyes, and the public one beside it; that one's path, and the id.

    Raises:
        OptionError: one of the files exists, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    encryption = (
        serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    )
    public_path = path.with_name(f"{path.stem}.pub.pem")
    if public_path.exists():
        raise OptionError(f"{public_path} exists: choose another name")
    _write_new(path, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption), mode=0o600)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write_new(public_path, public, mode=0o644)
    return public_path, key_id(key.public_key().public_bytes_raw())


def read_private_key(path: Path, *, passphrase: bytes | None) -> Ed25519PrivateKey:
    """Raises OptionError: it is no private key, of another kind, or does not open with `passphrase`."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=passphrase)
    except TypeError:  # of cryptography, for both
        words = "is locked with a passphrase" if passphrase is None else "has no passphrase, and one was given"
        raise OptionError(f"{path} {words}") from None
    except (ValueError, UnsupportedAlgorithm):
        words = "holds no private key (PEM)" if passphrase is None else "does not open with this passphrase"
        raise OptionError(f"{path} {words}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise OptionError(f"{path} is a key of another kind: Ed25519 is needed, `vidseq signing-key` makes one")
    return key


def is_locked(path: Path) -> bool:
    """Whether a private key wants a passphrase."""
    return b"ENCRYPTED" in _read(path)


def read_public_key(path: Path) -> bytes:
    """The 32 bytes of it. Raises OptionError: it is none."""
    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise OptionError(f"{path} is a private key, which belongs to nobody else: give the public one, *.pub.pem")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise OptionError(f"{path} holds no public key (PEM)") from None
    if not isinstance(key, Ed25519PublicKey):
        raise OptionError(f"{path} is a key of another kind: Ed25519 is needed, `vidseq signing-key` makes one")
    return key.public_bytes_raw()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise OptionError(f"{path} exists: choose another name") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
