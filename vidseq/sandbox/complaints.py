"""What FFmpeg says of a file, caught where it would have gone to a terminal, and counted. Knows nothing of decoding.

The words may come from the file, so of each line only plain characters go on, and of a thousand lines a few kinds:

    [OPENCV:FFMPEG:16] Invalid NAL unit size (1193 > 77).    ->    Invalid NAL unit size (# > #)
"""

import os
import re
from contextlib import suppress

MOST_KINDS = 3
MOST_LETTERS = 80  # of a kind
_READ_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 12

_WHO = re.compile(r"^(?:\[(?:OPENCV|[^\]]* @ 0x)[^\]]*\] ?)+")
_OUR_OWN_LISTS = "not on whitelist"  # vidseq.decoder's: of the sound of any clip
_NUMBER = re.compile(r"\b(?:0x[0-9a-fA-F]+|\d+)\b")
_NO_MEMORY = re.compile(r"[Cc]annot allocate memory|get_buffer\(\) failed|bad_alloc|OutOfMemory|Insufficient memory")


class Complaints:
    """The reading end of what a child prints. What is not read in time is lost: the child never waits for it."""

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._rest = b""
        self._kinds: dict[str, None] = {}  # in their order
        self.count = 0
        self.of_memory = False  # one of them was that there is none

    def listen(self) -> None:
        """Takes what has been said by now."""
        with suppress(BlockingIOError):
            while said := os.read(self._read_fd, _READ_BYTES):
                *lines, self._rest = (self._rest + said).split(b"\n")
                for line in lines:
                    self._note(line)
                if len(self._rest) > _LONGEST_LINE_BYTES:
                    self._note(self._rest)
                    self._rest = b""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for a person, or none."""
        if not self.count:
            return ()
        times = "once" if self.count == 1 else f"{self.count:,} times"
        return (f"the decoder complained {times}: {'; '.join(self._kinds)}",)

    def close_writing_end(self) -> None:
        """Once the child has it."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        self.close_writing_end()
        os.close(self._read_fd)

    def _note(self, line: bytes) -> None:
        words = line[:_LONGEST_LINE_BYTES].decode("ascii", "replace")
        if _OUR_OWN_LISTS in words:
            return
        self.count += 1
        self.of_memory = self.of_memory or _NO_MEMORY.search(words) is not None
        if len(self._kinds) < MOST_KINDS:
            self._kinds[_kind(words)] = None


def _kind(words: str) -> str:
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in words)
    return _NUMBER.sub("#", _WHO.sub("", plain)).strip(" .")[:MOST_LETTERS]
