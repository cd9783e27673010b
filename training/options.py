"""What a person may choose, and the full configuration that follows: every number of a run. Knows not how it is run."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from training.settings import (
    ChunkFrames,
    ClassBalance,
    Decay,
    FitConfig,
    FrameChange,
    LayerDecay,
    Long,
    Mixup,
    Smoothing,
    TimeChange,
    UnfreezeConfig,
    Views,
    check_together,
)
from vidseq.config import (
    PACKAGED,
    BetweenLayers,
    CellName,
    Config,
    Fit,
    HeadsConfig,
    LayerSize,
    ModelConfig,
    MotionChannels,
    MotionConfig,
    MotionSign,
    Normalisation,
    NumLayers,
    Picture,
    PositiveInt,
    Readout,
    RecurrentConfig,
    Sampling,
    Share,
    WindowFrames,
    first_mistake,
)
from vidseq.errors import OptionError
from vidseq.features.extract import Look

MotionOf = Literal["last", "middle", "pooled"]


def _parted(value: Any) -> Any:
    """What was typed as `one,two`."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


T = TypeVar("T")
Listed = Annotated[tuple[T, ...], BeforeValidator(_parted)]


class Options(Config):
    """The choices of a run, by the names of the command line. Several at once may also be given as `one,two`."""

    cell: CellName | Literal["none"] = "gru"
    num_layers: NumLayers = 1
    between_layers: BetweenLayers = "plain"
    hidden_size: LayerSize = 64
    bidirectional: bool = False
    learned_start: bool = False
    window_frames: WindowFrames = 32
    normalisation: Normalisation = "layer"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    readout: Readout = "mean"
    several: bool = False
    unknown_below: Share | None = None
    unknown_precision: Annotated[float, Field(gt=0, le=1)] | None = None
    lookahead_seconds: Annotated[float, Field(ge=0, le=10)] = 0.0
    backbone: str = PACKAGED
    weights: str = "default"
    precision: Literal["float32", "bfloat16"] = "float32"
    frames_per_second: Annotated[float, Field(gt=0, le=1000)] | Literal["native"] = 8.0
    max_frames: PositiveInt | None = None
    size: Annotated[int, Field(ge=16, le=1024)] = 224
    motion: Listed[MotionOf] = ()
    motion_sign: MotionSign = "absolute"
    motion_channels: MotionChannels = 128
    fit: Fit = "crop"
    epochs: PositiveInt = 60
    batch_size: PositiveInt = 16
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    patience_epochs: PositiveInt = 20
    stop_early: bool = True
    label_smoothing: Smoothing = 0.1
    class_balance: ClassBalance = "none"
    mixup: Mixup = 0.0
    augment_time: Listed[TimeChange] = ()
    augment_frames: Listed[FrameChange] = ()
    num_views: Views = 1
    unfreeze: PositiveInt | Literal["none", "all"] = "none"
    backbone_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    layer_decay: LayerDecay = 0.8
    checkpoint_gradients: bool = False
    clip_frames: PositiveInt = 32
    average_decay: Decay = 0.0
    long: Long = "whole"
    chunk_frames: ChunkFrames = 128
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def configure(
    options: Options,
    *,
    action_labels: tuple[str, ...],
    frame_labels: tuple[str, ...],
    background: str | None,
) -> tuple[ModelConfig, FitConfig]:
    """The model and the training that these options ask for, with these labels.

    Raises:
        OptionError: options that do not go together, or not with these labels.
    """
    try:
        config = _model_config(options, action_labels, frame_labels, background)
    except ValidationError as error:
        raise OptionError(": ".join(filter(None, first_mistake(error)))) from None
    if options.unknown_precision is not None:
        _check_unknown_precision(options, config)
    if options.lookahead_seconds and not config.lookahead_frames:
        raise OptionError(
            f"lookahead_seconds {options.lookahead_seconds:g} is less than half the time from one sampled frame to the "
            f"next, at {options.frames_per_second:g} a second"
        )
    chosen = options.model_dump(include=FitConfig.model_fields.keys() & Options.model_fields.keys())
    settings = FitConfig.model_validate({**chosen, "unfreeze": _unfreeze(options)})
    check_together(config, settings)
    return config, settings


def look(options: Options) -> Look:
    """How a model of these options looks at videos, whatever its labels.

    Raises:
        OptionError: options that do not go together.
    """
    try:
        return _look(options)
    except ValidationError as error:
        raise OptionError(": ".join(filter(None, first_mistake(error)))) from None


def _look(options: Options) -> Look:
    from vidseq.backbones import build_config  # brings timm and torchvision: see vidseq.encoder

    encoder = build_config(
        options.backbone, weights=options.weights, precision=options.precision, motion=_motion(options)
    )
    sampling = Sampling(frames_per_second=options.frames_per_second, max_frames=options.max_frames)
    return Look(encoder, Picture(size=options.size, fit=options.fit), sampling)


def _unfreeze(options: Options) -> UnfreezeConfig | None:
    if options.unfreeze == "none":
        return None
    return UnfreezeConfig(
        blocks=options.unfreeze,
        learning_rate=options.backbone_learning_rate,
        layer_decay=options.layer_decay,
        checkpoint_gradients=options.checkpoint_gradients,
        clip_frames=options.clip_frames,
    )


def _check_unknown_precision(options: Options, config: ModelConfig) -> None:
    if options.unknown_below is not None:
        raise OptionError("unknown_below states the score below which unknown_precision would find one: give either")
    if config.heads.several or not config.heads.action_labels:
        raise OptionError("unknown_precision is for a model that says one action")


def _motion(options: Options) -> MotionConfig | None:
    """The grid is that of the backbone's last map: CNNs for pictures shrink them by 32."""
    if not options.motion:
        return None
    maps = tuple(name for name in options.motion if name != "pooled")
    return MotionConfig.model_validate(
        {
            "maps": maps,
            "over": MotionConfig.model_fields["over"].default if maps else (),
            "grid": max(1, min(16, options.size // 32)),
            "channels": options.motion_channels,
            "sign": options.motion_sign,
            "pooled": "pooled" in options.motion,
        }
    )


def _model_config(
    options: Options, action_labels: tuple[str, ...], frame_labels: tuple[str, ...], background: str | None
) -> ModelConfig:
    seen = _look(options)
    return ModelConfig(
        picture=seen.picture,
        sampling=seen.sampling,
        encoder=seen.encoder,
        recurrent=RecurrentConfig(
            cell=options.cell,
            projection_size=options.hidden_size,
            hidden_size=options.hidden_size,
            num_layers=options.num_layers,
            between_layers=options.between_layers,
            bidirectional=options.bidirectional,
            learned_start=options.learned_start,
            window_frames=options.window_frames,
            normalisation=options.normalisation,
            dropout=options.dropout,
        ),
        heads=HeadsConfig(
            action_labels=action_labels,
            several=options.several,
            unknown_below=options.unknown_below,
            frame_labels=frame_labels,
            background=background,
            readout=options.readout,
            lookahead_seconds=options.lookahead_seconds,
        ),
    )
