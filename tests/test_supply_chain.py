"""What a service is made of: every package and every native library inside, the FFmpeg that decodes not too old."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.sbom import every
from tests.test_repository import CONSTRAINTS
from vidseq.config import Limits
from vidseq.sandbox.box import Sandbox

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
FFMPEG_FLOOR = Version("8.1.2")  # 8.1.1 has CVE-2026-8461


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As `make sbom` writes it, which also holds it against CycloneDX' own schema."""
    out = tmp_path_factory.mktemp("sbom") / "sbom.json"
    subprocess.run([sys.executable, "scripts/sbom.py", "--out", out], cwd=ROOT, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def packages(bill: dict[str, Any], *scopes: str) -> dict[str, dict[str, Any]]:
    return {canonicalize_name(each["name"]): each for each in bill["components"] if each["scope"] in scopes}


def libraries(bill: dict[str, Any], package: str) -> dict[str, str]:
    """The version of each native library inside."""
    inside = packages(bill, "required", "excluded")[package]["components"]
    return {each["name"]: each["version"] for each in every(inside)}


def test_it_is_a_bill_of_this_project(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "vidseq")


def test_every_pinned_package_of_this_python_and_machine_is_listed_in_its_pinned_version(bill: dict[str, Any]) -> None:
    lines = re.findall(r"^([\w.-]+==[^\\\n]+)", CONSTRAINTS, re.MULTILINE)
    pins = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate()]
    listed = {name: each["version"] for name, each in packages(bill, "required", "excluded").items()}
    found = {pin.name: listed.get(canonicalize_name(pin.name), "") for pin in pins}
    assert len(pins) > 100
    assert [str(pin) for pin in pins if not pin.specifier.contains(found[pin.name], prereleases=True)] == []


def test_what_a_service_needs_is_told_from_what_tests_need(bill: dict[str, Any]) -> None:
    served, others = packages(bill, "required"), packages(bill, "excluded")
    assert served.keys() >= {"opencv-python", "torch", "ray", "fastapi", "psycopg", "cryptography"}
    assert others.keys() >= {"pytest", "av", "ruff", "cyclonedx-bom", "torchcodec"}


def test_ffmpeg_is_listed_with_the_version_that_it_tells_and_its_libraries(bill: dict[str, Any]) -> None:
    found = libraries(bill, "opencv-python")
    assert Version(found["ffmpeg"]) >= FFMPEG_FLOOR
    assert {"libavcodec", "libavformat", "libavutil", "libswscale"} <= found.keys()
    assert Version(found["libavcodec"]).major >= 62


@pytest.mark.parametrize(
    ("package", "library"),
    [
        ("opencv-python", "libdav1d"),
        ("opencv-python", "libvpx"),
        ("opencv-python", "libcrypto"),
        ("pillow", "libjpeg"),
        ("pillow", "libwebp"),
        ("numpy", "libscipy_openblas64_"),
        ("psycopg-binary", "libpq"),
        ("torch", "libtorch_cpu"),
        ("torchvision", "libpng16"),
    ],
)
def test_native_libraries_are_listed_with_a_version(package: str, library: str, bill: dict[str, Any]) -> None:
    assert libraries(bill, package)[library][0].isdigit()


def test_every_library_in_the_folders_of_a_served_wheel_is_listed(bill: dict[str, Any]) -> None:
    site = Path(next(iter(distributions(name="numpy"))).locate_file(""))
    listed = {
        told["value"]
        for package in packages(bill, "required").values()
        for each in every(package.get("components", []))
        for told in each.get("properties", ())
    }
    folders = {"numpy.libs", "opencv_python.libs", "pillow.libs", "psycopg_binary.libs", "torchvision.libs"}
    there = {f"{folder}/{name}" for folder in folders for name in os.listdir(site / folder)}
    assert len(there) > 60
    assert there - listed == set()


def test_every_ffmpeg_of_a_service_is_one_that_has_the_fix(bill: dict[str, Any]) -> None:
    """CVE-2026-8461, a heap write: whichever package brings one."""
    found = [
        (package, each["version"])
        for package, component in packages(bill, "required").items()
        for each in every(component.get("components", []))
        if each["name"] == "ffmpeg"
    ]
    assert [package for package, _ in found] == ["opencv-python"]
    assert all(Version(version) >= FFMPEG_FLOOR for _, version in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that nobody else may look into")
def test_the_ffmpeg_that_decodes_is_the_one_that_is_listed_and_no_other() -> None:
    with Sandbox() as sandbox:
        assert sandbox.prove(Limits()).failure is None
        maps = Path(f"/proc/{sandbox.server_pid}/maps").read_text()
    mapped = {Path(line.split()[-1]).parent.name for line in maps.splitlines() if "/libavcodec" in line}
    assert mapped == {"opencv_python.libs"}
