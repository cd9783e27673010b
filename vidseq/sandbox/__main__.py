"""`python -I -m vidseq.sandbox DESCRIPTOR`: the fork server. One thread, one socket, a child for every clip.

    Job + [clip, channel, ring, messages] -> fork -> confined child        when it is gone: Ended, on its channel
    the caller closes the channel         -> the child is killed
    the caller is gone                    -> the server ends, and its children with it

It has imported all that a decoder needs, so that a child is a fork and nothing more; it never sees a clip's bytes.
"""

import gc
import mmap
import os
import resource
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass

from vidseq.decoder import be_forked
from vidseq.pictures import load_parsers
from vidseq.sandbox.canary import decode_here
from vidseq.sandbox.child import serve
from vidseq.sandbox.confine import Layer, confine_child, confine_server
from vidseq.sandbox.protocol import MOST_BYTES, NUM_JOB_DESCRIPTORS, NUM_SLOTS, READY, Ended, Failed, Job, Reason

_CHANNEL, _RING = 3, 4  # descriptors of a child, after 0, the clip, and 1 and 2, its messages


@dataclass(frozen=True)
class _Child:
    """A running child, and the server's own hold on its channel."""

    pid: int
    pid_fd: int
    channel: socket.socket


class ForkServer:
    """`run` returns when the caller is gone."""

    def __init__(self, control: socket.socket, layers: Layer) -> None:
        self._control = control
        self._layers = layers
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, _Child] = {}  # by each of its two descriptors

    def run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._control.fileno():
                    if not self._begin():
                        return
                elif (child := self._children.get(fd)) is not None:
                    if fd == child.pid_fd:
                        self._end(child)
                    else:
                        self._kill(child)

    def _begin(self) -> bool:
        """A child for the next job. False: there is nobody who could have one."""
        message, fds, _, _ = socket.recv_fds(self._control, MOST_BYTES, NUM_JOB_DESCRIPTORS)
        if not message:
            return False
        assert len(fds) == NUM_JOB_DESCRIPTORS, f"{len(fds)} descriptors came"
        job, channel = Job.unpack(message), socket.socket(fileno=fds[1])
        try:
            pid = os.fork()
        except OSError:
            with channel:
                _tell(channel, Failed(Reason.NO_PROCESS).pack())
        else:
            if pid == 0:
                _become_child(job, fds, self._layers)
            child = _Child(pid, os.pidfd_open(pid), channel)
            self._children |= {child.pid_fd: child, channel.fileno(): child}
            self._poll.register(child.pid_fd, select.POLLIN)
            self._poll.register(channel, 0)  # nothing but that the caller has closed it
        for fd in (fds[0], *fds[2:]):
            os.close(fd)
        return True

    def _kill(self, child: _Child) -> None:
        self._poll.unregister(child.channel)
        os.kill(child.pid, signal.SIGKILL)  # it has not been waited for: the number is still its own

    def _end(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        for fd in (child.pid_fd, child.channel.fileno()):
            del self._children[fd]
        self._poll.unregister(child.pid_fd)
        os.close(child.pid_fd)
        with suppress(KeyError):  # it was killed
            self._poll.unregister(child.channel)
        with child.channel:
            _tell(child.channel, Ended(status).pack())


def _tell(channel: socket.socket, message: bytes) -> None:
    """Unless nobody listens any more, or has not for so long that there is no room: then it does not matter."""
    with suppress(OSError):
        channel.send(message, socket.MSG_DONTWAIT)


def _become_child(job: Job, fds: list[int], layers: Layer) -> None:
    """In the child; never returns."""
    status = 1
    try:
        server_pid = os.getppid()
        clip, channel_fd, ring_fd, messages = fds
        moved = [os.dup(fd) for fd in (clip, messages, messages, channel_fd, ring_fd)]
        for place, fd in enumerate(moved):
            os.dup2(fd, place)
        os.closerange(_RING + 1, os.sysconf("SC_OPEN_MAX"))
        ring = mmap.mmap(_RING, NUM_SLOTS * job.slot_bytes)
        os.closerange(_RING, os.sysconf("SC_OPEN_MAX"))  # it is mapped; mmap has made a descriptor of its own
        channel = socket.socket(fileno=_CHANNEL)
        layers |= confine_child(
            parent_pid=server_pid, memory_bytes=job.memory_bytes + len(ring), cpu_seconds=job.cpu_seconds
        )
        serve(job, channel, ring, layers)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)  # two a child
    be_forked()
    decode_here()  # loads what OpenCV and FFmpeg load when they are first used
    load_parsers()
    layers = confine_server()
    gc.collect()
    gc.freeze()  # children share these pages: nobody is to write into them
    control.send(READY)
    ForkServer(control, layers).run()


if __name__ == "__main__":
    main()
