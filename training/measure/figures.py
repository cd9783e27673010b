"""Every figure that an evaluation holds, as data: what `vidseq evaluate --json` writes. Knows not how it is measured.

Shares and scores are 0 to 1. An interval is [low, high] and holds 95 % of what drawing whole groups of clips again
gives (2000 draws); `intervals` names those of a part by the figure they belong to, and leaves out what cannot be drawn
again, as with a single group. A figure is None where there is nothing to measure it on.
"""

from typing import Literal

from pydantic import BaseModel

from vidseq.schemas import ModelInfo

Interval = tuple[float, float]


class ClassFigures(BaseModel):
    """Of one label. `support` counts its truths; precision is None if it was never called, recall if never true."""

    label: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None = None
    intervals: dict[str, Interval] = {}


class ClipMetrics(BaseModel):
    """Of clips with a label; `confusion[i][j]` counts clips of label i that were called j.

    Where a model says several labels at once, `accuracy` is the share of clips with exactly the right ones, macro F1
    is by the thresholds of the labels, and `top5`, `mean_class_accuracy` and the confusion say nothing. Only there is a
    `mean_average_precision`, over the labels that occur. Where a model may answer "unknown", `share_answered` is the
    share of clips in which it does not, and `accuracy_answered` that of those; `accuracy` takes its best guess in all.
    """

    num: int
    accuracy: float
    top5: float | None
    macro_f1: float
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    mean_class_accuracy: float | None = None
    mean_average_precision: float | None = None
    share_answered: float | None = None
    accuracy_answered: float | None = None
    classes: tuple[ClassFigures, ...] = ()
    intervals: dict[str, Interval] = {}


class FrameMetrics(BaseModel):
    """Of sampled frames with a label; `accuracy_foreground` leaves out the frames whose truth is the background."""

    num: int
    accuracy: float
    accuracy_foreground: float | None
    macro_f1: float
    mean_average_precision: float | None = None
    labels: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    classes: tuple[ClassFigures, ...] = ()
    intervals: dict[str, Interval] = {}


class SegmentMetrics(BaseModel):
    """Of runs of equal frame labels, the background left out. `edit` and the F1 are 0 to 100, as the field has them."""

    num_clips: int
    num_true: int
    num_called: int
    edit: float
    f1_at_10: float
    f1_at_25: float
    f1_at_50: float
    intervals: dict[str, Interval] = {}


class ClipResults(ClipMetrics):
    """`baseline` is the mean pool, `frame_alone` sees the middle frame only."""

    baseline: ClipMetrics | None = None
    frame_alone: ClipMetrics | None = None


class FrameResults(FrameMetrics):
    baseline: FrameMetrics | None = None
    frame_alone: FrameMetrics | None = None


class SegmentResults(SegmentMetrics):
    baseline: SegmentMetrics | None = None
    frame_alone: SegmentMetrics | None = None


class ReliabilityBin(BaseModel):
    """Clips whose score lies in [low, high), the last bin with its end; mean and share are None in an empty bin."""

    low: float
    high: float
    num: int
    mean_score: float | None
    share_right: float | None


class Band(BaseModel):
    """Where 95 % of the values lie that a figure takes by chance alone, and their mean."""

    low: float
    mean: float
    high: float


class Reliability(BaseModel):
    """Of the score of the action that is called. `band`: the ECE of a perfectly calibrated model with these scores."""

    nll: float
    brier: float
    ece: float
    band: Band
    bins: tuple[ReliabilityBin, ...]
    intervals: dict[str, Interval] = {}


class CalibrationResults(BaseModel):
    """Before and after temperature scaling, at the end of each clip.

    `temperature` is the mean over clips. No clip helped to find its own: `found_on` says whether the temperatures are
    the model's, or were found on the other groups of these very clips.
    """

    num: int
    before: Reliability
    after: Reliability | None
    temperature: float | None
    found_on: Literal["the model's own clips", "the other groups"] | None


class AccuracySeen(BaseModel):
    """The accuracy of the running action once this share of each clip has been seen."""

    share_seen: float
    accuracy: float
    interval: Interval | None


class Earliness(BaseModel):
    """How soon the running action is right, and how restless the labels are.

    An action is detected when it is right and stays so to the end; `seconds_to_detect` is the median over the clips in
    which it is (`share_detected`), from their first sampled frame. Frames without a label count for no flip.
    """

    accuracy_seen: tuple[AccuracySeen, ...] = ()
    share_detected: float | None = None
    seconds_to_detect: float | None = None
    action_flips_per_minute: float | None = None
    frame_flips_per_minute: float | None = None
    true_frame_flips_per_minute: float | None = None
    intervals: dict[str, Interval] = {}


class Arrangement(BaseModel):
    """The accuracy on rearranged frames, and by how much it is less than on frames in their order."""

    name: Literal["shuffled", "reversed", "frozen", "one frame"]
    accuracy: float
    drop: float
    interval: Interval | None


class Honesty(BaseModel):
    """Does the model use time? `sentences` say it in words, of clips and of frames, each where it has such labels."""

    clips: tuple[Arrangement, ...] = ()
    frames: tuple[Arrangement, ...] = ()
    sentences: tuple[str, ...] = ()


class Paired(BaseModel):
    """The model's figure minus another's, on the same clips.

    `p` is the share of draws in which the difference is at least as large once the two have been swapped on a random
    half of the groups: how often chance alone would do that, if there were nothing between them. None with one group.
    """

    unit: Literal["clips", "frames"]
    figure: Literal["accuracy", "macro_f1"]
    against: str
    difference: float
    interval: Interval | None
    p: float | None


class ClipRow(BaseModel):
    """What was said of one clip; several labels are joined as clips.csv has them, `a|b`.

    `score` is that of the action that is called, or of the likeliest where none is; `right` is None without a truth.
    """

    path: str
    group: str | None
    truth: str | None
    called: str | None
    score: float | None
    right: bool | None
    num_frames: int
    frame_accuracy: float | None


class Evaluation(BaseModel):
    """All that was measured. A part is None where the model does not say such labels, or no clip has them."""

    model: ModelInfo | None = None
    num_groups: int | None = None
    clips: ClipResults | None
    frames: FrameResults | None
    segments: SegmentResults | None = None
    paired: tuple[Paired, ...] = ()
    calibration: CalibrationResults | None = None
    earliness: Earliness | None = None
    honesty: Honesty | None = None
    rows: tuple[ClipRow, ...] = ()
    failed: tuple[str, ...] = ()


class Cost(BaseModel):
    """What a sequence model costs beside the CNN; `state_bytes` of one stream, None for a model that cannot stream.

    `cpu_ms_a_frame` is process time on one thread of this machine, over whole clips.
    """

    num_parameters: int
    state_bytes: int | None
    cpu_ms_a_frame: float


class Change(BaseModel):
    """A clip that one of two models calls right, and what each called."""

    path: str
    truth: str
    first: str
    second: str


class Comparison(BaseModel):
    """Two models on the same clips: `paired` is the second minus the first. What only one of them says is left out."""

    models: tuple[ModelInfo, ModelInfo]
    num_groups: int
    clips: tuple[ClipMetrics, ClipMetrics] | None
    frames: tuple[FrameMetrics, FrameMetrics] | None
    segments: tuple[SegmentMetrics, SegmentMetrics] | None
    paired: tuple[Paired, ...]
    right_to_wrong: tuple[Change, ...]
    wrong_to_right: tuple[Change, ...]
    costs: tuple[Cost, Cost]
    failed: tuple[str, ...] = ()
