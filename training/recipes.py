"""Training runs by name: each is a function that returns a full configuration. Knows not how it is run."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from training.fit import FitConfig
from vidseq import encoder
from vidseq.config import (
    Config,
    HeadsConfig,
    LayerSize,
    ModelConfig,
    Picture,
    PositiveInt,
    RecurrentConfig,
    Sampling,
)


class Options(Config):
    """What a person may choose on the command line; everything else follows from the recipe."""

    cell: Literal["elman", "lstm", "gru"] = "gru"
    num_layers: Annotated[int, Field(ge=1, le=4)] = 1
    hidden_size: LayerSize = 64
    bidirectional: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    readout: Literal["last", "mean", "attention"] = "mean"
    backbone: str = encoder.PACKAGED
    weights: str = "default"
    precision: Literal["float32", "bfloat16"] = "float32"
    frames_per_second: Annotated[float, Field(gt=0, le=1000)] | Literal["native"] = 8.0
    max_frames: PositiveInt | None = None
    size: Annotated[int, Field(ge=16, le=1024)] = 224
    fit: Literal["crop", "letterbox"] = "crop"
    epochs: PositiveInt = 60
    batch_size: PositiveInt = 16
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    patience_epochs: PositiveInt = 20
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("readout")
    @classmethod
    def _last_is_half_blind(cls, readout: str, info: ValidationInfo) -> str:
        if readout == "last" and info.data.get("bidirectional"):
            raise ValueError("the backward half has seen one frame at the last: use mean or attention")
        return readout


def default(
    options: Options,
    *,
    action_labels: tuple[str, ...],
    frame_labels: tuple[str, ...],
    background: str | None,
) -> tuple[ModelConfig, FitConfig]:
    """A small recurrence on frozen features, for a few hundred clips.

    Reaches the figures of docs/results.md: with the features cached, seconds to a minute on two cores; computing them
    costs one pass of the backbone over every sampled frame.
    """
    config = ModelConfig(
        picture=Picture(size=options.size, fit=options.fit),
        sampling=Sampling(frames_per_second=options.frames_per_second, max_frames=options.max_frames),
        encoder=encoder.build_config(options.backbone, weights=options.weights, precision=options.precision),
        recurrent=RecurrentConfig(
            cell=options.cell,
            projection_size=options.hidden_size,
            hidden_size=options.hidden_size,
            num_layers=options.num_layers,
            bidirectional=options.bidirectional,
            dropout=options.dropout,
        ),
        heads=HeadsConfig(
            action_labels=action_labels, frame_labels=frame_labels, background=background, readout=options.readout
        ),
    )
    settings = FitConfig(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        patience_epochs=options.patience_epochs,
        seed=options.seed,
    )
    return config, settings
