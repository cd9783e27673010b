"""What a thing follows from, as one number. Knows nothing of what follows."""

import hashlib
from pathlib import Path

from vidseq.picture_folder import picture_paths


def content_hash(path: Path) -> bytes:
    """The SHA-256 of a clip's bytes; where the clip is a folder of frames, one of their names and bytes."""
    if not path.is_dir():
        return _digest(path)
    digest = hashlib.sha256()
    for file in picture_paths(path):
        digest.update(file.name.encode() + _digest(file))
    return digest.digest()


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def joint_hash(*parts: bytes | str) -> str:
    """One hash of several parts, told apart from any others that make the same bytes in a row."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
