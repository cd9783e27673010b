"""A model as a folder that explains itself: written atomically, hashed, read strictly. Knows nothing of training.

    config.json                 ModelConfig: sizes, sampling, pixel mean and std, labels in order
    model.safetensors           the recurrence and the heads
    baseline.safetensors        the mean-pool model that was trained beside it
    frame_alone.safetensors     the model that sees one frame, trained beside it too; older models have none
    backbone-HASH.safetensors   the frozen encoder; one file on disk for all models that share it (a hard link)
    golden.json                 the model's own answer to a known clip (vidseq.golden); older models have none
    card.md, report.html        documents for people: what was measured
    manifest.json               schema, name, version, and the SHA-256 of every file above
    signatures.json             who vouches for the manifest (vidseq.signing), if anybody does

The SHA-256 of manifest.json is the model's identity, with or without signatures. Nothing is ever unpickled.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from platformdirs import user_cache_path
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vidseq import golden, signing
from vidseq.config import ModelConfig, first_mistake
from vidseq.errors import CheckpointError, OptionError
from vidseq.folder import (
    MANIFEST,
    MAX_DOCUMENT_BYTES,
    MAX_JSON_BYTES,
    SIGNATURES,
    Manifest,
    ModelFolder,
    manifest_of,
    opened,
    sha256,
)
from vidseq.model import SequenceModel, VideoModel
from vidseq.schemas import ModelInfo

_CONFIG, _MODEL, _BASELINE, _FRAME_ALONE = (
    "config.json",
    "model.safetensors",
    "baseline.safetensors",
    "frame_alone.safetensors",
)
_HEADER_BYTES = 2**20  # of a safetensors file: some 100 for each tensor


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that has been read: `trunk` is the hash of what a stream's state depends on (all but the heads)."""

    config: ModelConfig
    model: VideoModel
    baseline: SequenceModel | None
    frame_alone: SequenceModel | None
    golden: golden.Golden | None
    info: ModelInfo
    trunk: str


def save_checkpoint(
    folder: Path,
    *,
    config: ModelConfig,
    model: VideoModel,
    baseline: SequenceModel,
    frame_alone: SequenceModel | None = None,
    answer: golden.Golden | None = None,
    documents: Mapping[str, str],
    version: str,
) -> None:
    """Write a model beside its final name and rename it into place; an older model there is replaced.

    A new name appears whole or not at all. Replacing takes two renames, and between them there is no model of that
    name: a reader may find none for an instant, and after a crash right there the older one is in a hidden folder
    beside it.

    Args:
        answer: what the model says of the known clip (vidseq.rehearsal); without, nobody can tell whether it says the
            same elsewhere.
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
        **({} if answer is None else {golden.FILE: answer.model_dump_json().encode()}),
        f"backbone-{sha256(backbone)[:16]}.safetensors": backbone,
    }
    assert documents.keys().isdisjoint(files), f"a document takes a name of the model's: {[*documents]}"
    files |= {name: text.encode() for name, text in documents.items()}
    files[MANIFEST] = manifest_of(files, name=folder.name, version=version)
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

    What is there is deleted then, so it must be a model and nothing else.

    Raises:
        CheckpointError: it has no name of its own, is something else already, or lies where nothing can be written.
    """
    if folder.name in ("", ".."):
        raise CheckpointError(f"{folder} does not name a folder for the model")
    if folder.is_mount():
        raise CheckpointError(f"{folder} is where a file system is mounted: name a folder in it")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} exists and is not a model: choose another name")
    if folder.is_dir() and (foreign := sorted(set(os.listdir(folder)) - _files_of_model(folder))):
        raise CheckpointError(
            f"{folder} exists and is not a model, or not only: it holds {foreign[0]!r}; choose another name"
        )
    ground = next(parent for parent in folder.absolute().parents if parent.exists())
    if not ground.is_dir() or not os.access(ground, os.W_OK):
        raise CheckpointError(f"nothing can be written into {ground}")


def _files_of_model(folder: Path) -> set[str]:
    """What a model in it consists of, by its manifest; nothing where there is none."""
    try:
        with opened(folder) as files:
            return {MANIFEST, SIGNATURES, *files.manifest.digests}
    except CheckpointError:
        return set()


def load_checkpoint(folder: Path, *, name: str | None = None, trusted_keys: Sequence[Path] | None = None) -> Checkpoint:
    """Read a model folder, checking every byte of it.

    Args:
        name: overrides the name it was saved under.
        trusted_keys: files of public keys, one of which must have signed the model; None asks for no signature.

    Raises:
        CheckpointError: not a model, damaged, of another version, or not signed by one of these keys; the message names
            the file.
        OptionError: one of `trusted_keys` is not a public key.
    """
    with opened(folder, trusted_keys=trusted_keys) as files:
        digests = files.manifest.digests
        backbones = [file for file in digests if file.startswith("backbone-")]
        missing = {_CONFIG, _MODEL} - digests.keys()
        if missing or len(backbones) != 1:
            raise CheckpointError(f"{folder / MANIFEST} does not list {', '.join(sorted(missing)) or 'one backbone'}")
        config = _read_config(files)
        model = _build(config, folder / _CONFIG)
        encoder = model.encoder
        tensors = _with_layers_apart(_read_tensors(files, _MODEL, model.sequence))
        _fill(model.sequence, tensors, folder / _MODEL)
        _fill(encoder.backbone, _read_tensors(files, backbones[0], encoder.backbone), folder / backbones[0])
        baseline = _read_beside(files, _BASELINE, config.baseline(), feature_size=encoder.feature_size)
        frame_alone = _read_beside(files, _FRAME_ALONE, config.frame_alone(), feature_size=encoder.pooled_size)
        answer = golden.parsed(_read_json(files, golden.FILE), folder / golden.FILE) if golden.FILE in digests else None
        for document in digests.keys() - {_CONFIG, _MODEL, _BASELINE, _FRAME_ALONE, golden.FILE, *backbones}:
            files.read(document, max_bytes=MAX_DOCUMENT_BYTES)
    return Checkpoint(
        config=config,
        model=model,
        baseline=baseline,
        frame_alone=frame_alone,
        golden=answer,
        info=_info(files.manifest, config, name=name),
        trunk=_trunk(config, digests[backbones[0]], tensors),
    )


def read_info(folder: Path) -> ModelInfo:
    """What a model says of itself, without reading its weights.

    Raises:
        CheckpointError: not a model, or of another version.
    """
    with opened(folder) as files:
        return _info(files.manifest, _read_config(files), name=None)


def read_signers(folder: Path) -> dict[str, bool]:
    """The ids of the keys that have signed a model, and whether their signatures fit it. Whom to trust is not said.

    Raises:
        CheckpointError: not a model, or its signatures are damaged.
    """
    with opened(folder) as files:
        return {one.key_id: one.fits(files.manifest_bytes) for one in files.signatures()}


def sign_checkpoint(folder: Path, key: Ed25519PrivateKey) -> None:
    """Vouch for a model with a key, once every byte of it was checked; signatures by other keys stay.

    Raises:
        CheckpointError: it is not a model that can be used, or was changed meanwhile.
    """
    checked = load_checkpoint(folder).info.sha256
    with opened(folder) as files:
        if files.manifest.sha256 != checked:
            raise CheckpointError(f"{folder} was changed while it was being checked")
        data = signing.signed(files.manifest_bytes, key, beside=files.signatures())
    fresh = folder / f".{SIGNATURES}.{os.getpid()}"
    _write(fresh, data)
    fresh.replace(folder / SIGNATURES)
    _sync(folder)


def _info(manifest: Manifest, config: ModelConfig, *, name: str | None) -> ModelInfo:
    return ModelInfo(
        name=name or manifest.name,
        version=manifest.version,
        sha256=manifest.sha256,
        action_labels=config.heads.action_labels,
        several=config.heads.several,
        frame_labels=config.heads.frame_labels,
    )


def _read_json(files: ModelFolder, name: str) -> bytes:
    return files.read(name, max_bytes=MAX_JSON_BYTES)


def _read_config(files: ModelFolder) -> ModelConfig:
    try:
        return ModelConfig.model_validate_json(_read_json(files, _CONFIG))
    except ValidationError as error:
        field, mistake = first_mistake(error)
        path = files.path / _CONFIG
        raise CheckpointError(f"{path} does not describe a model of this version: {field}: {mistake}") from None


def _build(config: ModelConfig, path: Path) -> VideoModel:
    try:
        return VideoModel.build(config)
    except OptionError as error:
        raise CheckpointError(f"{path} does not describe a model of this version: {error}") from None


def _read_tensors(files: ModelFolder, name: str, module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file that is to fill `module`: how large it may be follows from that."""
    room = sum(tensor.nbytes for tensor in module.state_dict().values()) + _HEADER_BYTES
    data = files.read(name, max_bytes=room)
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, AssertionError) as error:  # all by a lying header
        words = error if isinstance(error, SafetensorError) else f"its header lies ({type(error).__name__}: {error})"
        raise CheckpointError(f"{files.path / name} is damaged: {words}") from None
    return tensors


def _read_beside(files: ModelFolder, name: str, config: ModelConfig, *, feature_size: int) -> SequenceModel | None:
    """A model that was trained beside the one of this folder, on the same frames; None where there is none."""
    if name not in files.manifest.digests:
        return None
    model = SequenceModel(config, feature_size=feature_size).eval()
    _fill(model, _read_tensors(files, name, model), files.path / name)
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
    """Strictly, in names, shapes and types: torch would turn a type into another without a word."""
    for name, tensor in module.state_dict().items():
        if name in tensors and tensors[name].dtype != tensor.dtype:
            kinds = f"{tensors[name].dtype} and not {tensor.dtype}"
            raise CheckpointError(f"{path} does not fit its config.json: {name} is {kinds}")
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
