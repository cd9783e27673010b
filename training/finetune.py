"""The CNN trained on the clips, together with the sequence model on it. Knows nothing of how its result is measured.

    features of the frozen CNN -> fit the sequence model -> CNN and sequence model together on pixels, from there on

The sequence model learns first: the gradients of one that knows nothing would spoil a CNN that knows something
(gradual unfreezing, arxiv:1801.06146).

Shape letters: T frames, H height, W width, C colour.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.data.dataset import Dataset
from training.data.example import Example
from training.data.frame_augment import FrameAugment
from training.data.pixels import PixelCache
from training.data.splits import validation_split
from training.data.views import of_pixels
from training.loop.fit import Fitted, fit, fit_model
from training.loop.joint import JointModel, mixed_precision_pays
from training.loop.unfreeze import parameter_groups, unfreeze
from training.settings import FitConfig
from training.show import Show
from training.watching import Watch, watched
from vidseq.config import ModelConfig
from vidseq.encoder import Encoder
from vidseq.model import SequenceModel


@dataclass(frozen=True, eq=False)
class PixelSides:
    """The examples to learn from and to validate on, by their pixels. Small, and made of what any worker can read.

    `train` and `validation` are clips with their targets, whose features are left out.
    """

    train: Sequence[tuple[Path, Example]]
    validation: Sequence[tuple[Path, Example]]
    cache: PixelCache
    augment: FrameAugment
    clip_frames: int

    @classmethod
    def of(cls, dataset: Dataset, *, config: ModelConfig, settings: FitConfig) -> "PixelSides":
        assert settings.unfreeze is not None
        train, validation = (
            [
                (dataset.clips[index].path.absolute(), _without_features(dataset.examples([index])[0]))
                for index in indices
            ]
            for indices in _sides(dataset, settings)
        )
        cache = PixelCache(picture=config.picture, sampling=config.sampling)
        return cls(train, validation, cache, FrameAugment(settings.augment_frames), settings.unfreeze.clip_frames)

    def __call__(self) -> tuple[list[Example], list[Example]]:
        train, validation = ([self._example(*clip) for clip in side] for side in (self.train, self.validation))
        return train, validation

    def _example(self, path: Path, targets: Example) -> Example:
        pixels_THWC = torch.from_numpy(self.cache(path).pixels_THWC)
        return of_pixels(targets, pixels_THWC, augment=self.augment, clip_frames=self.clip_frames)


@dataclass(frozen=True, eq=False)
class Finetuned:
    """Both parts, in evaluation mode and frozen."""

    encoder: Encoder
    model: Fitted[SequenceModel]


def finetune(
    encoder: Encoder,
    dataset: Dataset,
    *,
    config: ModelConfig,
    settings: FitConfig,
    num_workers: int,
    run: Path,
    show: Show,
) -> Finetuned:
    """The encoder and the sequence model after they were trained together. What is given stays as it is.

    Args:
        encoder: the one that made the features of `dataset`, on the device that trains.
        settings: their `unfreeze` says what is trained. The sequence model keeps their learning rate.
        num_workers: processes that share each batch; more than one need a Ray that is connected.
        run: the folder in which progress is kept, and TensorBoard's logs.

    Raises:
        OptionError: the backbone cannot be unfrozen so; and as fit_model.
    """
    assert settings.unfreeze is not None
    trained, num_epochs = copy.deepcopy(encoder), settings.epochs
    unfreeze(trained, settings.unfreeze)
    with watched("frozen-cnn", num_epochs=num_epochs, run=run, show=show) as watch:
        sequence = _fit_on_features(dataset, config=config, settings=settings, run=run, watch=watch).model
    with watched("cnn", num_epochs=num_epochs, run=run, show=show) as watch:
        fitted = _fit_joint(
            JointModel(trained, sequence, mixed_precision=mixed_precision_pays(encoder.pixel_mean.device)),
            PixelSides.of(dataset, config=config, settings=settings),
            num_workers=num_workers,
            config=config,
            settings=settings,
            groups=[{"params": list(sequence.parameters())}, *parameter_groups(trained, settings.unfreeze)],
            run_file=run / "cnn.pt",
            watch=watch,
        )
    fresh = Encoder(encoder.config)
    fresh.load_state_dict(fitted.model.encoder.state_dict())
    model = fitted.model.sequence.cpu().eval()
    return Finetuned(fresh.to(encoder.pixel_mean.device), Fitted(model, fitted.best_epoch, fitted.history))


def _sides(dataset: Dataset, settings: FitConfig) -> tuple[Sequence[int], Sequence[int]]:
    """What is learnt from, and what stops it early: the same as when the features alone are learnt from."""
    train, held_out = validation_split(dataset.clips, seed=settings.seed)
    return train, held_out if settings.stop_early else ()


def _fit_on_features(
    dataset: Dataset, *, config: ModelConfig, settings: FitConfig, run: Path, watch: Watch
) -> Fitted[SequenceModel]:
    train, validation = (dataset.examples(side) for side in _sides(dataset, settings))
    return fit(
        train,
        validation,
        config=config,
        settings=settings,
        run_file=run / "frozen-cnn.pt",
        on_epoch=watch.on_epoch,
        on_resume=watch.on_resume,
    )


def _fit_joint(
    model: JointModel,
    sides: PixelSides,
    *,
    num_workers: int,
    config: ModelConfig,
    settings: FitConfig,
    groups: Sequence[Mapping[str, Any]],
    run_file: Path,
    watch: Watch,
) -> Fitted[JointModel]:
    device = model.encoder.pixel_mean.device
    arguments: dict[str, Any] = {
        "config": config,
        "settings": settings,
        "groups": groups,
        "run_file": run_file,
        "on_epoch": watch.on_epoch,
        "on_resume": watch.on_resume,
    }
    if num_workers == 1:
        return fit_model(model.to(device), *sides(), **arguments)
    from training.loop.distributed import fit_together  # imports Ray, which whoever trains alone need not have

    return fit_together(model.cpu(), sides, num_workers=num_workers, device=device.type, **arguments)


def _without_features(example: Example) -> Example:
    return Example(torch.empty(example.num_frames, 0), example.action_target_A, example.frame_target_T)
