"""What may be asked of POST /v1/classify, and what of its answer is left out. Knows no routes and no models."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from serving.lines import Line
from vidseq.config import Config, Seconds
from vidseq.messages import Failed
from vidseq.schemas import ALL_MODELS, Prediction, Predictions

if TYPE_CHECKING:
    from vidseq.early import EarlyExit

ModelName = Annotated[str, Field(max_length=200)]


class ClassifyOptions(Config):
    """The query of POST /v1/classify."""

    start: Seconds = Field(default=0.0, description="where to begin, in seconds of the video's own time")
    end: Seconds | None = Field(default=None, description="where to stop; the end of the video if left out")
    top_k: int = Field(default=5, ge=1, le=100, description="how many actions to name")
    frames: bool = Field(default=True, description="answer with the label of each sampled frame")
    segments: bool = Field(default=True, description="answer with the segments of one label")
    model: ModelName | Annotated[tuple[ModelName, ...], Field(max_length=100)] | None = Field(
        default=None,
        description="a name from /v1/models, the first if left out: the answer is a Prediction. Where it is given "
        "several times, or is `all` for each that is there: Predictions, from one pass over the video",
    )
    early_exit: float | None = Field(
        default=None,
        gt=0.5,
        le=1,
        description="stop once the action's calibrated score is at least this; refused by a model that is not "
        "calibrated, with several models, and with application/x-ndjson",
    )
    early_hold: Seconds | None = Field(
        default=None, description="... and has been for so many seconds; 1 if left out, refused without early_exit"
    )

    @model_validator(mode="after")
    def _interval(self) -> "ClassifyOptions":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self

    @model_validator(mode="after")
    def _hold(self) -> "ClassifyOptions":
        if self.early_hold is not None and self.early_exit is None:
            raise ValueError("early_hold says how long to wait with early_exit, which is not given")
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """What `model` names, in the order asked."""
        return (self.model,) if isinstance(self.model, str) else self.model or ()

    @property
    def several(self) -> bool:
        """Whether the answer is to be Predictions, though there may be but one."""
        return len(self.models) > 1 or self.models == (ALL_MODELS,)

    @model_validator(mode="after")
    def _one_exits(self) -> "ClassifyOptions":
        if self.several and self.early_exit is not None:
            raise ValueError("early_exit is for one model: several are told from one pass, up to its end")
        return self

    def when_to_exit(self) -> "EarlyExit | None":
        if self.early_exit is None:
            return None
        from vidseq.early import EarlyExit  # not above: with it comes numpy, which the doors do without

        given = {"score": self.early_exit, "hold_seconds": self.early_hold}
        return EarlyExit.model_validate({name: value for name, value in given.items() if value is not None})

    def of_models(self, names: Sequence[str]) -> "ClassifyOptions":
        """The same, with the names that were meant."""
        return self.model_copy(update={"model": tuple(names) if self.several else names[0]})

    def told(self, predictions: Sequence[Prediction]) -> Prediction | Predictions:
        """The answer in its form."""
        return Predictions(predictions=tuple(predictions)) if self.several else predictions[0]

    def asked_for(self, prediction: Prediction) -> Prediction:
        unasked = {name: () for name in ("frames", "segments") if not getattr(self, name)}
        return prediction.model_copy(update=unasked)

    def asked_for_line(self, line: Line) -> Line:
        if isinstance(line, Failed):
            return line
        wanted = {"labels": self.frames, "segments": self.segments}
        return line.model_copy(update={name: () for name, asked in wanted.items() if not asked})
