"""What a port says to somebody without a token: each is spoken to in its own protocol. For tests of what listens.

A gRPC server of Ray's answers UNIMPLEMENTED to a method that it lacks before it looks for a token. So every method that
Ray knows is called: a port refuses if it refuses each method that it has, and has some.
"""

import http.client
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grpc

from tests.running import Listener

PATIENCE_SECONDS = 10.0
_METHOD = re.compile(rb"/ray\.[A-Za-z.]+/[A-Z][A-Za-z]+")
_STUBS = ("core/generated/*_pb2_grpc.py", "serve/generated/serve_pb2_grpc.py")
_SERVERS = ("core/src/ray/gcs/gcs_server", "core/src/ray/raylet/raylet")  # some methods have no stub in Python
# Without this header RaySyncer/StartSync ends the process, token or not (docs/security.md): it is there to be refused.
NOBODY = "f" * 56
FIGURES = b"# HELP "  # how Prometheus' text format begins


@dataclass(frozen=True)
class Answered:
    """How many methods were refused for want of a token, and what the others said."""

    num_refused: int
    others: frozenset[str]


@cache
def ray_methods() -> tuple[str, ...]:
    """The gRPC methods of Ray's servers, such as /ray.rpc.CoreWorkerService/KillActor."""
    import ray

    home = Path(ray.__file__).parent
    files = [*(home / server for server in _SERVERS), *(file for stub in _STUBS for file in home.glob(stub))]
    return tuple(sorted({name.decode() for file in files for name in _METHOD.findall(file.read_bytes())}))


def asked_over_grpc(host: str, port: int, *, token: str | None, methods: tuple[str, ...]) -> Answered:
    """Call each method, with nothing inside."""
    metadata = [("node_id", NOBODY)] + [("authorization", f"Bearer {token}")] * (token is not None)
    refused, others = 0, set()
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in methods:
            try:
                channel.unary_unary(method)(b"", timeout=PATIENCE_SECONDS, metadata=metadata)
                others.add(f"{method} OK")
            except grpc.RpcError as error:
                code = error.code().name
                refused += code == "UNAUTHENTICATED"
                others |= {f"{method} {code}"} - {f"{method} UNAUTHENTICATED", f"{method} UNIMPLEMENTED"}
    return Answered(refused, frozenset(others))


def http_get(host: str, port: int, path: str) -> tuple[int, bytes] | None:
    """Status and body; None if whoever listens there does not speak HTTP."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def said_to_a_stranger(listener: Listener) -> str:
    """`refuses`, `figures`, or more words for what a port lets be done without a token."""
    assert listener.kind == "tcp", listener
    answer = http_get(listener.host, listener.port, "/metrics")
    if answer is None:
        answered = asked_over_grpc(listener.host, listener.port, token=None, methods=ray_methods())
        return "refuses" if answered.num_refused and not answered.others else str(answered)
    status, page = answer
    if status == 401:
        return "refuses"
    return "figures" if page.startswith(FIGURES) else f"HTTP {status} {page[:100]!r}"
