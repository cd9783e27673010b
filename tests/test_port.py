"""The port of a service is refused when taken, and kept from everybody but Ray's proxy until the service ends."""

import socket
from contextlib import closing

import pytest

from serving.port import held
from tests.running import free_port
from vidseq.errors import OptionError

LOCAL = "127.0.0.1"


def take(host: str, port: int) -> None:
    with held(host, port):
        pass


def test_a_port_that_somebody_listens_on_is_refused_by_its_number() -> None:
    with socket.create_server((LOCAL, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OptionError, match=f"port {port} of {LOCAL}: Address already in use"):
            take(LOCAL, port)


def test_a_port_taken_on_one_address_is_refused_for_all_addresses() -> None:
    with socket.create_server((LOCAL, 0)) as server, pytest.raises(OptionError):
        take("0.0.0.0", server.getsockname()[1])


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(OptionError, match="from 1 to 65535"):
        take(LOCAL, port)


def test_an_address_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(OptionError, match=r"of 192\.0\.2\.1"):  # TEST-NET-1
        take("192.0.2.1", free_port())


def test_a_held_port_is_free_for_a_proxy_that_shares_it() -> None:
    port = free_port()
    with (
        held(LOCAL, port),
        socket.create_server((LOCAL, port), reuse_port=True) as proxy,
        socket.create_connection((LOCAL, port)) as client,
        closing(proxy.accept()[0]) as accepted,
    ):
        client.sendall(b"?")
        assert accepted.recv(1) == b"?"


def test_a_held_port_is_taken_for_everybody_else() -> None:
    port = free_port()
    with held(LOCAL, port):
        for host in (LOCAL, "0.0.0.0"):
            with pytest.raises(OSError, match="in use"):
                socket.create_server((host, port))
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)  # as Ray's gRPC listens
        with pytest.raises(OptionError, match="in use"):
            take(LOCAL, port)


def test_a_port_is_free_again_afterwards_with_connections_lingering_too() -> None:
    port = free_port()
    for _ in range(3):
        with held(LOCAL, port), socket.create_server((LOCAL, port), reuse_port=True) as proxy:
            client = socket.create_connection((LOCAL, port))
            proxy.accept()[0].close()  # first: this end lingers in TIME_WAIT
            client.close()
    with socket.create_server((LOCAL, port)) as anybody:
        assert anybody.getsockname() == (LOCAL, port)
