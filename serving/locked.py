"""Whether the Ray that this process is part of asks everybody for its token: it is asked without one. Knows no models.

Whoever reaches a Ray that does not may run any code on all of its nodes.
"""

import os
from pathlib import Path

import grpc
import ray

from vidseq.errors import OptionError

# Ray's own health check, which changes nothing. A Ray that no longer knows it cannot be told from an open one.
METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
ANSWER_SECONDS = 10.0
REQUIRE_TLS = "VIDSEQ_REQUIRE_RAY_TLS"


def refuse_open_ray() -> None:
    """To be called in a process that Ray has started, or that has connected to it.

    Raises:
        OptionError: this Ray lets in whoever has no token, or does not say; or it speaks without TLS and must not.
    """
    if os.environ.get(REQUIRE_TLS, "0") == "1" and not _has_tls():
        raise OptionError(f"this Ray speaks without TLS, and {REQUIRE_TLS} is set: see docs/operating.md")
    code = _said_without_token(ray.get_runtime_context().gcs_address)
    if code != grpc.StatusCode.UNAUTHENTICATED.name:
        raise OptionError(
            f"this Ray does not ask for a token (it answers {code}), and whoever reaches it may run code on its nodes:"
            " start all of its nodes with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN (docs/operating.md)"
        )


def _said_without_token(address: str) -> str:
    with _channel(address) as channel:
        try:
            channel.unary_unary(METHOD)(b"", timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def _has_tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")  # as Ray reads it


def _channel(address: str) -> grpc.Channel:
    if not _has_tls():
        return grpc.insecure_channel(address)
    authority, key, certificate = (
        Path(os.environ[f"RAY_TLS_{name}"]).read_bytes() for name in ("CA_CERT", "SERVER_KEY", "SERVER_CERT")
    )
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, certificate))
