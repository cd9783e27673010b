"""vidseq.sandbox.confine: what a decoder's process is not able to do, tried in a process that is confined as it is.

The probe runs in an interpreter of its own, tries one thing after another, and prints what came of each.
"""

import errno
import json
import socket
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.require import missing
from vidseq.sandbox.confine import ALL, Layer, in_words

PROBE = """
import ctypes, errno, fcntl, json, mmap, os, resource, signal, socket, sys
from vidseq.sandbox.confine import confine_child, confine_server

libc = ctypes.CDLL(None, use_errno=True)
layers = confine_server()
server_pid = os.getpid()
read_end, write_end = os.pipe()
if os.fork():
    os.close(write_end)
    print(os.read(read_end, 1 << 20).decode())
    sys.exit(os.wait()[1])

layers |= confine_child(parent_pid=server_pid, memory_bytes=1 << 30, cpu_seconds=7)

def failure(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    except MemoryError:
        return "ENOMEM"
    except ValueError:  # what the module resource makes of it
        return "EPERM"
    return "done"

def call(number, *arguments):
    def made():
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")
    return made

found = {"layers": int(layers), "environment": dict(os.environ)}
found |= {name: failure(action) for name, action in {
    "open a file": lambda: os.open(sys.executable, os.O_RDONLY),
    "open itself": lambda: os.open("/proc/self/fd/0", os.O_RDONLY),
    "list a folder": lambda: os.listdir("/"),
    "make a file": lambda: os.open("/tmp/vidseq-probe", os.O_CREAT | os.O_WRONLY),
    "make a folder": lambda: os.mkdir("/tmp/vidseq-probe"),
    "look at a file": lambda: os.readlink("/proc/self/exe"),
    "remove a file": lambda: os.unlink("/tmp/vidseq-probe"),
    "change the folder": lambda: os.chdir("/"),
    "make memory": lambda: os.memfd_create("probe"),
    "make a pipe": lambda: os.pipe(),
    "make a pair of sockets": lambda: socket.socketpair(),
    "fork": lambda: os.fork(),
    "execute": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "signal its parent": lambda: os.kill(server_pid, 0),
    "signal itself": lambda: os.kill(os.getpid(), 0),
    "signal by a descriptor": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, server_pid),
    "trace its parent": call(101, 16, server_pid, 0, 0),
    "read its parent's memory": call(310, server_pid, 0, 0, 0, 0, 0),
    "io_uring": call(425, 1, 0),
    "a new user namespace": lambda: os.unshare(0x10000000) if hasattr(os, "unshare") else call(272, 0x10000000)(),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40)),
    "become root": lambda: os.setuid(0),
    "make code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "take 2 GB": lambda: mmap.mmap(-1, 2 << 30),
    "take 100 MB": lambda: mmap.mmap(-1, 100 << 20),
    "use its own descriptors": lambda: os.fstat(os.dup(0)),
}.items()}
for family in json.loads(sys.argv[1]):
    found[f"a socket of family {family}"] = failure(lambda: socket.socket(family, socket.SOCK_STREAM))
os.write(write_end, json.dumps(found).encode())
os._exit(0)
"""
FAMILIES = sorted({int(family) for family in socket.AddressFamily})


@pytest.fixture(scope="module")
def found() -> Mapping[str, object]:
    """What the probe found; a kernel that offers less skips."""
    command = [sys.executable, "-I", "-c", PROBE, json.dumps(FAMILIES)]
    ended = subprocess.run(
        command, env={"LC_CTYPE": "C.UTF-8"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    answers: dict[str, object] = json.loads(ended.stdout)
    lacking = ALL & ~Layer(int(str(answers["layers"])))
    if lacking:
        missing("sandbox", f"this kernel does not offer {in_words(lacking)}")
    return answers


FORBIDDEN = [
    "open a file",
    "open itself",
    "list a folder",
    "make a file",
    "make a folder",
    "look at a file",
    "remove a file",
    "change the folder",
    "make memory",
    "make a pipe",
    "make a pair of sockets",
    "fork",
    "execute",
    "signal its parent",
    "signal itself",
    "signal by a descriptor",
    "trace its parent",
    "read its parent's memory",
    "io_uring",
    "a new user namespace",
    "raise a limit",
    "become root",
    "make code",
]


@pytest.mark.parametrize("deed", FORBIDDEN)
def test_a_confined_process_cannot(deed: str, found: Mapping[str, object]) -> None:
    assert found[deed] == errno.errorcode[errno.EPERM]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_confined_process_has_no_socket_of_any_family(family: int, found: Mapping[str, object]) -> None:
    assert found[f"a socket of family {family}"] == errno.errorcode[errno.EPERM]


def test_it_gets_no_more_memory_than_it_may_have_and_up_to_that_some(found: Mapping[str, object]) -> None:
    assert (found["take 2 GB"], found["take 100 MB"]) == ("ENOMEM", "done")


def test_it_can_still_use_what_it_was_given(found: Mapping[str, object]) -> None:
    assert found["use its own descriptors"] == "done"


LANDLOCK_ALONE = """
import errno, os, socket, sys
from vidseq.sandbox.confine import Layer, confine_server
if Layer.NO_FILES not in confine_server():
    sys.exit(7)
for path in (sys.executable, "/proc/self/status", "/dev/null", "/"):
    try:
        os.open(path, os.O_RDONLY)
    except PermissionError:
        continue
    sys.exit(f"{path} was opened")
memory = os.memfd_create("its own")
os.write(memory, b"still here")
"""


def test_without_seccomp_landlock_alone_still_opens_no_file() -> None:
    ended = subprocess.run([sys.executable, "-I", "-c", LANDLOCK_ALONE], capture_output=True, text=True, check=False)
    if ended.returncode == 7:
        missing("sandbox", "this kernel does not offer Landlock")
    assert (ended.returncode, ended.stderr) == (0, "")


DIES = """
import os, time
from vidseq.sandbox.confine import confine_child
pid = os.getpid()
if os.fork() == 0:
    confine_child(parent_pid=pid, memory_bytes=1 << 30, cpu_seconds=60)
    os.write(1, b"confined")
    while True:  # no system call that could notice anything
        pass
time.sleep(60)
"""


def test_a_child_that_spins_dies_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-I", "-c", DIES], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.read(8) == b"confined"
        parent.kill()
        assert parent.stdout.read() == b""  # the end of the pipe: nobody is left who could write
