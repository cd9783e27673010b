"""A model's folder, read: each file once, within bounds, against the hashes of its manifest. Knows not what is in them.

    manifest.json    schema, name, version, and the SHA-256 of every other file of the model
    signatures.json  who vouches for the manifest, and with it for all else (vidseq.signing); it names itself nowhere

What is hashed is what is used: bytes are read once, and nobody opens a file a second time. The folder is opened once,
too, so that a model that is replaced meanwhile is read whole as it was, or not at all. A folder may be reached through
a link; nothing in it may be one.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseq import signing
from vidseq.errors import CheckpointError

SCHEMA = 1
MANIFEST, SIGNATURES = "manifest.json", "signatures.json"
MAX_JSON_BYTES = 4 * 2**20  # a manifest has one KB, a config two, the answer to a known clip some hundreds at most
MAX_DOCUMENT_BYTES = 64 * 2**20  # a report with pictures has a few MB
MAX_FILES = 64
_PLAINLY = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # not to wait for who may fill a pipe
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Manifest:
    """What a manifest says, and its own SHA-256, which is the model's identity."""

    name: str
    version: str
    digests: Mapping[str, str]
    sha256: str


class ModelFolder:
    """An open folder, and its manifest, as bytes and as what they say. Made by `opened`."""

    def __init__(self, path: Path, descriptor: int, *, trusted_keys: Sequence[Path] | None) -> None:
        self.path = path
        self._descriptor = descriptor
        data = self._read(MANIFEST, max_bytes=MAX_JSON_BYTES)
        if data is None:
            raise CheckpointError(f"{path} is not a model: it has no {MANIFEST}")
        self.manifest_bytes = data
        if trusted_keys is not None:  # before a word of it is believed
            signing.require(self.signatures(), data, folder=path, trusted_keys=trusted_keys)
        self.manifest = _parsed(data, path / MANIFEST)

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """A file that the manifest names, checked.

        Raises:
            CheckpointError: it is missing, no plain file, larger than `max_bytes`, or not what the manifest says.
        """
        data = self._read(name, max_bytes=max_bytes)
        if data is None:
            raise CheckpointError(f"{self.path / name} is missing from the model")
        if sha256(data) != self.manifest.digests.get(name):
            raise CheckpointError(f"{self.path / name} is damaged: its SHA-256 is not the one in {MANIFEST}")
        return data

    def signatures(self) -> tuple[signing.Signature, ...]:
        """What stands in the file of signatures, whether it fits or not.

        Raises:
            CheckpointError: it is not such a file.
        """
        data = self._read(SIGNATURES, max_bytes=signing.MAX_BYTES)
        return () if data is None else signing.parsed(data, self.path / SIGNATURES)

    def _read(self, name: str, *, max_bytes: int) -> bytes | None:
        """All bytes of a plain file of this very folder; None where there is no such file."""
        path = self.path / name
        try:
            descriptor = os.open(name, _PLAINLY, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"{path} is a link, or cannot be read: {error.strerror}") from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError(f"{path} is not a plain file")
            if (num_bytes := os.fstat(descriptor).st_size) > max_bytes:
                raise CheckpointError(f"{path} has {num_bytes:,} bytes, where a model has at most {max_bytes:,}")
            data = file.read(max_bytes + 1)  # and not more, if it should grow now
        if len(data) > max_bytes:
            raise CheckpointError(f"{path} grew beyond {max_bytes:,} bytes while it was read")
        return data


@contextmanager
def opened(path: Path, *, trusted_keys: Sequence[Path] | None = None) -> Iterator[ModelFolder]:
    """A model's folder with its manifest read, and its signature checked where keys are given.

    Raises:
        CheckpointError: there is none, its manifest is damaged or of another version, or none of `trusted_keys` signed
            it.
        OptionError: one of `trusted_keys` is not the file of a public key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise CheckpointError(f"there is no model folder at {path}") from None
    try:
        yield ModelFolder(path, descriptor, trusted_keys=trusted_keys)
    finally:
        os.close(descriptor)


def manifest_of(files: Mapping[str, bytes], *, name: str, version: str) -> bytes:
    """The manifest of these files."""
    assert all(map(is_file_name, files)), f"no names for files of a model: {[*files]}"
    digests = {file: sha256(data) for file, data in files.items()}
    return json.dumps({"schema": SCHEMA, "name": name, "version": version, "files": digests}, indent=2).encode()


def is_file_name(name: object) -> bool:
    """Whether a manifest may name a file so: a plain word that leads nowhere else."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and name not in (MANIFEST, SIGNATURES)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _parsed(data: bytes, path: Path) -> Manifest:
    try:
        manifest: dict[str, Any] = json.loads(data)
        schema, files = manifest["schema"], manifest["files"]
        name, version = manifest["name"], manifest["version"]
        sound = (
            isinstance(files, dict)
            and len(files) <= MAX_FILES
            and all(is_file_name(file) and isinstance(digest, str) for file, digest in files.items())
            and all(isinstance(word, str) for word in (name, version))
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it is not a manifest") from None
    if schema != SCHEMA:
        raise CheckpointError(f"{path} has schema {schema!r:.50}; this version of vidseq reads schema {SCHEMA}")
    if not sound:
        raise CheckpointError(f"{path} is damaged: it is not a manifest")
    return Manifest(name=name, version=version, digests=files, sha256=sha256(data))
