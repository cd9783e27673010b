"""Batch jobs whose workers do not start, or cannot write, one after the other on one Ray, and what each says.

`python -m tests.failing_jobs CLIP .../start.jsonl .../write.jsonl`: where a job fails is the name of its file.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from serving.batch.clips import PATH
from serving.batch.job import Started
from serving.batch.outputs import Output
from serving.batch.rows import INDEX, Row
from serving.batch.run import Batch
from serving.local_ray import local_ray
from vidseq.config import Limits
from vidseq.errors import VidseqError
from vidseq.features.legs import Leg


@dataclass(frozen=True)
class Failing:
    """It fails where it is told to."""

    where: str
    parts: Path
    limits: Limits = Limits()
    constants: Sequence[Row] = ({},)

    @property
    def columns(self) -> pa.Schema:
        return pa.schema({INDEX: pa.int64(), PATH: pa.string()})

    def asked(self) -> dict[str, Any]:
        return {"where": self.where}

    def start(self, device: str) -> Started:
        if self.where == "start":
            raise MemoryError("a model does not fit here")
        if self.parts.is_dir():
            self.parts.rmdir()
        self.parts.touch()  # where a folder is to be: nothing can be written there
        return _Started()


class _Started:
    def rows(self, path: str, sha256: str) -> list[Row]:
        return [{}]

    def encode_leg(self, path: str, sha256: str, leg: Leg, out: Path) -> None:
        raise AssertionError("the clip is short")

    def rows_of_legs(self, legs: Sequence[Path], sha256: str) -> list[Row] | None:
        raise AssertionError("the clip is short")


def main() -> None:
    clip, *outs = sys.argv[1:]
    with local_ray():
        for out in outs:
            print(f"{Path(out).stem}: {failure(clip, out)}")


def failure(clip: str, out: str) -> str:
    output = Output.of(out, partition_by=None)
    job = Failing(Path(out).stem, Path(f"{out}.unfinished") / "parts")
    try:
        batch = Batch([clip], output, output.place, resume=False, num_workers=1)
        batch.run(job, title="failing", console=Console(stderr=True))
    except VidseqError as error:
        return f"{error.code}: {error}"
    return "none"


if __name__ == "__main__":
    main()
