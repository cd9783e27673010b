"""The repository's habits: pins that name no host, an environment that is not trusted, floors, commands that exist."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from require import need

from scripts.whole import damaged_files

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PACKAGES = ("vidseq", "training", "serving")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def pins() -> dict[str, str]:
    """Exact version by canonical name."""
    found = re.findall(r"^([\w.-]+)(?:\[.*?\])?==([^\s;]+)", CONSTRAINTS, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    asked = [Requirement(line) for lines in (PROJECT["dependencies"], *extras) for line in lines]
    return [requirement for requirement in asked if requirement.name != PROJECT["name"]]


def install(site_packages: Path, *, record: str) -> Path:
    """A package of one file, as an installer leaves it."""
    package = site_packages / "toy-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: toy\n")
    (package / "RECORD").write_text(record)
    (site_packages / "toy.py").write_text("x = 1\n")
    return package


# Pins ------------------------------------------------------------------------------------------------


def test_the_constraints_name_no_host() -> None:
    assert re.findall(r"\w+://|--(?:index|extra-index|find-links)|\bfile:| @ ", CONSTRAINTS) == []


def test_every_line_of_the_constraints_is_an_exact_pin_with_a_hash() -> None:
    pin = re.compile(r"[\w.-]+==\S+.*(\n +--hash=sha256:\w{64}.*)+")
    blocks = re.split(r"\n(?! )", CONSTRAINTS.strip())
    assert [block for block in blocks if not pin.fullmatch(block)] == []


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_what_the_project_asks_for_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_what_the_packages_import_is_what_the_project_asks_for() -> None:
    distributions = packages_distributions()
    halves = ["starlette", "pydantic-core", "typing-extensions"]  # the other ones of fastapi and pydantic
    asked = {canonicalize_name(name) for name in [*halves, *(requirement.name for requirement in requirements())]}
    imported = {top for path in MODULES for top in imports(path)} - set(PACKAGES) - sys.stdlib_module_names
    assert {top for top in imported if not asked & {canonicalize_name(name) for name in distributions[top]}} == set()


def imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in plain | froms}


# The environment -------------------------------------------------------------------------------------


def test_an_installed_package_with_all_its_files_is_whole(tmp_path: Path) -> None:
    install(tmp_path, record="toy.py,sha256=abc,6\ntoy-1.0.dist-info/METADATA,,\ntoy-1.0.dist-info/RECORD,,\n")
    assert list(damaged_files(tmp_path)) == []


def test_a_missing_file_makes_the_environment_damaged(tmp_path: Path) -> None:
    install(tmp_path, record="toy.py,sha256=abc,6\ngone.py,sha256=abc,6\n")
    assert list(damaged_files(tmp_path)) == [tmp_path / "gone.py"]


def test_a_file_cut_short_makes_the_environment_damaged(tmp_path: Path) -> None:
    install(tmp_path, record="toy.py,sha256=abc,7\n")
    assert list(damaged_files(tmp_path)) == [tmp_path / "toy.py"]


def test_a_package_without_its_record_makes_the_environment_damaged(tmp_path: Path) -> None:
    package = install(tmp_path, record="")
    (package / "RECORD").unlink()
    assert list(damaged_files(tmp_path)) == [package]


def test_a_missing_python_is_one_sentence_that_says_what_to_do() -> None:
    done = run("scripts/environment.sh", PYTHON="python-of-nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "vidseq: there is no 'python-of-nowhere' here: run 'make system', or install Python 3.11, 3.12 or 3.13."
    ]


def test_another_python_is_one_sentence_that_says_which_ones_will_do(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    done = run("scripts/environment.sh", PYTHON=str(other))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not Python 3.11, 3.12 or 3.13" in done.stderr


def test_missing_libraries_of_the_system_are_one_sentence_that_names_the_packages(tmp_path: Path) -> None:
    blind = (
        tmp_path / "python"
    )  # a Python on a machine without any of the libraries: says so for each that is asked for
    blind.write_text('#!/bin/sh\nshift 2\nprintf "%s\\n" "$@"\n')
    blind.chmod(0o755)
    done = run("scripts/system.sh", "check", PYTHON=str(blind))
    assert done.returncode == 1
    assert done.stderr == (
        "vidseq: OpenCV's system libraries are missing: run 'make system', "
        "or apt-get install libgl1 libglib2.0-0 libxcb1.\n"
    )


# Commands --------------------------------------------------------------------------------------------


def test_make_alone_names_every_command() -> None:
    shown = set(re.findall(r"^ +make (\w+)", run(need("make"), "--no-print-directory").stdout, re.MULTILINE))
    assert shown >= {"demo", "test", "check", "fix", "bench", "fuzz", "sbom", "serve", "system", "clean", "lock"}


def test_ci_says_the_words_that_the_makefile_knows() -> None:
    words = re.findall(r"^step (\w+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words == ["system", "check", "test", "demo", "fuzz"]
    assert set(words) <= set(targets)


def test_serve_without_a_model_says_how_to_name_one() -> None:
    dry = run(need("make"), "--no-print-directory", "--dry-run", "serve", MODEL="")
    assert "name a model's folder" in dry.stdout


def test_a_missing_tool_skips_a_test_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="tool-of-nowhere is not installed"):
        need("tool-of-nowhere")


def test_a_missing_tool_fails_a_test_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE", "make tool-of-nowhere")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE names it"):
        need("tool-of-nowhere")


# Reading matter --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_its_job(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_test_mocks() -> None:
    mocks = re.compile(r"unittest\.mock|import mock|monkeypatch\.(setattr|setitem)\(")
    others = [path for path in (ROOT / "tests").glob("*.py") if path != Path(__file__).resolve()]
    assert [path.name for path in others if mocks.search(path.read_text())] == []


def test_the_licence_is_the_one_that_the_project_names() -> None:
    title, version = (line.strip() for line in (ROOT / "LICENSE").read_text().splitlines()[1:3])
    assert PROJECT["license"] == "Apache-2.0"
    assert (title, version) == ("Apache License", "Version 2.0, January 2004")
