"""A piece of an upload from its connection to the disk, with little of it in memory. Knows no routes and no rows.

receive -> a few hundred KiB -> a thread writes them -> ... -> what is left, however it ended -> closed
"""

import threading
from contextlib import suppress

from starlette.requests import Request

from serving.body import Pace, receive
from serving.problems import DigestMismatch
from serving.threads import Threads
from serving.uploads.uploads import Appending
from vidseq.errors import VidseqError
from vidseq.schemas import Upload

WRITE_BYTES = 256 * 1024  # a thread is asked for as much at a time: less, and to ask takes longer than to write


async def append_body(request: Request, appending: Appending, threads: Threads, *, pace: Pace) -> Upload:
    """What comes, until it ends or is cut; `appending` is closed then. All that was received before a cut is kept.

    Errors: as receive in serving.body; UploadTooLarge, UploadNotFound, StorageFull, StorageDown, DatabaseDown. Of a
    body that was declared to be another (DigestMismatch) nothing is kept.
    """
    arriving = _Arriving(appending)

    async def keep(piece: bytes) -> None:
        if arriving.take(piece) >= WRITE_BYTES:
            await threads.call(arriving.write)

    try:
        await receive(request, keep, pace=pace)
        return await threads.call(arriving.finish)
    except DigestMismatch:
        await threads.call(arriving.undo)
        raise
    except BaseException:
        await threads.call(arriving.leave)
        raise


class _Arriving:
    """What was received and not written yet. A wait that is cancelled leaves a thread behind: each waits its turn."""

    def __init__(self, appending: Appending) -> None:
        self._appending = appending
        self._pieces: list[bytes] = []
        self._num_bytes = 0
        self._turn = threading.Lock()

    def take(self, piece: bytes) -> int:
        """How many bytes are to be written now."""
        self._pieces.append(piece)
        self._num_bytes += len(piece)
        return self._num_bytes

    def write(self) -> None:
        with self._turn:
            self._write()

    def finish(self) -> Upload:
        with self._turn, self._appending:
            self._write()
            return self._appending.finish()

    def undo(self) -> None:
        with self._turn, self._appending:
            self._appending.undo()

    def leave(self) -> None:
        """As `finish`, for nobody who would hear what is wrong with it."""
        with self._turn, self._appending, suppress(VidseqError):
            self._write()
            self._appending.finish()

    def _write(self) -> None:
        pieces, self._pieces, self._num_bytes = self._pieces, [], 0
        self._appending.write(b"".join(pieces))
