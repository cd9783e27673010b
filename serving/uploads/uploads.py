"""Uploads: made, appended to, completed, read, deleted. Their bytes are files, all else is rows. Knows no HTTP.

    create ──> append at offset n ──> ... ──> complete ──> opened, kept as long as somebody needs them
                     │ cut, killed: the file's size says where it goes on

Whoever appends, completes or sweeps an upload holds the lock of its file, and looks at its row once he has it. A file
is made before its row can be seen and removed after its row is gone: what a kill leaves between is a file without a
row, which a sweep removes.
"""

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

from sqlalchemy import Connection

from serving.database.core import Database
from serving.uploads.errors import (
    UploadBusy,
    UploadDigest,
    UploadIncomplete,
    UploadNotFound,
    UploadOffset,
    UploadTooLarge,
)
from serving.uploads.folder import Folder, Growing
from serving.uploads.ids import new_id
from serving.uploads.table import Row, UploadSettings, UploadTable
from vidseq.errors import OptionError
from vidseq.schemas import Upload

ORPHAN_SECONDS = 3600.0  # a file without a row: whoever makes one takes much less to write the row
READ_BYTES = 2**20
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

DEFAULT_SETTINGS = UploadSettings()


class Uploads:
    """Thread-safe; several processes may have the same. Its calls block.

    Every method raises DatabaseDown and StorageDown. An id of another owner is as good as none: UploadNotFound.
    """

    def __init__(self, database: Database, folder: Path, settings: UploadSettings = DEFAULT_SETTINGS) -> None:
        self.settings = settings
        self._table = UploadTable(database, settings)
        self._folder = Folder(folder, min_free_bytes=settings.min_free_bytes)

    def prepare(self) -> None:
        """The folder is there, and can be written to."""
        self._folder.prepare()

    def create(self, owner: str, *, num_bytes: int, sha256: str | None = None) -> Upload:
        """A place for so many bytes. `sha256`: 64 hexadecimal digits.

        Raises:
            UploadTooLarge, UploadQuota, StorageFull.
        """
        self._refuse_over(num_bytes)
        self._folder.refuse_full(num_bytes)
        upload_id = new_id()
        digest = None if sha256 is None else _parsed(sha256)
        with self._folder.made(upload_id):
            row = self._added(owner, Row(upload_id, num_bytes, digest, complete=False))
        return _told(row, offset=0)

    def add(self, owner: str, source: BinaryIO | Iterable[bytes]) -> Upload:
        """A whole one at once, complete: a file, read from where it stands, or pieces.

        Raises:
            UploadTooLarge, UploadQuota, StorageFull.
        """
        pieces = iter(lambda: source.read(READ_BYTES), b"") if hasattr(source, "read") else source
        upload_id = new_id()
        file = self._folder.made(upload_id)
        with file:
            try:
                for piece in pieces:
                    self._refuse_over(file.num_bytes + len(piece))
                    file.write(piece)
                sha256 = file.sha256()
                file.sync()
            except BaseException:
                self._folder.remove(upload_id)
                raise
            row = self._added(owner, Row(upload_id, file.num_bytes, sha256, complete=True))
        return _told(row, offset=row.num_bytes)

    def get(self, owner: str, upload_id: str) -> Upload:
        """As it is now. Raises UploadNotFound."""
        row = self._table.find(owner, upload_id)
        return _told(row, offset=self._folder.num_bytes(upload_id))

    def append(self, owner: str, upload_id: str, *, offset: int) -> "Appending":
        """To write what follows the first `offset` bytes; nobody else can until it is closed.

        Raises:
            UploadNotFound, UploadOffset, UploadBusy.
        """
        file, row = self._locked(owner, upload_id)
        try:
            if offset != file.num_bytes:
                raise UploadOffset(said=offset, offset=file.num_bytes)
        except BaseException:
            file.close()
            raise
        return Appending(self._table, owner, row, file)

    def complete(self, owner: str, upload_id: str, *, sha256: str | None = None) -> Upload:
        """Read it all, and find the digest that is said here or was declared. Asked again, the same.

        Where it is another, the upload stays as it is: who said a wrong digest may say the right one.

        Raises:
            UploadNotFound, UploadIncomplete, UploadDigest, UploadBusy; OptionError: no digest was ever said.
        """
        row = self._table.find(owner, upload_id)
        if row.complete:
            _agreed(row, sha256)
            return self.get(owner, upload_id)
        file, row = self._locked(owner, upload_id)
        with file:
            wanted = _agreed(row, sha256)
            if file.num_bytes < row.num_bytes:
                raise UploadIncomplete(f"{file.num_bytes:,} of {row.num_bytes:,} bytes of the upload are here")
            if not row.complete:
                if (found := file.sha256()) != wanted:
                    raise UploadDigest(f"the upload {upload_id} has the SHA-256 {found.hex()}, not {wanted.hex()}")
                file.sync()
                row = self._table.complete(owner, upload_id, sha256=wanted)
        return _told(row, offset=row.num_bytes)

    def opened(self, owner: str, upload_id: str) -> BinaryIO:
        """A complete one, to be read and closed. Deleted meanwhile, it can be read to its end.

        Raises:
            UploadNotFound, UploadIncomplete.
        """
        row = self._table.find(owner, upload_id)
        if not row.complete:
            raise UploadIncomplete(f"the upload {upload_id} is not complete")
        return self._folder.opened(upload_id)

    def delete(self, owner: str, upload_id: str) -> None:
        """Whoever writes to it hears UploadNotFound. Raises UploadNotFound."""
        self._table.delete(owner, upload_id)
        self._folder.remove(upload_id)

    def keep_until(self, connection: Connection, owner: str, ids: Collection[str], unix_seconds: float) -> None:
        """Inside a transaction of the caller's that writes: none of these goes by itself before then.

        That is by the database's clock; a time that is sooner than what they have already changes nothing. The owner
        may still delete or forget them.

        Raises:
            UploadNotFound, UploadIncomplete: one of them is no complete upload of `owner`; nothing is kept then.
        """
        self._table.keep_until(connection, owner, ids, unix_seconds)

    def forget(self, owner: str) -> int:
        """Delete all uploads of an owner, whoever writes to them; how many those were."""
        ids = self._table.forget(owner)
        for upload_id in ids:
            self._folder.remove(upload_id)
        return len(ids)

    def sweep(self) -> int:
        """Delete what has expired, and files that a kill has left without a row; how many those were."""
        num_swept = 0
        while expired := self._table.expired():
            gone = [upload_id for upload_id in expired if self._swept(upload_id)]
            num_swept += len(gone)
            if not gone:
                break  # all of these are being written to
        for upload_id in self._table.without_row(self._folder.older_than(ORPHAN_SECONDS)):
            with suppress(UploadBusy, UploadNotFound), self._folder.locked(upload_id):
                self._folder.remove(upload_id)
                num_swept += 1
        return num_swept

    def _swept(self, upload_id: str) -> bool:
        try:
            with self._folder.locked(upload_id):
                if gone := self._table.drop_expired(upload_id):
                    self._folder.remove(upload_id)
                return gone
        except UploadBusy:
            return False
        except UploadNotFound:  # no file
            return self._table.drop_expired(upload_id)

    def _locked(self, owner: str, upload_id: str) -> tuple[Growing, Row]:
        """Raises UploadNotFound, UploadBusy."""
        self._table.find(owner, upload_id)  # nobody is told that another's is busy
        file = self._folder.locked(upload_id)
        try:
            return file, self._table.find(owner, upload_id)  # it may have been swept before the lock
        except BaseException:
            file.close()
            raise

    def _added(self, owner: str, row: Row) -> Row:
        try:
            return self._table.add(owner, row)
        except BaseException:
            self._folder.remove(row.upload_id)
            raise

    def _refuse_over(self, num_bytes: int) -> None:
        most = self.settings.max_upload_bytes
        if num_bytes > most:
            raise UploadTooLarge(f"the upload has {num_bytes:,} bytes; at most {most:,} are allowed")


class Appending:
    """One writer's turn. What was written stays, however the turn ends; for one thread at a time.

    After a write that has failed, and after its end, nothing more is written: there would be a gap, or two writers.
    """

    def __init__(self, table: UploadTable, owner: str, row: Row, file: Growing) -> None:
        self._table = table
        self._owner = owner
        self._row = row
        self._file = file
        self._first = file.num_bytes
        self._over = False

    @property
    def offset(self) -> int:
        return self._file.num_bytes

    def refuse_over(self, num_bytes: int) -> None:
        """Raises UploadTooLarge: so many more are more than were declared."""
        if self.offset + num_bytes > self._row.num_bytes:
            raise UploadTooLarge(
                f"the upload was declared with {self._row.num_bytes:,} bytes, and {self.offset + num_bytes:,} came"
            )

    def write(self, piece: bytes) -> None:
        """Raises UploadTooLarge, UploadNotFound, StorageFull."""
        if self._over:
            return
        try:
            self.refuse_over(len(piece))
            self._file.write(piece)
        except BaseException:
            self._over = True
            raise

    def undo(self) -> None:
        """Take back all that was written in this turn."""
        self._over = True
        self._file.cut(self._first)

    def finish(self) -> Upload:
        """As it is now; its time begins anew. Raises UploadNotFound: it was deleted meanwhile."""
        with self:
            return _told(self._table.touch(self._owner, self._row.upload_id), offset=self.offset)

    def close(self) -> None:
        self._over = True
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _agreed(row: Row, sha256: str | None) -> bytes:
    """The digest that all who have said one mean. Raises UploadDigest, OptionError."""
    said = row.sha256 if sha256 is None else _parsed(sha256)
    if said is None:
        raise OptionError("sha256 is needed: nobody has said yet which bytes these are to be")
    if row.sha256 not in (None, said):
        raise UploadDigest(f"the upload {row.upload_id} was said to have the SHA-256 {row.sha256.hex()}, not {sha256}")
    return said


def _parsed(sha256: str) -> bytes:
    if not _SHA256.fullmatch(sha256):
        raise OptionError(f"sha256 is {sha256[:100]!r}, and not 64 hexadecimal digits")
    return bytes.fromhex(sha256)


def _told(row: Row, *, offset: int) -> Upload:
    return Upload(
        id=row.upload_id,
        num_bytes=row.num_bytes,
        offset=offset,
        complete=row.complete,
        expires_at=datetime.fromtimestamp(row.expires_at, UTC),
        sha256=None if row.sha256 is None else row.sha256.hex(),
    )
