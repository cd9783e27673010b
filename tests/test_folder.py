"""What a hostile model folder tries: to lead elsewhere, to be endless, to lie about what is in it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.toy_models import hash_again, toy_checkpoint
from vidseq import folder
from vidseq.checkpoint import load_checkpoint, read_info
from vidseq.errors import CheckpointError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(sound, tmp_path / "toy")


def refused(model: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(model)
    return str(error.value)


def manifest_with(model: Path, **changes: Any) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "../card.md", "/etc/passwd", "a/b", "a\0b", "\ud800", "x" * 300, ".hidden", "manifest.json"],
)
def test_a_manifest_names_plain_files_of_its_own_folder_only(model: Path, name: str) -> None:
    digests = json.loads((model / "manifest.json").read_text())["files"]
    manifest_with(model, files={**digests, name: "0" * 64})
    assert "manifest.json is damaged: it is not a manifest" in refused(model)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "card.md", "manifest.json"])
def test_a_link_in_the_folder_is_not_followed_even_to_the_very_same_bytes(model: Path, name: str) -> None:
    outside = model.parent / "outside"
    (model / name).rename(outside)
    (model / name).symlink_to(outside)
    assert f"{name} is a link" in refused(model)


def test_the_folder_itself_may_be_reached_through_a_link(model: Path, sound: Path) -> None:
    (model.parent / "current").symlink_to(model)
    assert load_checkpoint(model.parent / "current").info == read_info(sound)


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(model: Path) -> None:
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    assert "config.json is not a plain file" in refused(model)


@pytest.mark.parametrize(
    "name", ["manifest.json", "config.json", "model.safetensors", "card.md"], ids=lambda name: name
)
def test_a_file_of_gigabytes_is_refused_before_it_is_read(model: Path, name: str) -> None:
    os.truncate(model / name, 64 * 2**30)  # a hole: it takes no disk, and would take all memory
    assert f"{name} has 68,719,476,736 bytes, where a model has at most" in refused(model)


def test_a_manifest_of_too_many_files_is_refused(model: Path) -> None:
    digests = json.loads((model / "manifest.json").read_text())["files"]
    manifest_with(model, files=digests | {f"{number}.md": "0" * 64 for number in range(folder.MAX_FILES)})
    assert "manifest.json is damaged" in refused(model)


@pytest.mark.parametrize(
    "content",
    [b"[" * 10**6, b'{"a":' * 10**5, b'{"schema": ' + b"1" * 10**6 + b"}", b"\xff\xfe", b'{"schema": 1, "files": 1}'],
    ids=["deep list", "deep object", "long number", "no text", "no files"],
)
def test_hostile_json_in_a_manifest_is_refused_in_a_sentence(model: Path, content: bytes) -> None:
    (model / "manifest.json").write_bytes(content)
    assert "manifest.json is damaged: it is not a manifest" in refused(model)


@pytest.mark.parametrize("content", [b"[" * 10**6, b'{"heads":' * 10**5, b"1" * 10**6, b"\xff"])
def test_hostile_json_in_a_config_is_refused_in_a_sentence(model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    hash_again(model, "config.json")
    assert "config.json does not describe a model of this version" in refused(model)


@pytest.mark.parametrize("backbone", ["timm:hf-hub:somebody/net", "timm:local-dir:/tmp", "../net", "timm:../../net"])
def test_a_backbone_is_a_name_that_the_libraries_know_and_no_address(model: Path, backbone: str) -> None:
    config = json.loads((model / "config.json").read_text())
    config["encoder"]["backbone"] = backbone
    (model / "config.json").write_text(json.dumps(config))
    hash_again(model, "config.json")
    assert "config.json does not describe a model of this version" in refused(model)


def with_header(data: bytes, header: dict[str, Any]) -> bytes:
    """The same safetensors file under another header."""
    old = int.from_bytes(data[:8], "little")
    words = json.dumps(header).encode()
    return len(words).to_bytes(8, "little") + words + data[8 + old :]


def header_of(data: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header


@pytest.mark.parametrize(
    "lie",
    [
        {"dtype": "F8_E8M0"},
        {"dtype": "NOTHING"},
        {"dtype": "F16"},
        {"dtype": "I32"},
        {"shape": [2**62, 2**62]},
        {"shape": [-1]},
        {"shape": [5]},
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [8, 4]},
    ],
    ids=str,
)
def test_a_header_that_lies_about_a_tensor_is_refused_in_a_sentence(model: Path, lie: dict[str, Any]) -> None:
    """The hashes are right: whoever wrote it wrote the manifest too."""
    path = model / "model.safetensors"
    data = path.read_bytes()
    header = header_of(data)
    name = min(set(header) - {"__metadata__"}, key=lambda name: header[name]["data_offsets"])
    header[name] |= lie
    path.write_bytes(with_header(data, header))
    hash_again(model, path.name)
    assert "model.safetensors" in refused(model)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 8, b"\xff" * 16, (2**40).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}"]
)
def test_what_is_no_safetensors_file_is_refused_in_a_sentence(model: Path, data: bytes) -> None:
    (model / "model.safetensors").write_bytes(data)
    hash_again(model, "model.safetensors")
    assert "model.safetensors" in refused(model)


def test_weights_of_another_type_are_refused_and_not_turned_into_the_right_one(model: Path) -> None:
    path = model / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(with_header(data, {name: {**one, "dtype": "I32"} for name, one in header_of(data).items()}))
    hash_again(model, path.name)
    assert "is torch.int32 and not torch.float32" in refused(model)


def test_every_file_is_checked_at_every_load(model: Path) -> None:
    """Not only at the first: nothing is remembered of a folder."""
    load_checkpoint(model)
    for name in sorted(path.name for path in model.iterdir() if path.name != "manifest.json"):
        whole = (model / name).read_bytes()
        (model / name).unlink()
        (model / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert f"{name} is damaged: its SHA-256" in refused(model)
        (model / name).write_bytes(whole)
    load_checkpoint(model)
