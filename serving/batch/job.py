"""What is to be done with every clip of a batch: labels (score_job), or features alone (feature_job). Knows no Ray.

A job travels to the workers as it is; `start` is what takes memory, and is called there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from serving.batch.rows import Row
from vidseq.config import Limits
from vidseq.features.legs import Leg


class Started(Protocol):
    """A job in a worker: a clip in, its rows out, as many as `constants`. What a clip raises becomes rows, too."""

    def rows(self, path: str, sha256: str) -> list[Row]:
        """`sha256` is that of the bytes at `path`, in hexadecimal."""
        ...

    def encode_leg(self, path: str, sha256: str, leg: Leg, out: Path) -> None:
        """Write what the backbone says of a part of the clip, if it can be done in parts; see vidseq.features.legs."""
        ...

    def rows_of_legs(self, legs: Sequence[Path], sha256: str) -> list[Row] | None:
        """None: they are not whole."""
        ...


class Job(Protocol):
    """`columns` are the output's, `path` first; `constants` are a clip's rows as far as they are known before.

    Every clip has as many rows as there are constants, whatever comes of it.
    """

    @property
    def limits(self) -> Limits: ...

    @property
    def columns(self) -> pa.Schema: ...

    @property
    def constants(self) -> Sequence[Row]: ...

    def asked(self) -> dict[str, Any]:
        """All that its rows follow from, as JSON: a job goes on only as the one that it was."""
        ...

    def start(self, device: str) -> Started:
        """In a worker."""
        ...
