"""A row for every clip: the columns of a batch job's output, filled by a Prediction or by an error. Knows no files.

What lies one level deep in a Prediction is a column of its own (`video_width`) and lists stay lists, so that pandas
and DuckDB read it as it is. A failed clip has the same columns: `error_code` and `error_detail`, and null elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vidseq.errors import VidseqError
from vidseq.features.store import ClipFeatures
from vidseq.schemas import ModelInfo, Prediction, VideoReport

INDEX = "__index__"  # where the clip stands among the inputs; travels with a row and is not written
UNEXPECTED = "error/internal"
LOST = "error/worker-lost"

Row = dict[str, Any]

_TEXT, _NUMBER, _COUNT = pa.string(), pa.float64(), pa.int64()
_SCORED = pa.struct({"label": _TEXT, "score": _NUMBER})
_SEGMENT = pa.struct({"start_seconds": _NUMBER, "end_seconds": _NUMBER, "label": _TEXT, "score": _NUMBER})
_FRAME = pa.struct({"seconds": _NUMBER, "label": _TEXT, "score": _NUMBER})
_COLUMNS = {
    "path": _TEXT,
    "clip_sha256": _TEXT,
    "action_label": _TEXT,
    "action_score": _NUMBER,
    "actions": pa.list_(_SCORED),
    "top": pa.list_(_SCORED),
    "segments": pa.list_(_SEGMENT),
    "frames": pa.list_(_FRAME),
    "sampled_num_frames": _COUNT,
    "sampled_frames_per_second": _NUMBER,
    "sampled_start_seconds": _NUMBER,
    "sampled_end_seconds": _NUMBER,
    "video_width": _COUNT,
    "video_height": _COUNT,
    "video_codec": _TEXT,
    "video_container": _TEXT,
    "video_duration_seconds": _NUMBER,
    "video_frames_declared": _COUNT,
    "video_frames_decoded": _COUNT,
    "video_complete": pa.bool_(),
    "video_warnings": pa.list_(_TEXT),
    "model_name": _TEXT,
    "model_version": _TEXT,
    "model_sha256": _TEXT,
    "timings_decode_ms": _NUMBER,
    "timings_encode_ms": _NUMBER,
    "timings_recur_ms": _NUMBER,
    "timings_queued_ms": _NUMBER,
    "timings_total_ms": _NUMBER,
    "early_exit_seconds": _NUMBER,
    "early_exit_score": _NUMBER,
    "error_code": _TEXT,
    "error_detail": _TEXT,
}
RESERVED = frozenset({INDEX, "__file__", "__num_bytes__", *_COLUMNS})  # no manifest may have a column of this name


def columns(*, frames: bool) -> pa.Schema:
    """The columns of the output; `frames`, the label of every sampled frame, is the one that makes a row long."""
    return pa.schema([(name, kind) for name, kind in _COLUMNS.items() if frames or name != "frames"])


def feature_columns() -> pa.Schema:
    """What is said of a clip of which features were kept: all but labels."""
    kept = ("path", "clip_sha256", "sampled_", "video_", "error_")
    return pa.schema([(name, kind) for name, kind in _COLUMNS.items() if name.startswith(kept)])


def to_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows of these columns with the index in front; what a row does not have is null."""
    return pa.Table.from_pylist(rows, schema=schema.insert(0, pa.field(INDEX, _COUNT)))


def answered(prediction: Prediction, *, frames: bool) -> Row:
    return dict(_flat(prediction.model_dump(exclude=None if frames else {"frames"})))


def of_features(features: ClipFeatures, video: VideoReport) -> Row:
    """What is known of a clip before any head has seen it."""
    seconds_T = features.seconds_T
    return dict(_flat({"video": video.model_dump()})) | {
        "sampled_num_frames": len(seconds_T),
        "sampled_start_seconds": float(seconds_T[0]),
        "sampled_end_seconds": float(seconds_T[-1]),
    }


def of_model(model: ModelInfo) -> Row:
    return dict(_flat({"model": model.model_dump()}))


def failed(error: Exception) -> Row:
    """A VidseqError in its own words; any other is a defect of ours, told with its class."""
    if isinstance(error, VidseqError):
        return refused(error.code, str(error))
    return refused(UNEXPECTED, f"{type(error).__name__}: {error}")


def refused(code: str, detail: str) -> Row:
    return {"error_code": code, "error_detail": as_text(detail)}


def as_text(name: str) -> str:
    """The same words where they are Unicode; a byte of a file name that is not becomes `\\udcNN`."""
    return name.encode("utf-8", "backslashreplace").decode()


def _flat(answer: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in answer.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}_{inner}", inner_value) for inner, inner_value in value.items())
        else:
            yield name, value
