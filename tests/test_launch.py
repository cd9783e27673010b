"""What `vidseq serve` refuses before it starts anything, and that it leaves no child behind."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.arguments import ServiceArgs
from serving.check import check
from serving.keys import create_key
from serving.launch import begin_check, refuse_malformed_origin, who_may
from serving.locked import REQUIRE_TLS, refuse_open_ray
from serving.sealing import new_key
from tests.running import VIDSEQ, free_port
from tests.test_imports import loaded_by
from tests.toy_models import toy_checkpoint
from vidseq.errors import CheckpointError, OptionError

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


@pytest.mark.parametrize("said", [None, "0"])
def test_where_tls_is_required_a_ray_without_it_is_refused(monkeypatch: pytest.MonkeyPatch, said: str | None) -> None:
    monkeypatch.setenv(REQUIRE_TLS, "1")
    monkeypatch.delenv("RAY_USE_TLS", raising=False) if said is None else monkeypatch.setenv("RAY_USE_TLS", said)
    with pytest.raises(OptionError, match=f"speaks without TLS, and {REQUIRE_TLS} is set"):
        refuse_open_ray()


def test_an_origin_that_no_browser_sends_is_refused_by_the_options_name() -> None:
    with pytest.raises(OptionError, match=r"--allow-origin: 'example\.org' is no origin"):
        refuse_malformed_origin("example.org")


# Where what outlives a replica is kept

SEALED = ["--session-keys", "KEYS"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--database", "mysql://u:hidden@h/d", *SEALED], "sqlite:///path/to/file.db or postgresql://"),
        (["--database", "sqlite:///tmp/vidseq.db"], "the keys that seal it: name a file of them with --session-keys"),
        (
            ["--database", "postgresql://u:hidden@127.0.0.1:9/d", "--session-keys", "KEYS"],
            "'d' of 127.0.0.1 cannot be used",
        ),
        (["--database", "sqlite:///nowhere/vidseq.db", "--session-keys", "KEYS"], "No such file or directory"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_before_anything_starts(
    tmp_path: Path, options: list[str], words: str
) -> None:
    (tmp_path / "KEYS").write_text(new_key())
    command = [VIDSEQ, "serve", "no-model", "--port", str(free_port()), *options]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert words in " ".join(ended.stderr.split())
    assert "hidden" not in ended.stderr + ended.stdout


# What is served


def test_a_folder_that_is_no_model_is_refused_in_the_words_of_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        check(tmp_path, device="cpu")


def test_models_that_are_served_together_are_tried_together(tmp_path: Path) -> None:
    first, other = toy_checkpoint(tmp_path / "first"), toy_checkpoint(tmp_path / "other", cell="lstm")
    stranger = toy_checkpoint(tmp_path / "stranger", seed=1)
    said = begin_check(first, also=[other], device="cpu", require_sandbox=False)()
    assert "the model first has no golden answer" in said and "the model other has no golden answer" in said
    with pytest.raises(OptionError, match="stranger cannot share a look with first"):
        begin_check(first, also=[other, stranger], device="cpu", require_sandbox=False)()
    with pytest.raises(OptionError, match="two models are named 'other'"):
        check(first, also=[other, toy_checkpoint(tmp_path / "b" / "other", cell="elman")], device="cpu")


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
