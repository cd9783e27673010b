"""A real HAProxy with deploy/haproxy.cfg and a certificate of its own, for tests and benchmarks."""

import datetime
import http.client
import os
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import IO

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.require import need
from tests.running import MAX_OUTPUT_BYTES, free_port

CONFIG = Path(__file__).resolve().parents[1] / "deploy" / "haproxy.cfg"
START_SECONDS = 20.0


@dataclass(frozen=True)
class Edge:
    """Where it answers, whom to trust for it, its process, and what it logs."""

    port: int
    trust: ssl.SSLContext
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def said(self) -> str:
        # Not by seeking: HAProxy writes where its reader would stand.
        return os.pread(self.output.fileno(), MAX_OUTPUT_BYTES, 0).decode()


def certificate(folder: Path) -> Path:
    """A self-signed certificate for the loopback, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vidseq edge")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "edge.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def environment(*, port: int, certificate: Path, nodes: str, **told: object) -> dict[str, str]:
    """What the configuration is told: one address, and `told` by the rest of a variable's name."""
    named = {f"VIDSEQ_EDGE_{name.upper()}": str(value) for name, value in told.items()}
    return {
        **os.environ,
        "VIDSEQ_EDGE_ADDRESS": f"127.0.0.1:{port}",
        "VIDSEQ_EDGE_CERTIFICATE": str(certificate),
        "VIDSEQ_EDGE_NODES": nodes,
        "VIDSEQ_EDGE_MAX_NODES": "1",
    } | named


@contextmanager
def running_edge(service_url: str, *, config: str | None = None, down: bool = False, **told: object) -> Iterator[Edge]:
    """The edge before the service at this URL, once it passes requests on, or once it finds that service `down`.

    `config` is another text than the file's; `told` are the rests of the names of variables that it reads.
    """
    haproxy = need("haproxy")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        pem = certificate(Path(folder))
        file = Path(folder) / "haproxy.cfg"
        file.write_text(CONFIG.read_text() if config is None else config)
        process = subprocess.Popen(
            [haproxy, "-db", "-f", file],
            env=environment(port=port, certificate=pem, nodes=service_url.removeprefix("http://"), **told),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        edge = Edge(port, ssl.create_default_context(cafile=pem), process, output)
        try:
            _await(edge, down=down)
            yield edge
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _await(edge: Edge, *, down: bool) -> None:
    deadline = time.monotonic() + START_SECONDS
    while (found := status(edge, "/v1/models")) is None or (found == 503) is not down:
        assert edge.process.poll() is None, edge.said()
        assert time.monotonic() < deadline, f"the edge answers {found}: {edge.said()}"
        time.sleep(0.05)


def status(edge: Edge, path: str) -> int | None:
    """The status of a GET, None if nobody answers."""
    connection = http.client.HTTPSConnection("127.0.0.1", edge.port, timeout=10, context=edge.trust)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
