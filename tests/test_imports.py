"""What an import must not bring with it: each claim in a fresh interpreter."""

import subprocess
import sys

import pytest


def loaded_by(module: str, heavy: set[str]) -> set[str]:
    """Those of `heavy` that a fresh interpreter has loaded after importing `module`."""
    program = f"import sys, {module}; print(*({heavy!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["vidseq", "vidseq.client", "vidseq.schemas", "vidseq.errors"])
def test_the_sdk_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(module, {"torch", "torchvision", "cv2", "numpy", "ray", "fastapi"}) == set()


def test_the_classifier_does_not_load_ray() -> None:
    assert loaded_by("vidseq.classifier", {"ray", "fastapi"}) == set()


@pytest.mark.parametrize("module", ["vidseq.checkpoint", "serving.batch.score_job", "training.loop.fit"])
def test_who_makes_no_encoder_does_not_wait_for_backbones(module: str) -> None:
    assert loaded_by(module, {"timm", "torchvision"}) == set()


def test_the_web_app_loads_neither_ray_nor_torch() -> None:
    assert loaded_by("serving.web", {"ray", "torch", "cv2", "numpy"}) == set()


def test_a_module_that_is_loaded_is_found() -> None:
    assert loaded_by("vidseq.client", {"pydantic", "httpx2"}) == {"pydantic", "httpx2"}
