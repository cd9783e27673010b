"""The system calls a decoder may make, as a filter that the kernel runs. Knows nothing of videos.

It is a list of what is allowed: memory, its own descriptors, the clock, the end. No call that opens, connects, forks,
executes, signals or looks at another process is on it, and those that will be invented are not either. What is not on
it fails with EPERM, as if it had been forbidden to this user. How many CPUs there are is not told either: FFmpeg then
takes it for one, and its scaler asks for no threads.

The program is classic BPF (seccomp(2), linux/filter.h): load a word, compare, jump or fall through.
"""

import ctypes
import errno
import fcntl
import mmap
import platform
import struct

# (audit's name of the architecture, number of each call): from the kernel's syscall tables.
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
        "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20,
        "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "getpid": 39, "sendto": 44, "recvfrom": 45,
        "exit": 60, "fcntl": 72, "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "futex": 202,
        "restart_syscall": 219, "clock_gettime": 228, "exit_group": 231, "newfstatat": 262,
        "getrandom": 318,
    },
    "aarch64": {
        "dup": 23, "fcntl": 25, "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66,
        "pread64": 67, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "clock_gettime": 113,
        "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134,
        "rt_sigprocmask": 135, "rt_sigreturn": 139, "gettimeofday": 169, "getpid": 172, "gettid": 178, "sendto": 206,
        "recvfrom": 207, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233,
        "getrandom": 278,
    },
}  # fmt: skip
_FCNTL = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)  # F_SETOWN sends signals

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ, BPF_JMP|JSET, BPF_RET
_NUMBER, _ARCH, _SECOND_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 24, 32  # offsets in struct seccomp_data; low words
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def program(machine: str) -> bytes | None:
    """The filter for an architecture, as struct sock_filter after struct sock_filter; None: its numbers are unknown."""
    if machine not in _NUMBERS:
        return None
    numbers = dict(_NUMBERS[machine])
    checked = {"fcntl": numbers.pop("fcntl"), "mmap": numbers.pop("mmap"), "mprotect": numbers.pop("mprotect")}
    code = [_op(_LOAD, _ARCH), _op(_EQUAL, _AUDIT[machine], yes=1), _op(_RETURN, _KILL), _op(_LOAD, _NUMBER)]
    for number in numbers.values():
        code += [_op(_EQUAL, number, no=1), _op(_RETURN, _ALLOW)]
    # No new code: a page that can be written never becomes one that can be run.
    for name in ("mmap", "mprotect"):
        code += [_op(_EQUAL, checked[name], no=4), _op(_LOAD, _THIRD_ARGUMENT), _op(_ANY_BIT, mmap.PROT_EXEC, no=1)]
        code += [_op(_RETURN, _FAIL), _op(_RETURN, _ALLOW)]
    code += [_op(_EQUAL, checked["fcntl"], no=1 + 2 * len(_FCNTL)), _op(_LOAD, _SECOND_ARGUMENT)]
    for command in _FCNTL:
        code += [_op(_EQUAL, command, no=1), _op(_RETURN, _ALLOW)]
    return b"".join([*code, _op(_RETURN, _FAIL)])


def _op(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One instruction: `yes` and `no` are how many to jump over."""
    return struct.pack("=HBBI", code, yes, no, value)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("num_instructions", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_calls(libc: ctypes.CDLL) -> bool:
    """For this thread and all that it may become. False: the kernel does not, or the architecture is unknown here."""
    code = program(platform.machine())
    if code is None:
        return False
    filled = _Program(len(code) // 8, code)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filled), 0, 0) == 0)
