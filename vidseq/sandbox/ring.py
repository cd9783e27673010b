"""Pictures in memory that two processes share, of a size that neither can change. Knows nothing of videos."""

import fcntl
import mmap
import os

import numpy as np

from vidseq.decoder import Pixels
from vidseq.sandbox.protocol import NUM_SLOTS


class Ring:
    """NUM_SLOTS pictures of at most `slot_bytes`; `fd` is for the one who fills them. Only pages that are used count.

    Were it cut off by the other side, reading it here would end this process (SIGBUS): hence the seals.
    """

    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        self.fd = os.memfd_create("vidseq-pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, NUM_SLOTS * slot_bytes)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._memory = mmap.mmap(self.fd, NUM_SLOTS * slot_bytes, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self.fd)
            raise

    def picture(self, slot: int, *, height: int, width: int) -> Pixels:
        """A copy, [height, width, 3]: what the other side does to the slot afterwards is not in it."""
        assert 0 < height * width * 3 <= self.slot_bytes, f"{height} x {width} in a slot of {self.slot_bytes} bytes"
        start = slot * self.slot_bytes
        flat = np.frombuffer(self._memory, np.uint8, count=height * width * 3, offset=start)
        return flat.reshape(height, width, 3).copy()

    def close(self) -> None:
        os.close(self.fd)
        self._memory.close()
