"""The CNN learns with the sequence model, from pixels: what a frozen one of random weights cannot tell, it can."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from training.data.clips import ClipFolder, read_clips
from training.data.dataset import Dataset, load_dataset
from training.data.features import FeatureExtractor
from training.data.frame_augment import FrameAugment
from training.data.splits import validation_split
from training.finetune import Finetuned, PixelSides, finetune
from training.render import render_clips
from training.settings import FitConfig, FrameChange, UnfreezeConfig
from training.show import Advance, Show
from vidseq.config import EncoderConfig, HeadsConfig, ModelConfig, Picture, RecurrentConfig, Sampling
from vidseq.encoder import Encoder

LAST_TWO = UnfreezeConfig(blocks=2, learning_rate=1e-3, clip_frames=6)
ALL = UnfreezeConfig(blocks="all", learning_rate=1e-3, clip_frames=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ClipFolder:
    path = tmp_path_factory.mktemp("clips")
    render_clips(path, num_clips=24, seed=0, picture_size=64)
    return read_clips(path, group_by="scene", background=None)


@pytest.fixture(scope="module")
def config(folder: ClipFolder) -> ModelConfig:
    return ModelConfig(
        picture=Picture(size=48),
        sampling=Sampling(frames_per_second=6),
        encoder=EncoderConfig(backbone="timm:test_efficientnet", weights="none"),
        recurrent=RecurrentConfig(projection_size=32, hidden_size=32, dropout=0.2),
        heads=HeadsConfig(action_labels=folder.action_labels, frame_labels=folder.frame_labels),
    )


@pytest.fixture(scope="module")
def encoder(config: ModelConfig) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder(config.encoder)


@pytest.fixture(scope="module")
def dataset(folder: ClipFolder, encoder: Encoder, config: ModelConfig) -> Dataset:
    return load_dataset(folder, FeatureExtractor(encoder, config=config), on_bad="stop", on_clip=lambda: None)


def settings(unfreeze: UnfreezeConfig, *, epochs: int = 1, changes: tuple[FrameChange, ...] = ()) -> FitConfig:
    return FitConfig(
        epochs=epochs,
        batch_size=8,
        learning_rate=2e-3,
        patience_epochs=epochs,
        unfreeze=unfreeze,
        augment_frames=changes,
    )


def tuned(encoder: Encoder, dataset: Dataset, config: ModelConfig, how: FitConfig, run: Path) -> Finetuned:
    return finetune(encoder, dataset, config=config, settings=how, num_workers=1, run=run, show=Show())


class Killed(Exception):
    pass


class Killing(Show):
    """Its bar does not outlive the first epoch in which the CNN learns."""

    @contextmanager
    def progress(self, task: str, *, total: int) -> Iterator[Advance]:
        def advance(state: str, num_steps: int = 1) -> None:
            if task == "training cnn":
                raise Killed

        yield advance


def test_a_trained_cnn_tells_more_than_a_frozen_one_of_random_weights(
    encoder: Encoder, dataset: Dataset, config: ModelConfig, tmp_path: Path
) -> None:
    found = tuned(encoder, dataset, config, settings(ALL, epochs=8), tmp_path)
    frozen = torch.load(tmp_path / "frozen-cnn.pt", weights_only=True)["best"]["loss"]
    assert min(epoch.validation_loss for epoch in found.model.history) < frozen - 0.2


def test_what_is_given_stays_and_what_comes_out_is_frozen_and_differs_where_it_was_unfrozen(
    encoder: Encoder, dataset: Dataset, config: ModelConfig, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    found = tuned(encoder, dataset, config, settings(LAST_TWO), tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in found.encoder.parameters())
    moved = {name for name, tensor in found.encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith(("backbone.blocks.4", "backbone.conv_head", "backbone.bn2")) for name in moved)
    assert not any("running" in name for name in moved)


def test_killed_while_the_cnn_learns_it_ends_with_the_same_weights(
    encoder: Encoder, dataset: Dataset, config: ModelConfig, tmp_path: Path
) -> None:
    """Frames are changed by chance, and stretches of clips drawn: both follow from the seed and the epoch."""
    how = settings(LAST_TWO, epochs=2, changes=("crop", "colour"))
    whole = tuned(encoder, dataset, config, how, tmp_path / "whole")
    with pytest.raises(Killed):
        finetune(encoder, dataset, config=config, settings=how, num_workers=1, run=tmp_path / "cut", show=Killing())
    resumed = tuned(encoder, dataset, config, how, tmp_path / "cut")
    for one, other in ((whole.encoder, resumed.encoder), (whole.model.model, resumed.model.model)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_the_sides_are_those_of_the_split_and_made_of_the_clips_own_pixels(
    dataset: Dataset, config: ModelConfig
) -> None:
    sides = PixelSides.of(dataset, config=config, settings=settings(LAST_TWO))
    train, validation = sides()
    for side, indices in zip((train, validation), validation_split(dataset.clips, seed=0), strict=True):
        for example, expected in zip(side, dataset.examples(indices), strict=True):
            assert example.feature_TD.shape == (expected.num_frames, 48, 48, 3)
            assert example.action_index == expected.action_index
            assert torch.equal(example.frame_target_T, expected.frame_target_T)
    assert sides.augment == FrameAugment()
