"""On a Ray that others have started: no service without a token, and TLS between its processes."""

import secrets
from pathlib import Path

import grpc
import pytest

from serving.locked import METHOD, REQUIRE_TLS
from tests.certificates import make_certificates
from tests.ports import asked_over_grpc, http_get
from tests.ray_head import ray_head
from tests.running import listeners, running_service
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from vidseq.client import Client

pytestmark = pytest.mark.cluster

ASK = """
import ray
from serving.locked import refuse_open_ray
from vidseq.errors import OptionError
ray.init(log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0)
class Replica:
    def __init__(self): refuse_open_ray()
    def runs(self): return "it runs"

replica = Replica.remote()
try:
    print(ray.get(replica.runs.remote()))
except ray.exceptions.RayError as error:
    print(str(error))
"""


def test_nothing_of_the_service_runs_on_a_cluster_that_was_started_without_a_token() -> None:
    with ray_head({"RAY_AUTH_MODE": "disabled"}) as head:
        said = head.run(ASK)
    assert "this Ray does not ask for a token (it answers OK)" in said.stdout, said.stderr
    assert "RAY_AUTH_MODE=token" in said.stdout


def test_with_a_token_it_runs_and_the_job_api_refuses_whoever_has_none() -> None:
    with ray_head({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}) as head:
        said = head.run(ASK)
        answers = [http_get("127.0.0.1", head.dashboard_port, path) for path in ("/api/jobs/", "/api/version")]
    assert said.stdout.splitlines()[-1:] == ["it runs"], said.stderr
    assert [answer and answer[0] for answer in answers] == [401, 401]


def test_with_tls_a_service_runs_and_who_has_no_certificate_reaches_no_port_of_rays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, path in make_certificates(tmp_path).items():
        monkeypatch.setenv(name, str(path))
    monkeypatch.setenv("RAY_USE_TLS", "1")
    monkeypatch.setenv(REQUIRE_TLS, "1")
    with running_service(toy_checkpoint(tmp_path / "toy")) as service:
        with Client(service.url) as client:
            assert client.classify(write_clip(tmp_path / "clip.mp4")).video.complete
        ports = [each for each in listeners(service.tree()) if each.name in ("gcs_server", "raylet", "ray::ServeRepli")]
        said = {asked_over_grpc(port.host, port.port, token=None, methods=(METHOD,)) for port in ports}
        known = grpc.ssl_channel_credentials((tmp_path / "RAY_TLS_CA_CERT").read_bytes())
        (gcs,) = [port for port in ports if port.name == "gcs_server"]
        with grpc.secure_channel(f"127.0.0.1:{gcs.port}", known) as channel, pytest.raises(grpc.RpcError) as stranger:
            channel.unary_unary(METHOD)(b"", timeout=10)
    assert len(ports) >= 5
    assert {(answered.num_refused, answered.others) for answered in said} == {(0, frozenset({f"{METHOD} UNAVAILABLE"}))}
    assert stranger.value.code() == grpc.StatusCode.UNAVAILABLE
