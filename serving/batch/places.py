"""Where files lie: paths of this machine, and URLs of buckets and servers. Knows nothing of clips or rows.

clips/a.mp4, file:///data/a.mp4             this machine
s3://bucket/a.mp4, gs://bucket/a.mp4        pyarrow's own, with the clouds' usual environment variables
http://host/a.mp4, ftp://... and others     whatever fsspec knows and is installed
"""

import os
import re
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem
from pyarrow import ArrowException
from pyarrow.fs import FileSystem

from vidseq.errors import OptionError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_NATIVE = ("s3", "gs", "gcs")  # of pyarrow: nothing else needs to be installed


def is_url(name: str) -> bool:
    """Whether it lies elsewhere."""
    return _SCHEME.match(name) is not None


def plain(name: str) -> str:
    """A URL of this machine as the path that it is."""
    return unquote(name.removeprefix("file://")) if name.startswith("file:///") else name


def parted(url: str) -> tuple[str, str, str, str]:
    """Scheme, host or bucket, path and query of a URL.

    Only on the web is a query what follows a path: names in a bucket may hold `?` and `#`, so there the query of the
    client that is wanted stands behind the bucket, `s3://bucket?region=eu-west-1/a #1.mp4`.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        parts = urlsplit(url)
        return scheme, parts.netloc, parts.path, parts.query
    host, slash, path = rest.partition("/")
    if ":" in host and "@" not in host and "@" in path and not host.rpartition(":")[2].isdecimal():
        key, _, path = path.partition("@")  # a secret with a slash in it, as AWS makes them
        more, slash, path = path.partition("/")
        host = f"{host}/{key}@{more}"
    host, _, query = host.partition("?")
    return scheme, host, slash + path, query


def joined(scheme: str, host: str, path: str, query: str) -> str:
    """What `parted` takes apart."""
    if scheme in ("http", "https"):
        return urlunsplit((scheme, host, path, query, ""))
    return f"{scheme}://{host}{'?' * bool(query)}{query}{path}"


def without_secrets(url: str) -> str:
    """The same address for other people's eyes: no user, no password, no query."""
    if not is_url(url):
        return url
    scheme, host, path, _ = parted(url)
    return joined(scheme, host.rpartition("@")[2], path, "")


def has_secrets(name: str) -> bool:
    return without_secrets(name) != name


def inside(url: str, name: str) -> str:
    """The URL of what lies below a folder's, with the folder's user and query."""
    scheme, host, path, query = parted(url)
    return joined(scheme, host, f"{path.rstrip('/')}/{name}", query)


def in_words(error: Exception, url: str) -> str:
    """What went wrong, in the words of whatever library was asked, without the URL and its secrets."""
    status = getattr(error, "status", None)
    name = f"{type(error).__name__} {status}" if status else type(error).__name__
    if is_url(url):
        _, host, _, query = parted(url)
        if query or "@" in host:  # the words may have them in any form
            return name
    return f"{name}: {error}"


@dataclass(frozen=True)
class Place:
    """A file or a folder: where it lies, as `files` knows it."""

    files: fsspec.AbstractFileSystem
    path: str

    @classmethod
    def of(cls, name: str) -> "Place":
        """What a path or a URL stands for. A bucket of S3 may be asked for its region.

        Raises:
            OptionError: nobody here knows such a URL.
        """
        if not is_url(name := plain(name)):
            return cls(LocalFileSystem(), os.path.abspath(name))
        scheme, host, path, query = parted(name)
        try:
            if scheme in _NATIVE:
                return cls(_native(joined(scheme, host, "", query)), f"{host.rpartition('@')[2]}{path}")
            return cls(*fsspec.core.url_to_fs(name))
        except (ArrowException, ImportError, OSError, ValueError) as error:
            raise OptionError(f"{without_secrets(name)!r} cannot be used: {in_words(error, name)}") from None

    @property
    def is_local(self) -> bool:
        return isinstance(self.files, LocalFileSystem)

    def __truediv__(self, name: str) -> "Place":
        return Place(self.files, f"{self.path.rstrip('/')}/{name}")

    def beside(self, suffix: str) -> "Place":
        """Its neighbour, whose name is its own and the suffix."""
        return Place(self.files, self.path.rstrip("/") + suffix)

    def read(self) -> bytes:
        data: bytes = self.files.cat_file(self.path)
        return data

    def write(self, data: bytes, *, private: bool = False) -> None:
        """Whole or not at all: a bucket has no halves, and here a file takes its name when all of it is on the disk.

        Args:
            private: for nobody else to read, on this machine.
        """
        if not self.is_local:
            self.files.pipe_file(self.path, data)
            return
        folder, name = os.path.split(self.path)
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as scratch:
            fresh = Path(scratch) / name
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if private:
                    os.fchmod(file.fileno(), 0o600)
            fresh.replace(self.path)

    def names(self) -> list[str]:
        """Of what lies in this folder, sorted; none if there is no folder."""
        try:
            self.files.invalidate_cache()
            return sorted(os.path.basename(path.rstrip("/")) for path in self.files.ls(self.path, detail=False))
        except FileNotFoundError:
            return []

    def exists(self) -> bool:
        return bool(self.files.exists(self.path))

    def remove(self) -> None:
        """With all that lies in it, if it is there."""
        if not self.exists():
            return
        try:
            self.files.rm(self.path, recursive=True)
        except OSError:  # of a bucket that makes folders up, when they have gone with what was in them
            self.files.invalidate_cache()
            if self.files.find(self.path):
                raise


@lru_cache(maxsize=64)
def _native(root: str) -> ArrowFSWrapper:
    """One client for a bucket, not one for each of its clips."""
    if root.startswith("s3:"):  # what is small is put there by one request, not by three
        root += ("&" if "?" in root else "?") + "allow_delayed_open=true"
    files, _ = FileSystem.from_uri(root)
    return ArrowFSWrapper(files)
