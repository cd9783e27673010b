"""What was said of each clip, read from whatever vidseq wrote: rows of `score`, or Predictions. Knows no other form."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vidseq.errors import OptionError
from vidseq.schemas import Prediction, Scored, Segment

SUFFIXES = (".parquet", ".jsonl", ".json")


@dataclass(frozen=True)
class Labelled:
    """One clip: `path` as it was given, its actions, its segments, and until when it lasts."""

    path: str
    actions: tuple[Scored, ...]
    segments: tuple[Segment, ...]
    end_seconds: float

    @property
    def spans(self) -> tuple[Segment, ...]:
        """What can be shown over time: the segments, or the actions over the whole clip where there are none."""
        whole = {"start_seconds": 0.0, "end_seconds": self.end_seconds}
        return self.segments or tuple(Segment(**whole, label=said.label, score=said.score) for said in self.actions)


def read_labelled(results: Path, *, clip: str | None = None, model: str | None = None) -> Iterator[Labelled]:
    """The clips that got labels, in their order; those that failed are passed over.

    Args:
        results: a table or folder of `vidseq score`, or a file of Predictions, one a line, as `predict --json` prints.
        clip: the path of the clip, for Predictions, which do not know it.
        model: by its name or its SHA-256, whose rows are meant where a table has those of several.

    Raises:
        OptionError: it is none of these; or there are rows of several models, and none is named, or another.
    """
    models: dict[str, str] = {}  # by their SHA-256
    for row in _rows(results):
        if not isinstance(row, dict) or ("error_code" in row and "actions" not in row):
            raise OptionError(f"{str(results)!r} holds neither rows of `vidseq score` nor Predictions")
        if "error_code" in row:
            name, sha256 = row.get("model_name"), row.get("model_sha256")
            if sha256 is not None:
                models[sha256] = str(name)
            if model is None and len(models) > 1:
                raise OptionError(f"{str(results)!r} has labels of {_listed(models)}: say with --model whose to take")
            if row["error_code"] is None and model in (None, name, sha256):
                yield _of_row(row)
        else:
            yield _of_prediction(row, results, clip)
    named = [sha256 for sha256, name in models.items() if model in (name, sha256)]
    if model is not None and len(named) != 1:
        raise OptionError(f"{str(results)!r} has labels of {_listed(models) or 'no named model'}: not one is {model!r}")


def _listed(models: Mapping[str, str]) -> str:
    return " and ".join(f"{name} ({sha256})" for sha256, name in models.items())


def _rows(results: Path) -> Iterator[Mapping[str, Any]]:
    if results.is_dir() or results.suffix == ".parquet":
        yield from _parquet_rows(results)
    elif results.suffix in SUFFIXES:
        try:
            with results.open() as lines:
                yield from (json.loads(line) for line in lines if line.strip())
        except ValueError as error:
            raise OptionError(f"{str(results)!r} is not JSON, a value in each line: {error}") from None
    else:
        raise OptionError(f"{str(results)!r} is no folder and does not end in {', '.join(SUFFIXES)}")


def _parquet_rows(results: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.dataset as ds  # of the extra `serve`, as whatever wrote it
    from pyarrow import ArrowException

    said = ["actions", "segments", "video_duration_seconds", "sampled_end_seconds", "error_code"]
    columns = ["path", *said, "model_name", "model_sha256"]
    try:
        for batch in ds.dataset(results, format="parquet", partitioning="hive").to_batches(columns=columns):
            yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise OptionError(f"{str(results)!r} is no table of `vidseq score`: {error}") from None


def _of_row(row: Mapping[str, Any]) -> Labelled:
    segments = tuple(Segment(**segment) for segment in row["segments"] or ())
    return Labelled(
        path=row["path"],
        actions=tuple(Scored(**said) for said in row["actions"] or ()),
        segments=segments,
        end_seconds=_end(row["video_duration_seconds"], row["sampled_end_seconds"], segments),
    )


def _of_prediction(row: Mapping[str, Any], results: Path, clip: str | None) -> Labelled:
    try:
        prediction = Prediction.model_validate(row)
    except ValidationError:
        raise OptionError(f"{str(results)!r} holds neither rows of `vidseq score` nor Predictions") from None
    if clip is None:
        raise OptionError(f"a Prediction does not say of which clip it is: name it with --clip, for {str(results)!r}")
    end_seconds = _end(prediction.video.duration_seconds, prediction.sampled.end_seconds, prediction.segments)
    return Labelled(clip, prediction.actions, prediction.segments, end_seconds)


def _end(duration_seconds: float | None, sampled_seconds: float, segments: Sequence[Segment]) -> float:
    """Of the clip: what it declares, else the last thing that was seen of it."""
    return duration_seconds or max([sampled_seconds, *(segment.end_seconds for segment in segments)])
