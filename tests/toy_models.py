"""Models of a few kilobytes with seeded random weights: they know nothing, but what they say never changes."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from vidseq.checkpoint import save_checkpoint
from vidseq.config import (
    Calibration,
    CellName,
    EncoderConfig,
    HeadsConfig,
    ModelConfig,
    MotionConfig,
    Picture,
    RecurrentConfig,
    Sampling,
    SegmentsConfig,
)
from vidseq.engine import direct
from vidseq.model import SequenceModel, VideoModel
from vidseq.rehearsal import answer

ACTIONS = ("grow", "shrink", "turn")
FRAMES = ("still", "moving", "gone")


def toy_config(
    *,
    cell: CellName | Literal["none"] = "gru",
    num_layers: int = 1,
    bidirectional: bool = False,
    sampling: Sampling = Sampling(),
    motion: MotionConfig | None = None,
    calibration: Calibration | None = None,
    **heads: Any,
) -> ModelConfig:
    """`heads` are fields of HeadsConfig that differ from those below."""
    labels = {"action_labels": ACTIONS, "frame_labels": FRAMES, "background": "still"}
    return ModelConfig(
        picture=Picture(size=32),
        sampling=sampling,
        encoder=EncoderConfig(backbone="timm:test_efficientnet", weights="none", motion=motion),
        recurrent=RecurrentConfig(
            cell=cell, projection_size=16, hidden_size=16, num_layers=num_layers, bidirectional=bidirectional
        ),
        heads=HeadsConfig.model_validate(labels | heads),
        # Untrained scores lie near 1/3 for each of three labels: open there, so that there are segments at all.
        segments=SegmentsConfig(enter_score=0.34, exit_score=0.33, merge_gap_seconds=0.0, min_duration_seconds=0.0),
        calibration=calibration,
    )


def toy_model(config: ModelConfig, *, seed: int = 0) -> VideoModel:
    """The weights depend on the seed and the configuration alone."""
    with _seeded(seed):
        return VideoModel.build(config)


def toy_checkpoint(
    folder: Path, *, seed: int = 0, with_answer: bool = False, version: str = "1", **options: Any
) -> Path:
    """A model folder; `options` are those of `toy_config`. `with_answer`: its own, to the known clip."""
    config = toy_config(**options)
    model = toy_model(config, seed=seed)
    with _seeded(seed):
        baseline = SequenceModel(config.baseline(), feature_size=model.encoder.feature_size)
    save_checkpoint(
        folder,
        config=config,
        model=model,
        baseline=baseline,
        answer=answer(config, direct(model), device="cpu") if with_answer else None,
        documents={"card.md": "# A toy"},
        version=version,
    )
    return folder


def hash_again(folder: Path, *names: str) -> None:
    """The manifest of whoever changed these files on purpose."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in names:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
