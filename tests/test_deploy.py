"""What deploys vidseq: the files parse, their names and ports agree with each other and with the code, nothing runs as
root, no secret is inside. Nothing here is started: that takes Docker or Kubernetes.
"""

import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from serving.arguments import ControlArgs, ServiceArgs
from serving.database.urls import DATABASE
from serving.locked import REQUIRE_TLS
from serving.places import KEYS, STORE
from serving.uploads.places import UPLOADS
from serving.web import whole_api
from serving.web_settings import WebSettings
from vidseq.cli import app
from vidseq.memory import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
SERVE_TEXT = (ROOT / "deploy/serve.yaml").read_text()
SERVE = yaml.safe_load(SERVE_TEXT)
RAY_SERVICE, POLICY = yaml.safe_load_all((ROOT / "deploy/rayservice.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
EDGE = {
    (part["kind"], part["metadata"]["name"]): part
    for part in yaml.safe_load_all((ROOT / "deploy/edge.yaml").read_text())
}
EDGE_POD = EDGE["Deployment", "vidseq-edge"]["spec"]["template"]
EDGE_CONFIG = (ROOT / "deploy/haproxy.cfg").read_text()
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
FILES = [ROOT / "docker-compose.yml", *sorted((ROOT / "deploy").iterdir())]

KEYS_FILE = Path(SERVE["applications"][0]["args"]["keys"])
PORT = SERVE["http_options"]["port"]
HEAD = RAY_SERVICE["spec"]["rayClusterConfig"]["headGroupSpec"]
(WORKERS,) = RAY_SERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]
PODS = [pytest.param(group["template"]["spec"], id=name) for name, group in (("head", HEAD), ("worker", WORKERS))]
APPLICATIONS = [pytest.param(application, id=application["name"]) for application in SERVE["applications"]]
SERVICES = [pytest.param(service, id=name) for name, service in COMPOSE["services"].items()]


def instructions(name: str) -> list[str]:
    """The arguments of every such instruction of the Dockerfile, in order, without comments."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    return re.findall(rf"^ *{name} +(.*)$", lines.replace("\\\n", " "), re.MULTILINE)


def image_command() -> list[str]:
    return list(json.loads(instructions("CMD")[-1]))


def by_default(text: str) -> str:
    """What Compose makes of ${NAME:-default}; ${NAME:?...} stays."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def deployment(application: str) -> dict[str, Any]:
    (found,) = [a["deployments"][0] for a in SERVE["applications"] if a["name"] == application]
    return dict(found)


# Serve's config and the code ----------------------------------------------------------------------------------------


def test_ray_accepts_the_serve_config() -> None:
    config = ServeDeploySchema.model_validate(SERVE)
    assert {a.name: a.route_prefix for a in config.applications} == {"service": "/v1", "control": "/"}


@pytest.mark.parametrize("application", APPLICATIONS)
def test_the_serve_config_calls_builders_of_the_code_with_what_they_take(application: dict[str, Any]) -> None:
    module, _, name = application["import_path"].partition(":")
    builder = getattr(importlib.import_module(module), name)
    (parameter,) = inspect.signature(builder, eval_str=True).parameters.values()
    built = builder(parameter.annotation.model_validate(application.get("args", {})))
    (configured,) = application["deployments"]
    assert built._bound_deployment.name == configured["name"]


def test_the_control_asks_the_application_that_the_config_calls_the_service() -> None:
    control = SERVE["applications"][1]
    assert ControlArgs.model_validate(control.get("args", {})).service == SERVE["applications"][0]["name"]


def test_serve_gives_up_only_after_the_service_itself_would_have() -> None:
    settings = WebSettings()
    own = settings.body_timeout_seconds + settings.request_timeout_seconds
    assert SERVE["http_options"]["request_timeout_s"] > own


def test_rays_gate_is_wider_than_the_services_own() -> None:
    web = WebSettings()
    own = web.max_arriving + web.max_concurrent + web.streams.max_streams
    assert deployment("service")["max_ongoing_requests"] > own


def test_the_cluster_has_room_for_every_replica_that_serve_may_ask_for() -> None:
    limits = WORKERS["template"]["spec"]["containers"][0]["resources"]["limits"]
    service, control = deployment("service"), deployment("control")
    asked = service["ray_actor_options"]
    most = service["autoscaling_config"]["max_replicas"] * (1 + service["max_surge_percent"] / 100)
    assert WORKERS["maxReplicas"] * int(limits["nvidia.com/gpu"]) >= most * asked["num_gpus"]
    assert int(limits["cpu"]) >= (
        asked["num_cpus"] + control["num_replicas"] * control["ray_actor_options"]["num_cpus"]
    )


def test_replicas_are_on_different_nodes_and_there_is_a_node_for_each_at_least() -> None:
    service, control = deployment("service"), deployment("control")
    assert service["max_replicas_per_node"] == control["max_replicas_per_node"] == 1
    fewest = service["autoscaling_config"]["min_replicas"]
    assert min(fewest, control["num_replicas"]) >= 2
    assert WORKERS["minReplicas"] >= max(fewest, control["num_replicas"])


def test_of_another_model_a_replica_answers_before_one_of_the_old_goes() -> None:
    assert deployment("service")["max_surge_percent"] > 0


def test_rays_pods_speak_tls_or_the_service_refuses_to_run_on_them() -> None:
    assert RAY_SERVICE["spec"]["rayClusterConfig"]["tlsOptions"] == {}
    told = {variable["name"]: variable.get("value") for variable in WORKERS["template"]["spec"]["containers"][0]["env"]}
    assert told[REQUIRE_TLS] == "1"


def test_what_rays_head_knows_outlives_it() -> None:
    kept = RAY_SERVICE["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert kept["redisAddress"].startswith("rediss://")
    assert kept["redisPassword"]["valueFrom"]["secretKeyRef"].keys() == {"name", "key"}


def test_the_ray_service_carries_the_serve_config_word_for_word() -> None:
    assert SERVE_TEXT.endswith(RAY_SERVICE["spec"]["serveConfigV2"])
    assert yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"]) == SERVE


def test_a_cluster_shows_the_page_of_the_api_to_nobody_and_answers_no_page_of_another_host() -> None:
    for application, args in zip(SERVE["applications"], (ServiceArgs, ControlArgs), strict=True):
        web = args.model_validate(application.get("args", {})).web
        assert (web.docs, web.allowed_origins) == (False, frozenset())


# Versions ----------------------------------------------------------------------------------------


def test_the_cluster_runs_the_ray_that_is_pinned() -> None:
    pinned = re.search(r"^ray(?:\[.*\])?==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert RAY_SERVICE["spec"]["rayClusterConfig"]["rayVersion"] == pinned[1]


def test_every_image_of_vidseq_has_the_projects_version() -> None:
    tags = [tag for path in FILES for tag in re.findall(r"\bvidseq:(\S+?)-[cg]pu\b", path.read_text())]
    assert len(tags) >= 5
    assert set(tags) == {PROJECT["version"]}


def test_the_image_has_a_python_that_the_project_supports() -> None:
    (version,) = [argument.partition("=")[2] for argument in instructions("ARG") if "PYTHON_VERSION" in argument]
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert {base.split()[0] for base in instructions("FROM")} == {"python:${PYTHON_VERSION}-slim-bookworm"}


def test_no_image_floats_on_latest() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    assert [image for image in images if not re.search(r":v?\d", image)] == []


# What is inside the image ----------------------------------------------------------------------------------------


def test_the_image_brings_the_libraries_that_make_system_brings() -> None:
    wanted = set(re.findall(r"^ +\[lib.*?\]=(\S+)$", (ROOT / "scripts/system.sh").read_text(), re.MULTILINE))
    (apt,) = [run for run in instructions("RUN") if "apt-get install" in run]
    assert set(re.findall(r"\blib\w[\w.-]*", apt.partition("install")[2].partition("&&")[0])) == wanted


def test_what_the_image_is_made_of_reaches_the_build() -> None:
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    assert set(copied) == set(allowed)
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_what_the_cpu_image_leaves_out_is_not_needed_without_a_gpu() -> None:
    left_out = re.findall(r"cpu\) echo (\w+)", DOCKERFILE)
    code = f"import sys; sys.modules[{left_out[0]!r}] = None; import torch, torchvision, timm, vidseq.classifier"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (left_out, done.stderr, done.returncode) == (["triton"], "", 0)


# Ports and paths ----------------------------------------------------------------------------------------


def test_the_image_serves_on_the_port_that_it_exposes() -> None:
    command = image_command()
    assert command[command.index("--port") + 1] == str(PORT)
    assert instructions("EXPOSE") == [str(PORT)]
    assert f"127.0.0.1:{PORT}/" in DOCKERFILE


@pytest.mark.parametrize(
    "command", [image_command(), COMPOSE["services"]["service-gpu"]["command"]], ids=["cpu", "gpu"]
)
def test_a_container_starts_with_options_that_vidseq_has(command: list[str]) -> None:
    help_text = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [command[0], "--help"]).output
    assert [word for word in command if word.startswith("--") and word not in help_text] == []
    assert command[1] == SERVE["applications"][0]["args"]["model"]


def edge_port() -> int:
    (port,) = re.findall(r'^    presetenv VIDSEQ_EDGE_ADDRESS ":(\d+)"$', EDGE_CONFIG, re.MULTILINE)
    return int(port)


def test_compose_publishes_the_edge_and_prometheus_to_this_machine_alone() -> None:
    published = {
        name: [by_default(port) for port in service["ports"]]
        for name, service in COMPOSE["services"].items()
        if "ports" in service
    }
    port = edge_port()
    assert published == {"edge": [f"127.0.0.1:{port}:{port}"], "prometheus": ["127.0.0.1:9090:9090"]}
    assert COMPOSE["services"]["service"]["expose"] == [str(PORT)]


def test_kubernetes_publishes_the_edge_and_nothing_else() -> None:
    types = {name: part["spec"].get("type", "ClusterIP") for (kind, name), part in EDGE.items() if kind == "Service"}
    assert types == {"vidseq-edge": "LoadBalancer", "vidseq-nodes": "ClusterIP"}
    assert "serveService" not in RAY_SERVICE["spec"]  # KubeRay's own are reached from inside the cluster alone
    (public,) = EDGE["Service", "vidseq-edge"]["spec"]["ports"]
    (opened,) = EDGE_POD["spec"]["containers"][0]["ports"]
    (rule,) = EDGE["NetworkPolicy", "vidseq-edge"]["spec"]["ingress"]
    assert (public["port"], public["targetPort"], opened["containerPort"]) == (443, edge_port(), edge_port())
    assert [port["port"] for port in rule["ports"]] == [edge_port()]


def test_what_answers_requests_is_reached_by_the_edge_and_by_the_cluster_alone() -> None:
    rules = POLICY["spec"]["ingress"]
    assert PORT not in [opened["port"] for rule in rules if "from" not in rule for opened in rule["ports"]]
    (source,) = [rule["from"] for rule in rules if {"port": PORT, "protocol": "TCP"} in rule.get("ports", [])]
    assert source == [{"podSelector": {"matchLabels": EDGE_POD["metadata"]["labels"]}}]


def test_the_edge_finds_every_node_by_its_name() -> None:
    nodes = EDGE["Service", "vidseq-nodes"]["spec"]
    (told,) = EDGE_POD["spec"]["containers"][0]["env"]
    assert (told["name"], told["value"]) == ("VIDSEQ_EDGE_NODES", f"vidseq-nodes:{PORT}")
    assert (nodes["clusterIP"], nodes["ports"][0]["port"]) == ("None", PORT)
    labels = WORKERS["template"]["metadata"]["labels"] | {"ray.io/node-type": "worker"}  # KubeRay's own
    assert nodes["selector"].items() <= labels.items()
    assert f"VIDSEQ_EDGE_NODES service:{PORT}" in EDGE_CONFIG and "service" in COMPOSE["services"]


def test_kubernetes_and_compose_start_the_edge_with_the_configuration_that_is_tested() -> None:
    assert EDGE["ConfigMap", "vidseq-edge"]["data"]["haproxy.cfg"] == EDGE_CONFIG
    folder = "/usr/local/etc/haproxy"
    assert COMPOSE["services"]["edge"]["volumes"][0] == f"./deploy/haproxy.cfg:{folder}/haproxy.cfg:ro"
    mounts = {mount["name"]: mount["mountPath"] for mount in EDGE_POD["spec"]["containers"][0]["volumeMounts"]}
    assert mounts == {"config": folder, "certificate": "/certificates"}
    assert EDGE_POD["spec"]["containers"][0]["image"] == COMPOSE["services"]["edge"]["image"]
    assert COMPOSE["services"]["edge"]["volumes"][1]["target"] == "/certificates/edge.pem"
    assert "VIDSEQ_EDGE_CERTIFICATE /certificates/edge.pem" in EDGE_CONFIG


def test_the_edge_runs_without_rights() -> None:
    assert EDGE_POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert EDGE_POD["spec"]["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_kubernetes_reaches_the_port_that_serve_opens() -> None:
    (worker,) = WORKERS["template"]["spec"]["containers"]
    opened = {port["name"]: port["containerPort"] for port in worker["ports"]}
    reached = {rule["port"] for ingress in POLICY["spec"]["ingress"] for rule in ingress.get("ports", [])}
    assert opened["serve"] == PORT
    assert worker["readinessProbe"]["httpGet"]["port"] == PORT
    assert {opened["serve"], opened["metrics"]} <= reached


def test_the_policy_is_about_the_pods_of_the_cluster() -> None:
    selected = POLICY["spec"]["podSelector"]["matchLabels"].items()
    assert selected <= HEAD["template"]["metadata"]["labels"].items()
    assert selected <= WORKERS["template"]["metadata"]["labels"].items()


def test_prometheus_reads_what_the_service_answers() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"service:{PORT}"]}]
    assert "service" in COMPOSE["services"]
    assert job["metrics_path"] in whole_api()["paths"]


def test_the_health_check_asks_a_path_that_the_service_answers() -> None:
    (path,) = re.findall(rf"http://127\.0\.0\.1:{PORT}(/\w+)", DOCKERFILE)
    assert path in whole_api()["paths"]


@pytest.mark.parametrize("pod", PODS)
def test_the_model_is_mounted_read_only_where_the_serve_config_looks_for_it(pod: dict[str, Any]) -> None:
    (model,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "model"]
    assert model == {"name": "model", "mountPath": SERVE["applications"][0]["args"]["model"], "readOnly": True}


@pytest.mark.parametrize("pod", PODS)
def test_the_keys_are_mounted_read_only_where_the_serve_config_looks_for_them(pod: dict[str, Any]) -> None:
    (keys,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "keys"]
    assert keys == {"name": "keys", "mountPath": str(KEYS_FILE.parent), "readOnly": True}
    (volume,) = [v["projected"] for v in pod["volumes"] if v["name"] == "keys"]
    assert volume == {"defaultMode": 0o440, "sources": [{"secret": {"name": "vidseq-keys"}}]}


@pytest.mark.parametrize("pod", PODS)
def test_uploads_lie_in_a_claim_that_all_pods_share(pod: dict[str, Any]) -> None:
    told = {each["name"]: each.get("value") for each in WORKERS["template"]["spec"]["containers"][0]["env"]}
    (mounted,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == told[UPLOADS]]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mounted["name"]]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert (mounted.get("readOnly"), pod["securityContext"]["fsGroup"]) == (None, pod["securityContext"]["runAsGroup"])
    header = (ROOT / "deploy/rayservice.yaml").read_text().partition("apiVersion")[0]
    assert re.search(rf"claim `{claim}`[^`]*ReadWriteMany", header)


def test_the_image_looks_for_keys_where_a_volume_of_its_user_can_be() -> None:
    told = dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())
    assert told["VIDSEQ_KEYS"] == str(KEYS_FILE)
    assert re.search(rf"install -d -o vidseq -g vidseq -m 0700 {KEYS_FILE.parent}$", DOCKERFILE, re.MULTILINE)


def test_processes_of_the_image_keep_the_memory_that_they_have_freed() -> None:
    told = dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())
    assert told.items() >= ENVIRONMENT.items()


def test_of_compose_the_services_read_the_keys_and_one_command_writes_them() -> None:
    mounted = {
        name: [volume for volume in service["volumes"] if str(volume).startswith("keys:")]
        for name, service in COMPOSE["services"].items()
        if name != "edge"
    }
    folder = KEYS_FILE.parent
    assert mounted == {
        "service": [f"keys:{folder}:ro"],
        "service-gpu": [f"keys:{folder}:ro"],
        "keys": [f"keys:{folder}"],
        "prometheus": [],
    }
    words = COMPOSE["services"]["keys"]["entrypoint"]
    assert words[0] == "vidseq" and CliRunner().invoke(app, [*words[1:], "create", "--help"]).exit_code == 0


def test_a_worker_is_told_where_to_keep_what_outlives_it_and_finds_all_of_it_in_secrets() -> None:
    (worker,) = WORKERS["template"]["spec"]["containers"]
    told = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in worker["env"] if "valueFrom" in each}
    assert told.keys() == {STORE, KEYS, DATABASE}
    header = (ROOT / "deploy/rayservice.yaml").read_text().partition("apiVersion")[0]
    assert [secret for secret in told.values() if f"`{secret['name']}`" not in header] == []
    assert [name for name in told if name not in SERVE_TEXT] == []


# Rights ----------------------------------------------------------------------------------------


def test_the_image_runs_as_a_numbered_user_who_is_not_root() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


@pytest.mark.parametrize("pod", PODS)
def test_pods_run_as_the_images_user_without_rights(pod: dict[str, Any]) -> None:
    (user,) = instructions("USER")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    assert [container["securityContext"] for container in pod["containers"]] == [
        {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    ]


def containers(told: Any) -> Iterator[dict[str, Any]]:
    """Whatever has an image of its own, however deep, and the autoscaler that KubeRay adds."""
    if isinstance(told, dict):
        yield from [told] if "image" in told else []
        yield from [told["autoscalerOptions"]] if "autoscalerOptions" in told else []
    for inside in told.values() if isinstance(told, dict) else told if isinstance(told, list) else ():
        yield from containers(inside)


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*.yaml")), ids=lambda path: path.name)
def test_every_container_of_every_manifest_is_without_rights_and_cannot_write_its_root(path: Path) -> None:
    found = [each["securityContext"] for told in yaml.safe_load_all(path.read_text()) for each in containers(told)]
    without = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert [context for context in found if context != without] == []
    assert len(found) >= (3 if path.name == "rayservice.yaml" else 0)


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_of_compose_is_a_numbered_user_who_is_not_root(service: dict[str, Any]) -> None:
    (image_user,) = instructions("USER")
    ours = service["image"].startswith("vidseq:")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service.get("user", image_user if ours else "an unknown one"))


@pytest.mark.parametrize("service", SERVICES)
def test_compose_takes_every_right_from_its_containers(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"privileged", "cap_add", "network_mode", "pid"} & service.keys() == set()


def test_the_image_tells_ray_what_vidseq_serve_tells_it() -> None:
    told = dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())
    front = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    module, _, name = told[front].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert f'"{front}": "{told[front]}"' in (ROOT / "serving/launch.py").read_text()


def test_a_ray_cluster_asks_for_a_token() -> None:
    assert RAY_SERVICE["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    assert "RAY_AUTH_MODE=token" in DOCKERFILE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_secret_is_inside(path: Path) -> None:
    assigned = r"(?i)\b\w*(?:passw|secret|token|api_?key)\w*\s*[:=]\s*[\"']?(?!true\b|false\b)\w+"
    assert re.findall(assigned, path.read_text()) == []
    assert re.findall(r"[A-Za-z0-9+/-]{32,}|-----BEGIN", path.read_text()) == []
