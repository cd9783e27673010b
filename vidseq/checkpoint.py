"""A model as a folder that explains itself: written atomically, hashed, read strictly. Knows nothing of training.

    config.json                 ModelConfig: sizes, sampling, pixel mean and std, labels in order
    model.safetensors           the recurrence and the heads
    baseline.safetensors        the mean-pool model that was trained beside it
    frame_alone.safetensors     the model that sees one frame, trained beside it too; older models have none
    backbone-HASH.safetensors   the frozen encoder; one file on disk for all models that share it (a hard link)
    card.md, report.html        documents for people: what was measured
    manifest.json               schema, name, version, and the SHA-256 of every file above

The SHA-256 of manifest.json is the model's identity. Nothing is ever unpickled.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vidseq.config import ModelConfig, first_mistake
from vidseq.errors import CheckpointError, OptionError
from vidseq.model import SequenceModel, VideoModel
from vidseq.schemas import ModelInfo

SCHEMA = 1
_MANIFEST, _CONFIG, _MODEL, _BASELINE, _FRAME_ALONE = (
    "manifest.json",
    "config.json",
    "model.safetensors",
    "baseline.safetensors",
    "frame_alone.safetensors",
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that has been read: `trunk` is the hash of what a stream's state depends on (all but the heads)."""

    config: ModelConfig
    model: VideoModel
    baseline: SequenceModel | None
    frame_alone: SequenceModel | None
    info: ModelInfo
    trunk: str


def save_checkpoint(
    folder: Path,
    *,
    config: ModelConfig,
    model: VideoModel,
    baseline: SequenceModel,
    frame_alone: SequenceModel | None = None,
    documents: Mapping[str, str],
    version: str,
) -> None:
    """Write a model beside its final name and rename it into place; an older model there is replaced.

    A new name appears whole or not at all. Replacing takes two renames, and between them there is no model of that
    name: a reader may find none for an instant, and after a crash right there the older one is in a hidden folder
    beside it.

    Args:
        documents: texts for people, by file name, such as card.md.

    Raises:
        CheckpointError: `folder` exists and is not a model, so it is left alone.
    """
    check_destination(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    backbone = model.encoder.to_bytes()
    files = {
        _CONFIG: config.model_dump_json(indent=2).encode(),
        _MODEL: save_tensors(model.sequence.state_dict()),
        _BASELINE: save_tensors(baseline.state_dict()),
        **({} if frame_alone is None else {_FRAME_ALONE: save_tensors(frame_alone.state_dict())}),
        f"backbone-{_sha256(backbone)[:16]}.safetensors": backbone,
    }
    assert documents.keys().isdisjoint({*files, _MANIFEST}), f"a document takes a name of the model's: {[*documents]}"
    files |= {name: text.encode() for name, text in documents.items()}
    manifest = {
        "schema": SCHEMA,
        "name": folder.name,
        "version": version,
        "files": {name: _sha256(data) for name, data in files.items()},
    }
    files[_MANIFEST] = json.dumps(manifest, indent=2).encode()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        for name, data in files.items():
            shared = name.startswith("backbone-")
            _write_shared(fresh / name, data) if shared else _write(fresh / name, data)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)
    _sync(folder.parent)


def check_destination(folder: Path) -> None:
    """That a model can be written to `folder`; to be asked before the work that makes one.

    Raises:
        CheckpointError: it has no name of its own, is something else already, or lies where nothing can be written.
    """
    if folder.name in ("", ".."):
        raise CheckpointError(f"{folder} does not name a folder for the model")
    if folder.exists() and not (folder / _MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists and is not a model: choose another name")
    ground = next(parent for parent in folder.absolute().parents if parent.exists())
    if not ground.is_dir() or not os.access(ground, os.W_OK):
        raise CheckpointError(f"nothing can be written into {ground}")


def load_checkpoint(folder: Path, *, name: str | None = None) -> Checkpoint:
    """Read a model folder, checking every byte of it; `name` overrides the name it was saved under.

    Raises:
        CheckpointError: not a model, damaged, or of another version; the message names the file.
    """
    manifest, identity = _read_manifest(folder)
    contents = {file: _read_checked(folder / file, digest) for file, digest in manifest["files"].items()}
    backbones = [file for file in contents if file.startswith("backbone-")]
    missing = {_CONFIG, _MODEL} - contents.keys()
    if missing or len(backbones) != 1:
        raise CheckpointError(f"{folder / _MANIFEST} does not list {', '.join(sorted(missing)) or 'one backbone'}")
    config = _read_config(folder / _CONFIG, contents[_CONFIG])
    model = _build(config, folder / _CONFIG)
    tensors = _with_layers_apart(_read_tensors(folder / _MODEL, contents[_MODEL]))
    _fill(model.sequence, tensors, folder / _MODEL)
    _fill(model.encoder.backbone, _read_tensors(folder / backbones[0], contents[backbones[0]]), folder / backbones[0])
    encoder = model.encoder
    baseline, frame_alone = (
        _read_beside(folder / name, contents.get(name), beside, feature_size=feature_size)
        for name, beside, feature_size in (
            (_BASELINE, config.baseline(), encoder.feature_size),
            (_FRAME_ALONE, config.frame_alone(), encoder.pooled_size),
        )
    )
    info = _info(manifest, identity, config, name=name)
    trunk = _trunk(config, manifest["files"][backbones[0]], tensors)
    return Checkpoint(config=config, model=model, baseline=baseline, frame_alone=frame_alone, info=info, trunk=trunk)


def read_info(folder: Path) -> ModelInfo:
    """What a model says of itself, without reading its weights.

    Raises:
        CheckpointError: not a model, or of another version.
    """
    manifest, identity = _read_manifest(folder)
    config = _read_config(folder / _CONFIG, _read_checked(folder / _CONFIG, manifest["files"].get(_CONFIG, "")))
    return _info(manifest, identity, config, name=None)


def _info(manifest: dict[str, Any], identity: str, config: ModelConfig, *, name: str | None) -> ModelInfo:
    return ModelInfo(
        name=name or manifest["name"],
        version=manifest["version"],
        sha256=identity,
        action_labels=config.heads.action_labels,
        several=config.heads.several,
        frame_labels=config.heads.frame_labels,
    )


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / _MANIFEST
    if not folder.is_dir():
        raise CheckpointError(f"there is no model folder at {folder}")
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a model: it has no {_MANIFEST}")
    data = path.read_bytes()
    try:
        manifest = json.loads(data)
        schema, files = manifest["schema"], manifest["files"]
        sound = (
            isinstance(files, dict)
            and all(isinstance(digest, str) and Path(file).name == file for file, digest in files.items())
            and all(isinstance(manifest[key], str) for key in ("name", "version"))
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it is not a manifest") from None
    if schema != SCHEMA:
        raise CheckpointError(f"{path} has schema {schema!r}; this version of vidseq reads schema {SCHEMA}")
    if not sound:
        raise CheckpointError(f"{path} is damaged: it is not a manifest")
    return manifest, _sha256(data)


def _read_checked(path: Path, digest: str) -> bytes:
    """The bytes of a file whose hash is the manifest's. They are hashed and used from one read."""
    try:
        data = path.read_bytes()
    except OSError:
        raise CheckpointError(f"{path} is missing from the model") from None
    if _sha256(data) != digest:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {_MANIFEST}")
    return data


def _read_config(path: Path, data: bytes) -> ModelConfig:
    try:
        return ModelConfig.model_validate_json(data)
    except ValidationError as error:
        field, mistake = first_mistake(error)
        raise CheckpointError(f"{path} does not describe a model of this version: {field}: {mistake}") from None


def _build(config: ModelConfig, path: Path) -> VideoModel:
    try:
        return VideoModel.build(config)
    except OptionError as error:
        raise CheckpointError(f"{path} does not describe a model of this version: {error}") from None


def _read_tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    return tensors


def _read_beside(path: Path, data: bytes | None, config: ModelConfig, *, feature_size: int) -> SequenceModel | None:
    """A model that was trained beside the one of this folder, on the same frames; None where there is none."""
    if data is None:
        return None
    model = SequenceModel(config, feature_size=feature_size).eval()
    _fill(model, _read_tensors(path, data), path)
    return model


def _with_layers_apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Patch the names of models up to 0.1: their layers, and both directions of one, lay in one module of torch's."""
    bidirectional = any(name.startswith("recurrent.rnn.") and name.endswith("_reverse") for name in tensors)
    patched = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"recurrent\.rnn\.((?:weight|bias)_[ih]h)_l(\d)(_reverse)?", name):
            kind, layer, backwards = match.groups()
            direction = ("backwards." if backwards else "forwards.") if bidirectional else ""
            name = f"recurrent.layers.{layer}.{direction}kernel.{kind}_l0"
        patched[name] = tensor
    return patched


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its config.json: {error}") from None


def _trunk(config: ModelConfig, backbone_digest: str, tensors: dict[str, Tensor]) -> str:
    """The hash of everything that a stream's memory depends on."""
    digest = hashlib.sha256(backbone_digest.encode())
    for part in (config.picture, config.sampling, config.encoder, config.recurrent):
        digest.update(part.model_dump_json().encode())
    recurrent = {name: tensor for name, tensor in tensors.items() if name.startswith("recurrent.")}
    digest.update(save_tensors(recurrent))
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_shared(path: Path, data: bytes) -> None:
    """A hard link to the user's one copy of a backbone, or a copy where a link cannot be made."""
    shelf = user_cache_path("vidseq") / "backbones" / path.name
    try:
        if not shelf.is_file() or shelf.read_bytes() != data:
            shelf.parent.mkdir(parents=True, exist_ok=True)
            fresh = shelf.with_name(f"{shelf.name}.{os.getpid()}")
            _write(fresh, data)
            fresh.replace(shelf)
        os.link(shelf, path)
    except OSError:
        _write(path, data)


def _sync(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
