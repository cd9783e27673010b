"""A model folder is written whole, read strictly, and explains what is wrong with it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.toy_models import hash_again, toy_checkpoint, toy_config, toy_model
from vidseq.checkpoint import check_destination, load_checkpoint, read_info, save_checkpoint
from vidseq.errors import CheckpointError
from vidseq.model import SequenceModel


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy", cell="lstm", num_layers=2)


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(sound, tmp_path / "toy")


def test_what_was_saved_is_read_back_bit_for_bit(sound: Path) -> None:
    config = toy_config(cell="lstm", num_layers=2)
    expected, found = toy_model(config), load_checkpoint(sound)
    assert found.config == config
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name


def test_both_baselines_are_kept_beside_a_model_and_an_older_model_may_lack_the_frame_alone(tmp_path: Path) -> None:
    config = toy_config()
    model, sizes = toy_model(config), {"feature_size": toy_model(config).encoder.feature_size}
    baseline, frame_alone = (SequenceModel(one, **sizes) for one in (config.baseline(), config.frame_alone()))
    arguments = {"config": config, "model": model, "baseline": baseline, "documents": {}, "version": "1"}
    save_checkpoint(tmp_path / "new", **arguments, frame_alone=frame_alone)
    save_checkpoint(tmp_path / "old", **arguments)
    found = load_checkpoint(tmp_path / "new")
    for saved, read in ((baseline, found.baseline), (frame_alone, found.frame_alone)):
        assert read is not None
        assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in saved.state_dict().items())
    assert found.frame_alone.config.forgets_at_once and not found.baseline.config.forgets_at_once
    assert load_checkpoint(tmp_path / "old").frame_alone is None


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_model_whose_layers_lay_in_one_module_of_torch_is_read_too(
    tmp_path: Path, cell: str, bidirectional: bool
) -> None:
    """Up to 0.1: its names, and its config without what has come since. The answers are torch's own."""
    kind = {"elman": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
    folder = toy_checkpoint(tmp_path / "old", cell=cell, num_layers=2, bidirectional=bidirectional)
    rnn = kind(16, 16, num_layers=2, batch_first=True, bidirectional=bidirectional)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("recurrent.layers.")}
    save_file({**kept, **{f"recurrent.rnn.{k}": v for k, v in rnn.state_dict().items()}}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    for newer in ("between_layers", "learned_start", "window_frames", "normalisation"):
        del config["recurrent"][newer]
    (folder / "config.json").write_text(json.dumps(config))
    hash_again(folder, "model.safetensors", "config.json")
    recurrent = load_checkpoint(folder).model.sequence.recurrent
    feature_BTD = torch.randn(2, 7, recurrent.projection.in_features)
    expected_BTH, _ = rnn(recurrent.projection(recurrent.norm(feature_BTD)))
    torch.testing.assert_close(recurrent(feature_BTD)[0], expected_BTH, atol=1e-6, rtol=1e-5)


def test_the_same_model_has_the_same_identity(sound: Path, tmp_path: Path) -> None:
    again = toy_checkpoint(tmp_path / "toy", cell="lstm", num_layers=2)
    other = toy_checkpoint(tmp_path / "other" / "toy", cell="lstm", num_layers=2, seed=1)
    assert read_info(again) == read_info(sound)
    assert read_info(other).sha256 != read_info(sound).sha256


def test_new_heads_leave_the_trunk_as_it_was(tmp_path: Path) -> None:
    config = toy_config()
    model = toy_model(config)
    relabelled = config.model_copy(update={"heads": config.heads.model_copy(update={"frame_labels": ("x", "y")})})
    relabelled = relabelled.model_copy(update={"heads": relabelled.heads.model_copy(update={"background": None})})
    changed = toy_model(relabelled, seed=5)
    changed.encoder, changed.sequence.recurrent = model.encoder, model.sequence.recurrent
    for name, (settings, weights) in {"a": (config, model), "b": (relabelled, changed)}.items():
        baseline = SequenceModel(settings.baseline(), feature_size=model.encoder.feature_size)
        save_checkpoint(tmp_path / name, config=settings, model=weights, baseline=baseline, documents={}, version="1")
    assert load_checkpoint(tmp_path / "a").trunk == load_checkpoint(tmp_path / "b").trunk
    assert load_checkpoint(tmp_path / "a").trunk != load_checkpoint(toy_checkpoint(tmp_path / "c", seed=1)).trunk


@pytest.mark.parametrize("name", ["model.safetensors", "baseline.safetensors", "config.json", "card.md", "backbone"])
def test_one_flipped_bit_is_found_and_named(model: Path, name: str) -> None:
    (path,) = model.glob(f"{name}*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # the backbone is a hard link that others share
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{path.name} is damaged"):
        load_checkpoint(model)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} is missing"):
        load_checkpoint(model)


@pytest.mark.parametrize(
    "content",
    ["", "[" * 60_000, "[]", "null", "{}", '{"schema": 1, "files": {"../x": "y"}, "name": "a", "version": "1"}'],
)
def test_a_manifest_that_is_none_is_refused(model: Path, content: str) -> None:
    (model / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest.json"):
        load_checkpoint(model)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("encoder", {"backbone": "timm:nothing_like_this"}),
        ("recurrent", {"hidden_size": 10**9}),
        ("recurrent", {"projection_size": 10**9}),
        ("recurrent", {"bidirectional": True}),
    ],
)
def test_a_config_that_cannot_be_built_is_named(model: Path, part: str, change: dict[str, object]) -> None:
    """The hashes are right: whoever wrote it wrote the manifest too."""
    config = json.loads((model / "config.json").read_text())
    config["heads"]["readout"] = "last"
    config[part] |= change
    (model / "config.json").write_text(json.dumps(config))
    hash_again(model, "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json does not describe a model"):
        load_checkpoint(model)


def test_a_checkpoint_of_another_version_says_which(model: Path) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(CheckpointError, match=r"schema 99; this version of vidseq reads schema 1"):
        load_checkpoint(model)


def test_a_folder_that_is_no_model_is_refused_and_never_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "holiday"
    precious.mkdir()
    (precious / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(CheckpointError, match="is not a model"):
        load_checkpoint(precious)
    with pytest.raises(CheckpointError, match="is not a model"):
        toy_checkpoint(precious)
    assert (precious / "photo.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize("manifest", ['{"name": "my web app"}', "", None])
def test_what_lies_beside_a_manifest_is_never_lost(tmp_path: Path, manifest: str | None) -> None:
    """Somebody else's manifest, or what was put into a model's folder."""
    folder = tmp_path / "there"
    if manifest is None:
        toy_checkpoint(folder)
    else:
        folder.mkdir()
        (folder / "manifest.json").write_text(manifest)
    (folder / "precious.mp4").touch()
    held = sorted(os.listdir(folder))
    with pytest.raises(CheckpointError, match="exists and is not a model, or not only: it holds"):
        toy_checkpoint(folder)
    assert sorted(os.listdir(folder)) == held


def test_a_signed_model_is_replaced_with_its_signature(tmp_path: Path) -> None:
    (toy_checkpoint(tmp_path / "toy") / "signatures.json").write_text("[]")
    assert "signatures.json" not in os.listdir(toy_checkpoint(tmp_path / "toy"))


def test_where_a_file_system_is_mounted_no_model_can_take_its_place() -> None:
    with pytest.raises(CheckpointError, match="is where a file system is mounted: name a folder in it"):
        check_destination(Path("/proc"))


def test_saving_over_a_model_replaces_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    before = read_info(toy_checkpoint(tmp_path / "toy"))
    after = read_info(toy_checkpoint(tmp_path / "toy", seed=7))
    assert before.sha256 != after.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_models_share_one_backbone_on_disk(tmp_path: Path) -> None:
    folders = [toy_checkpoint(tmp_path / "a"), toy_checkpoint(tmp_path / "b", num_layers=2)]
    inodes = {path.stat().st_ino for folder in folders for path in folder.glob("backbone-*")}
    assert len(inodes) == 1
