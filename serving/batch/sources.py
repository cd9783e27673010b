"""A clip, wherever it lies: opened once, known by its bytes, to be read by the classifier. Knows no video."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from serving.batch.places import Place, in_words, is_url, without_secrets
from vidseq.container import open_source
from vidseq.errors import SourceLost, SourceNotFound, VidseqError


@contextmanager
def opened(name: str, *, max_bytes: int) -> Iterator[tuple[str, str]]:
    """A path under which these very bytes can be read meanwhile, and their SHA-256, in hexadecimal.

    What lies elsewhere is copied into memory first.

    Raises:
        SourceNotFound: there is no such file.
        SourceLost: it is there, and cannot be read to its end, or was written to meanwhile.
        EmptyVideo, TooManyBytes: as `open_source`.
    """
    descriptor = _fetched(name, max_bytes) if is_url(name) else open_source(name, max_bytes=max_bytes)
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)  # what was copied was written through it
        with open(descriptor, "rb", closefd=False) as file:
            before = _written(descriptor)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"/proc/self/fd/{descriptor}", sha256
        if _written(descriptor) != before:
            raise SourceLost(f"{without_secrets(name)!r} was written to while it was read")
    finally:
        os.close(descriptor)


def _written(descriptor: int) -> tuple[int, int]:
    """When, and how much there is."""
    status = os.fstat(descriptor)
    return status.st_mtime_ns, status.st_size


def _fetched(url: str, max_bytes: int) -> int:
    shown = without_secrets(url)
    try:
        place = Place.of(url)
        with place.files.open(place.path, "rb") as stream:
            return open_source(stream, max_bytes=max_bytes)
    except VidseqError:
        raise
    except FileNotFoundError:
        raise SourceNotFound(f"{shown!r} is not there, or cannot be reached") from None
    except Exception as error:  # of whatever library brings it, which may tell the URL with its secrets
        raise SourceLost(f"{shown!r} cannot be read: {in_words(error, url)}") from None
