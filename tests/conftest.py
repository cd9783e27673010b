"""What every test may use: one torch thread, a cache of its own, real clips, a sandbox, a GPU where there is one."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from vidseq.sandbox.box import Sandbox

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# Small tensors: threads cost more than they bring, and property tests run ten times faster without them.
torch.set_num_threads(1)

# A machine that is busy is not a failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell's background job ignores Ctrl-C, and so would all that tests start and then interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Features and backbones of tests, and of the processes they start, stay out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def ordinary_priority() -> Iterator[None]:
    """An encoder made the process of all tests real-time once, and with it every service that they started later."""
    yield
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips beside the project; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real clips (../shared/data) are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sandbox() -> Iterator["Sandbox"]:
    """One server for the decoders of all tests that break nothing."""
    from vidseq.sandbox.box import Sandbox

    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def cuda() -> torch.device:
    """Skips without a device, fails without one where FAIL_WITHOUT_CUDA=1."""
    if not torch.cuda.is_available():
        (pytest.fail if os.environ.get("FAIL_WITHOUT_CUDA") == "1" else pytest.skip)("there is no CUDA device")
    return torch.device("cuda")
