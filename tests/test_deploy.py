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
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from serving.app import ControlArgs
from serving.web import WebSettings, whole_api
from vidseq.cli import app

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
SERVE_TEXT = (ROOT / "deploy/serve.yaml").read_text()
SERVE = yaml.safe_load(SERVE_TEXT)
RAY_SERVICE, POLICY = yaml.safe_load_all((ROOT / "deploy/rayservice.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
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
    assert deployment("service")["max_ongoing_requests"] > WebSettings().max_concurrent


def test_the_cluster_has_room_for_every_replica_that_serve_may_ask_for() -> None:
    limits = WORKERS["template"]["spec"]["containers"][0]["resources"]["limits"]
    service, control = deployment("service"), deployment("control")
    asked = service["ray_actor_options"]
    assert WORKERS["maxReplicas"] * int(limits["nvidia.com/gpu"]) >= (
        service["autoscaling_config"]["max_replicas"] * asked["num_gpus"]
    )
    assert int(limits["cpu"]) >= (
        asked["num_cpus"] + control["num_replicas"] * control["ray_actor_options"]["num_cpus"]
    )


def test_the_ray_service_carries_the_serve_config_word_for_word() -> None:
    assert SERVE_TEXT.endswith(RAY_SERVICE["spec"]["serveConfigV2"])
    assert yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"]) == SERVE


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


def test_compose_publishes_the_services_port_to_this_machine_alone() -> None:
    published = [by_default(port) for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert f"127.0.0.1:{PORT}:{PORT}" in published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


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


def test_the_image_looks_for_keys_where_a_volume_of_its_user_can_be() -> None:
    told = dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())
    assert told["VIDSEQ_KEYS"] == str(KEYS_FILE)
    assert re.search(rf"install -d -o vidseq -g vidseq -m 0700 {KEYS_FILE.parent}$", DOCKERFILE, re.MULTILINE)


def test_of_compose_the_services_read_the_keys_and_one_command_writes_them() -> None:
    mounted = {
        name: [volume for volume in service["volumes"] if str(volume).startswith("keys:")]
        for name, service in COMPOSE["services"].items()
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
