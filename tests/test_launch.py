"""What `vidseq serve` refuses before it starts anything, and that it leaves no child behind."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.check import check
from serving.launch import refuse_taken
from tests.running import free_port
from tests.test_imports import loaded_by
from tests.toy_models import toy_checkpoint
from vidseq.errors import CheckpointError, OptionError


def test_a_port_that_somebody_listens_on_is_refused_by_its_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OptionError, match=f"port {port} of 127.0.0.1: Address already in use"):
            refuse_taken("127.0.0.1", port)


def test_a_port_taken_on_one_address_is_refused_for_all_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OptionError):
        refuse_taken("0.0.0.0", server.getsockname()[1])


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(OptionError, match="from 1 to 65535"):
        refuse_taken("127.0.0.1", port)


def test_an_address_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(OptionError, match=r"of 192\.0\.2\.1"):  # TEST-NET-1
        refuse_taken("192.0.2.1", free_port())


def test_a_free_port_passes_and_stays_free() -> None:
    port = free_port()
    refuse_taken("127.0.0.1", port)
    refuse_taken("127.0.0.1", port)


def test_a_folder_that_is_no_model_is_refused_in_the_words_of_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        check(tmp_path, device="cpu")


def test_a_device_that_torch_does_not_know_is_refused_by_its_name(tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "toy")
    check(model, device="cpu")
    with pytest.raises(OptionError, match="the device 'abacus' cannot be used"):
        check(model, device="abacus")


def test_the_command_loads_neither_ray_nor_torch_before_it_has_looked_at_the_port() -> None:
    assert loaded_by("serving.launch", {"ray", "torch"}) == set()


def test_only_a_replica_of_the_service_loads_torch() -> None:
    assert loaded_by("serving.app", {"torch", "cv2"}) == set()


GRANDCHILD = """
import subprocess, sys
from serving.children import none_left_over
with none_left_over():
    shell = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!"], stdout=subprocess.PIPE, text=True)
    print(shell.stdout.readline(), end="")
"""


@pytest.mark.slow
def test_a_grandchild_whose_parent_has_gone_is_ended_too() -> None:
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", GRANDCHILD], capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    assert not Path(f"/proc/{int(ended.stdout)}").exists()
    assert time.monotonic() - begun < 30
