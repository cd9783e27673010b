"""What a job has done so far, kept beside its output until that is whole. Knows nothing of models or of Ray.

    scores.parquet.unfinished/
        job.json            what was asked for: a job goes on only as the job that it was
        clips.parquet       every clip, a row group for each shard
        parts/000017.parquet   the rows of shard 17, once all of them are there
        legs/000003-0of2-9f86d081884c7d65.safetensors   what the backbone says of the first half of a long clip

A part has its name when it is whole, and the name of its shard: whatever writes it a second time writes the same.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from serving.batch.clips import FILE, PATH
from serving.batch.places import Place
from vidseq.errors import OptionError
from vidseq.features.legs import Leg

SUFFIX = ".unfinished"


class Unfinished:
    """The folder of one job. Workers on other machines must reach it, so it lies where the output will."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._clips: pq.ParquetFile | None = None

    def __reduce__(self) -> tuple[type, tuple[Place]]:  # every worker opens it for itself
        return type(self), (self.place,)

    @classmethod
    def beside(cls, out: Place) -> "Unfinished":
        return cls(out.beside(SUFFIX))

    @property
    def shown(self) -> str:
        return self.place.path

    @property
    def begun(self) -> bool:
        return (self.place / "job.json").exists()

    def begin(self, job: Mapping[str, Any], clips: pa.Table, shards: Sequence[range]) -> None:
        """`job.json` goes first and comes last: with it, all is there."""
        for name in ("job.json", "parts", "legs", "clips.parquet"):
            (self.place / name).remove()
        self._write_clips(clips, shards)
        (self.place / "job.json").write(json.dumps(job, indent=2).encode())

    def renew(self, files: Mapping[str, bytes]) -> None:
        """From now on these clips, by `PATH`, are to be had there: a URL's signature may be valid for hours only."""
        clips, shards = self._plan.read(), self.shards()
        paths, kept = clips[PATH].to_pylist(), clips[FILE].to_pylist()
        renewed = [files.get(path, file) for path, file in zip(paths, kept, strict=True)]
        number = clips.schema.get_field_index(FILE)
        self._write_clips(clips.set_column(number, clips.schema.field(number), pa.array(renewed, pa.binary())), shards)
        self._clips = None

    def job(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.place / "job.json").read())
        return found

    def discard(self) -> None:
        self.place.remove()

    @property
    def num_shards(self) -> int:
        num_shards: int = self._plan.num_row_groups
        return num_shards

    @property
    def schema(self) -> pa.Schema:
        """Of the clips."""
        return self._plan.schema_arrow

    def shards(self) -> list[range]:
        """The clips of each, as when it was begun."""
        lengths = [self._plan.metadata.row_group(shard).num_rows for shard in range(self.num_shards)]
        ends = list(accumulate(lengths))
        return [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]

    def column(self, name: str) -> list[Any]:
        """Of all clips."""
        values: list[Any] = self._plan.read([name])[name].to_pylist()
        return values

    def clips(self, shard: int) -> pa.Table:
        return self._plan.read_row_group(shard)

    def write_part(self, shard: int, rows: pa.Table) -> None:
        buffer = BytesIO()
        pq.write_table(rows, buffer, compression="zstd")
        self._part(shard).write(buffer.getvalue())

    def read_part(self, shard: int) -> pa.Table:
        return pq.read_table(BytesIO(self._part(shard).read()))

    def leg(self, shard: int, leg: Leg, *, sha256: str) -> Path:
        """The file of a part of a long clip with these bytes, on a disk that all workers reach."""
        assert self.place.is_local, "in a bucket there are no maps, and so no legs"
        name = f"{shard:06}-{leg.number}of{leg.of}-{sha256[:16]}.safetensors"
        return Path(self.place.path) / "legs" / name

    def done(self) -> set[int]:
        """The shards whose rows are there."""
        names = (self.place / "parts").names()
        return {int(name.removesuffix(".parquet")) for name in names if name.endswith(".parquet")}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else works on it meanwhile, on this machine; in a bucket, nobody can say.

        Raises:
            OptionError: somebody does.
        """
        if not self.place.is_local:
            yield
            return
        Path(self.place.path).mkdir(exist_ok=True)
        descriptor = os.open(self.place.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OptionError(f"another process is at work in {self.place.path!r}") from None
            yield
        finally:
            os.close(descriptor)
            with suppress(OSError):
                os.rmdir(self.place.path)  # if nothing is in it

    def _write_clips(self, clips: pa.Table, shards: Sequence[range]) -> None:
        buffer = BytesIO()
        with pq.ParquetWriter(buffer, clips.schema, compression="zstd") as writer:
            for shard in shards:
                writer.write_table(clips.slice(shard.start, len(shard)), row_group_size=len(shard))
        (self.place / "clips.parquet").write(buffer.getvalue(), private=True)  # URLs with their secrets

    @property
    def _plan(self) -> pq.ParquetFile:
        if self._clips is None:
            self._clips = pq.ParquetFile(BytesIO((self.place / "clips.parquet").read()))
        return self._clips

    def _part(self, shard: int) -> Place:
        return self.place / f"parts/{shard:06}.parquet"
