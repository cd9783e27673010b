"""What a decoder's process gives up, layer by layer, and which layers the kernel granted. Knows nothing of videos.

    fork server, once     no_new_privs, capabilities, Landlock, no core file, the first to go when memory runs out
    each child of it      dies with the server, limits of memory and CPU, no file to write, seccomp

Everything a process gives up stays given up, for its children too.
"""

import ctypes
import os
import resource
import signal
from enum import IntFlag
from pathlib import Path

from vidseq.sandbox.landlock import forbid_files
from vidseq.sandbox.seccomp import filter_calls

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION = 0x20080522
_MOST_CAPABILITIES = 64
_MOST_DESCRIPTORS = 16  # the child has five, and FFmpeg opens one more


class Layer(IntFlag):
    """One thing that a child cannot do. All of them hold, or the report says which do not."""

    NO_NEW_PRIVILEGES = 1
    NO_CAPABILITIES = 2
    NO_FILES = 4
    NO_CALLS = 8
    BOUNDED = 16
    DIES_WITH_PARENT = 32


ALL = Layer(sum(Layer))
IN_WORDS = {
    Layer.NO_NEW_PRIVILEGES: "no_new_privs",
    Layer.NO_CAPABILITIES: "dropped capabilities",
    Layer.NO_FILES: "Landlock",
    Layer.NO_CALLS: "seccomp",
    Layer.BOUNDED: "limits of memory and CPU time",
    Layer.DIES_WITH_PARENT: "its end with its parent's",
}


def in_words(layers: Layer) -> str:
    return ", ".join(words for layer, words in IN_WORDS.items() if layer in layers)


def confine_server() -> Layer:
    """For the rest of this process, which has imported all it needs. To be called with a single thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    granted = Layer(0)
    _prefer_for_out_of_memory()
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody of the same user reads the clips from its memory
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        granted |= Layer.NO_NEW_PRIVILEGES
    if _drop_capabilities(libc):
        granted |= Layer.NO_CAPABILITIES
    if forbid_files(libc):
        granted |= Layer.NO_FILES
    return granted


def confine_child(*, parent_pid: int, memory_bytes: int, cpu_seconds: int) -> Layer:
    """For the rest of this process, which has every descriptor it needs, and none besides.

    After `cpu_seconds` the kernel ends it with SIGXCPU. `memory_bytes` is all of its address space.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    granted = Layer(0)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0 and os.getppid() == parent_pid:
        granted |= Layer.DIES_WITH_PARENT
    if _limit(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds):
        granted |= Layer.BOUNDED
    if filter_calls(libc):
        granted |= Layer.NO_CALLS
    return granted


def _prefer_for_out_of_memory() -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:  # without /proc: then the largest process goes first, which is as well
        return


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    for capability in range(_MOST_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # only root may, and only root needs to
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    return bool(libc.capset(ctypes.byref(header), ctypes.byref(none)) == 0)


def _limit(*, memory_bytes: int, cpu_seconds: int) -> bool:
    limits = {
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 1),  # SIGXCPU, then SIGKILL
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_NOFILE: (_MOST_DESCRIPTORS, _MOST_DESCRIPTORS),
        resource.RLIMIT_NPROC: (0, 0),
    }
    try:
        for kind, limit in limits.items():
            resource.setrlimit(kind, limit)
    except (OSError, ValueError):  # below what this process was given
        return False
    return True
