"""The port of a service, kept for it from the moment it is asked for to its end. Knows no HTTP and no Ray."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vidseq.errors import OptionError


@contextmanager
def held(host: str, port: int) -> Iterator[None]:
    """Keep an address for Ray's proxy, which may share it; nobody else can.

    Ray lets the kernel choose most of its ports while it starts, and the kernel would choose this one, too.

    Raises:
        OptionError: the address cannot be listened on.
    """
    if not 1 <= port <= 65535:
        raise OptionError(f"the port is {port}; a number from 1 to 65535 is needed")
    with ExitStack() as stack:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:  # another service of this user's would share it
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before may linger
                probe.bind(address)
            holder = stack.enter_context(socket.socket(family, kind))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(address)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # or the next probe would pass, too
        except OSError as error:
            raise OptionError(f"cannot listen on port {port} of {host}: {error.strerror}") from None
        yield
