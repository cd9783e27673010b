"""What `vidseq serve` refuses before it starts anything, and that it leaves no child behind."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.app import ServiceArgs
from serving.check import check
from serving.keys import create_key
from serving.launch import refuse_taken, who_may
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


# Who may ask


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_keys_the_loopback_is_open(host: str) -> None:
    assert "everybody on this machine" in who_may(host, keys=None, open_to_all=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_any_other_address_is_refused_with_what_to_do(host: str) -> None:
    with pytest.raises(OptionError, match=rf"{host} is more.*vidseq keys create.*--keys.*--open"):
        who_may(host, keys=None, open_to_all=False)


def test_open_is_said_by_name_and_told_in_the_log() -> None:
    assert who_may("0.0.0.0", keys=None, open_to_all=True) == "OPEN to everybody who reaches 0.0.0.0: --open"


def test_with_keys_any_address_will_do_and_the_log_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"
    key = create_key(file, name="anna", scopes=["stream"], lifetime_seconds=None)
    said = who_may("0.0.0.0", keys=file, open_to_all=False)
    assert f"{file} (1 live now)" in said and key[17:] not in said


def test_keys_and_open_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="exclude each other"):
        who_may("0.0.0.0", keys=tmp_path / "keys.db", open_to_all=True)


def test_a_file_of_keys_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"there is no file of keys at .*vidseq keys create"):
        who_may("127.0.0.1", keys=tmp_path / "keys.db", open_to_all=False)


@pytest.mark.parametrize("said", [{}, {"keys": "/keys/keys.db", "open": True}])
def test_a_config_file_that_does_not_say_who_may_ask_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"either keys, .* or open: true"):
        ServiceArgs.model_validate({"model": "/model", **said})


# What is served


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
