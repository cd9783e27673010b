"""Where a webhook may be sent: the addresses of a host, all of them public. Knows no HTTP.

A name is looked up once for each sending, and the connection goes to the address that was checked: a name that answers
otherwise the next moment (DNS rebinding) leads nowhere else.
"""

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from serving.jobs.errors import WebhookNotAllowed

Address = IPv4Address | IPv6Address


def refuse_unsafe(url: str, *, allow_private: bool) -> None:
    """What can be said of a webhook's URL before its host is looked up.

    Raises:
        WebhookNotAllowed: others on the way could read what is sent; or its host is no public address.
    """
    parts = urlsplit(url)
    if allow_private:
        return
    if parts.scheme != "https":
        raise WebhookNotAllowed("a webhook's URL is of https here: others could read what is sent")
    with suppress(ValueError):  # a name
        _refuse_private(ip_address(parts.hostname or ""), parts.hostname)


def address_of(host: str, port: int, *, allow_private: bool) -> Address:
    """One address of a host. Blocks, for as long as name servers are silent.

    Raises:
        WebhookNotAllowed: one of its addresses is not public, and none but public ones are allowed.
        OSError, UnicodeError: there is no such host, nobody who knows, or it is no name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
    for address in addresses:
        if not allow_private:
            _refuse_private(address, host)
    return addresses[0]


def is_public(address: Address) -> bool:
    """Whether everybody can reach it; also of the IPv4 address that an IPv6 address stands for."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner is not None and not is_public(inner):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _refuse_private(address: Address, host: str | None) -> None:
    if not is_public(address):
        raise WebhookNotAllowed(f"{host} is an address that is not public, where this service sends nothing")
