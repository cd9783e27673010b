"""Landlock without a single rule: no file, no TCP port, no signal and no abstract socket of anybody else.

Knows nothing of videos. landlock(7); each version of the kernel's interface can forbid more.
"""

import ctypes
import os
import struct

_CREATE, _RESTRICT = 444, 446  # system calls: the same numbers on every architecture
_ASK_VERSION = 1
# Version of the interface -> how many kinds of access to files it knows (linux/landlock.h).
_FILE_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_SINCE, _TCP = 4, 0b11  # bind, connect
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets, signals


def version(libc: ctypes.CDLL) -> int:
    """Of the kernel's interface; 0 where there is none, or it is switched off."""
    return max(0, int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION))))


def forbid_files(libc: ctypes.CDLL) -> bool:
    """For this thread and all that it may become, as much as this kernel can. Needs no_new_privs. False: not done."""
    known = version(libc)
    if known == 0:
        return False
    words = [(1 << _FILE_ACCESSES[min(known, max(_FILE_ACCESSES))]) - 1]
    words += [_TCP] * (known >= _TCP_SINCE) + [_SCOPES] * (known >= _SCOPES_SINCE)
    attributes = struct.pack(f"={len(words)}Q", *words)
    rules = int(libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)))
    if rules < 0:
        return False
    try:
        return bool(libc.syscall(_RESTRICT, ctypes.c_int(rules), ctypes.c_uint(0)) == 0)
    finally:
        os.close(rules)
