"""A folder with a file for each upload: locked by who writes, its size the truth. Knows no owners and no database.

A file is named by the upload's id, which is made here and checked before it becomes a part of a path. Whoever writes
holds an flock on it, which ends with the process however it ends; several machines may share a folder where their file
system carries such locks between them (NFS 4 does).
"""

import errno
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from serving.uploads.errors import StorageDown, StorageFull, UploadBusy, UploadNotFound
from serving.uploads.ids import checked_id, is_id

logger = logging.getLogger(__name__)

SUFFIX = ".upload"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Folder:
    """Thread-safe. Each method may raise StorageDown; those that write, StorageFull.

    `min_free_bytes` of the disk are left to others, such as a database beside.
    """

    def __init__(self, path: Path, *, min_free_bytes: int) -> None:
        self.path = path
        self._min_free_bytes = min_free_bytes

    def prepare(self) -> None:
        """It is there, its owner's alone where it was made now, and can be written to."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageDown(error.strerror) from None
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise StorageDown(os.strerror(errno.EACCES))

    def refuse_full(self, num_bytes: int) -> None:
        """Raises StorageFull: there is no room for so many more."""
        with _failures_told(self.path):
            disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize - num_bytes < self._min_free_bytes:
            raise StorageFull

    def made(self, upload_id: str) -> "Growing":
        """A new, empty file, locked."""
        return self._locked(upload_id, os.O_CREAT | os.O_EXCL)

    def locked(self, upload_id: str) -> "Growing":
        """Raises UploadNotFound, UploadBusy."""
        return self._locked(upload_id, 0)

    def num_bytes(self, upload_id: str) -> int:
        """Raises UploadNotFound."""
        with _failures_told(self.path, upload_id):
            return self._file(upload_id).stat().st_size

    def opened(self, upload_id: str) -> BinaryIO:
        """To be read. Raises UploadNotFound."""
        with _failures_told(self.path, upload_id):
            return self._file(upload_id).open("rb")

    def remove(self, upload_id: str) -> None:
        with _failures_told(self.path):
            self._file(upload_id).unlink(missing_ok=True)

    def older_than(self, seconds: float) -> list[str]:
        """The ids of all files that nobody has written to for so long."""
        found, now = [], time.time()
        with _failures_told(self.path), os.scandir(self.path) as entries:
            for entry in entries:
                upload_id = entry.name.removesuffix(SUFFIX)
                if entry.name.endswith(SUFFIX) and is_id(upload_id):
                    try:
                        written_at = entry.stat(follow_symlinks=False).st_mtime
                    except FileNotFoundError:  # since it was listed
                        continue
                    if now - written_at > seconds:
                        found.append(upload_id)
        return found

    def _locked(self, upload_id: str, flags: int) -> "Growing":
        path = self._file(upload_id)
        with _failures_told(self.path, upload_id):
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Growing(self, upload_id, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise UploadBusy from None
        except BaseException:
            os.close(descriptor)
            raise

    def _file(self, upload_id: str) -> Path:
        return self.path / f"{checked_id(upload_id)}{SUFFIX}"


class Growing:
    """The file of one upload, locked until it is closed. For one thread at a time."""

    def __init__(self, folder: Folder, upload_id: str, descriptor: int) -> None:
        self._folder = folder
        self._upload_id = upload_id
        self._descriptor = descriptor
        self.num_bytes = self._looked_at().st_size

    def write(self, piece: bytes) -> None:
        """At the end. What raises has written a part of `piece`, or none.

        Raises:
            UploadNotFound: it was deleted meanwhile.
            StorageFull, StorageDown.
        """
        self._looked_at()
        self._folder.refuse_full(len(piece))
        left = memoryview(piece)
        with _failures_told(self._folder.path):
            while left:
                num_written = os.write(self._descriptor, left)
                self.num_bytes += num_written
                left = left[num_written:]

    def cut(self, num_bytes: int) -> None:
        """Take back what was written after the first `num_bytes`."""
        with _failures_told(self._folder.path):
            os.ftruncate(self._descriptor, num_bytes)
        self.num_bytes = num_bytes

    def sha256(self) -> bytes:
        """Of the whole file, which is read: what lies on the disk counts, not what was once in memory."""
        with _failures_told(self._folder.path), open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").digest()

    def sync(self) -> None:
        """From here on a power failure takes nothing of it."""
        with _failures_told(self._folder.path):
            os.fsync(self._descriptor)
            folder = os.open(self._folder.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _looked_at(self) -> os.stat_result:
        """Raises UploadNotFound: the file has no name any more, and what is written to it nobody would find."""
        status = os.fstat(self._descriptor)
        if status.st_nlink == 0:
            raise UploadNotFound(self._upload_id)
        return status


@contextmanager
def _failures_told(path: Path, upload_id: str | None = None) -> Iterator[None]:
    """What the disk says, as errors of ours; `upload_id` is whose file may be missing."""
    try:
        yield
    except OSError as error:
        if upload_id is not None and isinstance(error, FileNotFoundError) and path.is_dir():
            raise UploadNotFound(upload_id) from None
        logger.error("uploads in %s failed: %s", path, error.strerror)
        raise (StorageFull() if error.errno in _FULL else StorageDown(error.strerror)) from error
